//! From any number of texts to their embeddings: prompts, passes of like lengths, what becomes of the vectors.

use super::{SentenceTransformer, TEXTS_PER_BLOCK};
use crate::error::{Error, Result};
use crate::flow::{
    Embeddings, Encode, EncodeMultiVector, EncodeOptions, EncodeSparse, ModelType, PackedBatch, Predict, Preprocess,
};
use crate::model::module::Features;
use crate::ops::{Context, Precision};
use crate::util::progress::Progress;

/// Tokens encoded in one pass when nothing is trained.
const TOKENS_PER_PASS: usize = 8192;
/// Values of embeddings made in one pass: those over a vocabulary are long.
const VALUES_PER_PASS: usize = 1 << 22;

impl SentenceTransformer {
    /// The prompt that `encode` uses without being told one.
    #[must_use]
    pub fn default_prompt(&self) -> Option<&str> {
        let name = self.description.default_prompt_name.as_deref()?;
        self.description.prompts.get(name).map(String::as_str)
    }

    /// The prompt called `name`.
    ///
    /// # Errors
    /// When the model has none of that name.
    pub fn prompt(&self, name: &str) -> Result<&str> {
        self.description.prompts.get(name).map(String::as_str).ok_or_else(|| {
            let known: Vec<&str> = self.description.prompts.keys().map(String::as_str).collect();
            Error::usage(format!("the model has no prompt named `{name}`")).with_hint(if known.is_empty() {
                "it has no prompts at all; give the text itself with `--prompt`".to_owned()
            } else {
                format!("it has {}", known.join(", "))
            })
        })
    }

    /// Hands over the embedding of each text, with the text's number; in no order.
    pub(in crate::model) fn encode_each(
        &self,
        texts: &[&str],
        options: &EncodeOptions,
        progress: &Progress,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let prompt = options.prompt.as_deref().or_else(|| self.default_prompt());
        let precision = if options.bf16 { Precision::Bf16 } else { Precision::Full };
        let context = Context::inference().with_precision(precision);
        let task = options.task.as_deref().filter(|_| !self.tasks().is_empty());
        let tokens = self.tokenizer_for(task)?.tokenize(texts, prompt)?;
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(tokens[*i].ids.len()));
        let mut rest = order.as_slice();
        let least = self.least_length(task).max(1);
        while !rest.is_empty() {
            let mut budget = TOKENS_PER_PASS;
            let take = rest
                .iter()
                .take((VALUES_PER_PASS / self.dimension.max(1)).max(1))
                .take_while(|i| {
                    let length = tokens[**i].ids.len().max(least);
                    let fits = length <= budget;
                    budget = budget.saturating_sub(length);
                    fits
                })
                .count()
                .max(1);
            let (now, later) = rest.split_at(take);
            let packed = PackedBatch::pack(now.iter().map(|i| (tokens[*i].ids.as_slice(), tokens[*i].prompt_length)));
            let features = Features { max_active_dims: options.max_active_dims, ..Features::new(packed.clone(), task) };
            let embeddings = self.pass(features, 0..self.modules.len(), &context)?.flatten_all()?.to_vec1::<f32>()?;
            match self.vectors(&packed, task) {
                None => {
                    for (row, i) in embeddings.chunks_exact(self.dimension.max(1)).zip(now) {
                        each(*i, row);
                    }
                }
                Some(counts) => {
                    let mut rest = embeddings.as_slice();
                    for (count, i) in counts.iter().zip(now) {
                        let (row, later) = rest
                            .split_at_checked(*count as usize * self.dimension)
                            .ok_or_else(|| Error::Internal("a text has fewer vectors than were counted".to_owned()))?;
                        each(*i, row);
                        rest = later;
                    }
                }
            }
            progress.inc(take as u64);
            rest = later;
        }
        Ok(())
    }
}

impl Encode for SentenceTransformer {
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
        if self.pairs.is_some() {
            return Err(Error::usage(format!(
                "the model is a {}, which scores pairs and has no embeddings",
                self.kind()
            ))
            .with_hint(
                "use `tallow rank` or `tallow predict`, and the evaluators whose names begin with `CrossEncoder`",
            ));
        }
        if self.kind() == ModelType::MultiVectorEncoder {
            return Err(Error::usage(format!("the model is a {}, which has a vector for each token", self.kind()))
                .with_hint("give a SentenceTransformer; evaluators for this one are called `MultiVector…`"));
        }
        let progress = options.progress.map_or_else(Progress::hidden, |what| Progress::new(what, texts.len() as u64));
        let mut data = vec![0.0; texts.len() * self.dimension];
        let blocks = data.chunks_mut((TEXTS_PER_BLOCK * self.dimension).max(1));
        for (texts, out) in texts.chunks(TEXTS_PER_BLOCK).zip(blocks) {
            let dimension = self.dimension;
            self.encode_each(texts, options, &progress, &mut |i, row| {
                out[i * dimension..(i + 1) * dimension].copy_from_slice(row);
            })?;
        }
        progress.finish();
        let embeddings = Embeddings::new(self.dimension, data);
        let truncate_dim = options.truncate_dim.or(self.description.truncate_dim);
        if let Some(dim) = truncate_dim
            && (dim == 0 || dim > self.dimension)
        {
            return Err(Error::usage(format!("truncate_dim is {dim}, the model has {} dimensions", self.dimension)));
        }
        let embeddings = match truncate_dim {
            Some(dim) => embeddings.truncated(dim),
            None => embeddings,
        };
        Ok(if options.normalize { embeddings.normalized() } else { embeddings })
    }

    fn named_prompt(&self, name: &str) -> Option<String> {
        self.description.prompts.get(name).cloned()
    }

    fn sparse(&self) -> Option<&dyn EncodeSparse> {
        (self.kind() == ModelType::SparseEncoder).then_some(self as &dyn EncodeSparse)
    }

    fn multi_vector(&self) -> Option<&dyn EncodeMultiVector> {
        (self.kind() == ModelType::MultiVectorEncoder).then_some(self as &dyn EncodeMultiVector)
    }

    fn predictor(&self) -> Option<&dyn Predict> {
        self.pairs.is_some().then_some(self as &dyn Predict)
    }

    fn similarity_fn_name(&self) -> &str {
        self.description.similarity_fn_name.as_deref().unwrap_or(self.description.default_similarity())
    }
}
