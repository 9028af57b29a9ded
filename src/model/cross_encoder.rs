//! A model that reads two texts at once: pairs in, logits out.

use super::SentenceTransformer;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Batch, Embeddings, EncodeOptions, ModelType, Pairing, Predict, score_not_finite};
use crate::ops::{Context, Precision};
use crate::util::progress::Progress;
use crate::util::seed::Rng;

/// Tokens scored in one pass when nothing is trained.
const TOKENS_PER_PASS: usize = 8192;
/// Pairs tokenised at a time.
const PAIRS_PER_BLOCK: usize = 8192;

/// A place of a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The document's number.
    pub corpus_id: usize,
    pub score: f32,
}

impl SentenceTransformer {
    /// The sequences a loss compares: the batch itself, or its pairs where the model reads pairs. `rng` draws
    /// negatives for losses that take some.
    ///
    /// # Errors
    /// When there are no two columns to make pairs of.
    pub fn arrange(&self, batch: Batch, pairing: Pairing, rng: Rng) -> Result<Batch> {
        match self.pairs() {
            Some(pairs) => pairs.arrange(&batch, pairing, rng),
            None => Ok(batch),
        }
    }

    /// What is applied to logits by default: the model's own, or what its number of labels suggests.
    #[must_use]
    pub fn activation_fn(&self) -> ActivationFn {
        let default = if self.dimension() == 1 { ActivationFn::Sigmoid } else { ActivationFn::Identity };
        self.description().activation_fn.unwrap_or(default)
    }

    /// The documents in the order of their scores for `query`, equal ones in the order they came.
    ///
    /// # Errors
    /// As [`Predict::predict`], and when the model gives a pair several scores.
    pub fn rank(&self, query: &str, documents: &[&str], options: &EncodeOptions) -> Result<Vec<Ranked>> {
        if self.num_labels() != 1 {
            return Err(Error::usage(format!("the model gives a pair {} scores", self.num_labels()))
                .with_hint("only models with one label rank; `tallow predict` gives the scores of classes"));
        }
        let pairs: Vec<(&str, &str)> = documents.iter().map(|document| (query, *document)).collect();
        let scores = self.predict(&pairs, None, options)?;
        let ranked = scores.data().iter().enumerate().map(|(corpus_id, score)| Ranked { corpus_id, score: *score });
        let mut ranked: Vec<Ranked> = ranked.collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(ranked)
    }
}

impl Predict for SentenceTransformer {
    fn predict(
        &self,
        pairs: &[(&str, &str)],
        activation_fn: Option<ActivationFn>,
        options: &EncodeOptions,
    ) -> Result<Embeddings> {
        let framing = self.pairs().ok_or_else(|| {
            Error::model(format!("the model is a {}, and only a {} scores pairs", self.kind(), ModelType::CrossEncoder))
        })?;
        let progress = options.progress.map_or_else(Progress::hidden, |what| Progress::new(what, pairs.len() as u64));
        let precision = if options.bf16 { Precision::Bf16 } else { Precision::Full };
        let context = Context::inference().with_precision(precision);
        let prompt = options.prompt.as_deref().or_else(|| self.default_prompt());
        let labels = self.dimension();
        let activation = activation_fn.unwrap_or_else(|| self.activation_fn());
        let mut data = vec![0.0; pairs.len() * labels];
        for (block, out) in pairs.chunks(PAIRS_PER_BLOCK).zip(data.chunks_mut(PAIRS_PER_BLOCK * labels.max(1))) {
            let (first, second) = framing.tokenize(block, prompt)?;
            let length = |i: usize| framing.length(first[i].ids.len(), second[i].ids.len());
            let mut order: Vec<usize> = (0..block.len()).collect();
            order.sort_by_key(|i| std::cmp::Reverse(length(*i)));
            let mut rest = order.as_slice();
            while !rest.is_empty() {
                let mut budget = TOKENS_PER_PASS;
                let fits = rest.iter().take_while(|i| {
                    let fits = length(**i) <= budget;
                    budget = budget.saturating_sub(length(**i));
                    fits
                });
                let take = fits.count().max(1);
                let (now, later) = rest.split_at(take);
                let tokens: Vec<_> = now.iter().map(|i| (&first[*i], &second[*i])).collect();
                let logits = self.forward(&framing.pack_tokens(&tokens), &context)?;
                let logits = logits.flatten_all()?.to_vec1::<f32>()?;
                for (row, i) in logits.chunks_exact(labels.max(1)).zip(now) {
                    if row.iter().any(|logit| !logit.is_finite()) {
                        return Err(score_not_finite(block[*i]));
                    }
                    for (to, logit) in out[i * labels..(i + 1) * labels].iter_mut().zip(row) {
                        *to = activation.of(*logit);
                    }
                }
                progress.inc(take as u64);
                rest = later;
            }
        }
        progress.finish();
        Ok(Embeddings::new(labels, data))
    }

    fn num_labels(&self) -> usize {
        self.dimension()
    }
}
