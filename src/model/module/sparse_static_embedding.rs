//! A text's words with one weight each, whatever stands around them: a query's embedding without a network.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::json;

use super::static_embedding::check_vocabulary;
use super::{Config, Features, Module, Source, tensors, write_json};
use crate::error::{Error, Result};
use crate::model::tokenizer::TextTokenizer;
use crate::model::tokenizer::beside::TokenizerFiles;
use crate::model::weights::{self, Weights};
use crate::ops::{self, Context, Param};
use crate::util::files;

/// `embedding[word] = weight[word]` for the words of a text, 0 for all others; times the sentence embedding, if a module
/// before it made one.
///
/// # Shapes
/// `weight` `[words]`; the result is `[sequences, words]`.
///
/// Source: `SparseStaticEmbedding` of sentence-transformers; [Geng et al. 2024](https://arxiv.org/abs/2411.04403).
pub struct SparseStaticEmbedding {
    weight: Arc<Param>,
    tokenizer: Arc<TextTokenizer>,
    tokenizer_files: TokenizerFiles,
}

/// The name of the weights in the weights file.
const NAME: &str = "weight";

impl SparseStaticEmbedding {
    /// With weights as they are, which `frozen` ones keep in training.
    ///
    /// # Errors
    /// When there are fewer weights than tokens.
    pub fn of(
        tokenizer: TextTokenizer,
        tokenizer_files: TokenizerFiles,
        weight: &Tensor,
        frozen: bool,
        prefix: &str,
    ) -> Result<Self> {
        check_vocabulary(&tokenizer, weight.dims1()?)?;
        let name = format!("{prefix}{NAME}");
        let weight = if frozen { Param::frozen(name, weight)? } else { Param::new(name, weight)? };
        Ok(Self { weight, tokenizer: Arc::new(tokenizer), tokenizer_files })
    }

    /// Reads the folder's config.json, tokenizer and weights; where the configuration names a JSON file of words and
    /// weights (`path`), that is read in place of the weights.
    ///
    /// # Errors
    /// When a file is missing or does not fit the tokenizer.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read_if_there(source.directory, "config.json")?;
        let frozen = config.flag("frozen", false)?;
        let mut tokenizer = TextTokenizer::load(source.directory, false)?;
        let tokenizer_files = TokenizerFiles::read(source.directory)?;
        let limit = source.options.max_seq_length.or(tokenizer_files.limit()?).or(tokenizer.limit());
        tokenizer.set_max_seq_length(limit);
        let weight = match config.text("path")?.filter(|path| path.ends_with(".json")) {
            Some(path) => {
                let beside = source.directory.join(path);
                let file = if beside.exists() { beside } else { path.into() };
                Tensor::from_vec(weights_of(&file, &tokenizer)?, tokenizer.vocabulary(), &Device::Cpu)?
            }
            None => {
                let mut weights = Weights::load(source.directory, &Device::Cpu)?;
                let Some(shape) = weights.shape(NAME).filter(|shape| shape.len() == 1) else {
                    return Err(config
                        .bad(format!("the weights beside it have no list `{NAME}`"))
                        .with_hint("is this the folder of a SparseStaticEmbedding module?"));
                };
                weights.take("", NAME, &shape)?.value().clone()
            }
        };
        Self::of(tokenizer, tokenizer_files, &weight.to_device(source.device)?, frozen, source.prefix)
    }
}

/// Reads a JSON file of words and their weights, as sentence-transformers' `from_json`: words that it does not have
/// weigh 0, words that the tokenizer does not have are left out.
///
/// # Errors
/// When it is not such a file, or has none of the tokenizer's words.
pub fn weights_of(file: &Path, tokenizer: &TextTokenizer) -> Result<Vec<f32>> {
    let bad = |what: String| {
        Error::data(format!("`{}` {what}", file.display()))
            .with_hint("it is a JSON object of words and numbers, as `{\"bees\": 4.2}`")
    };
    let given: HashMap<String, f64> =
        serde_json::from_str(&files::read_text(file)?).map_err(|e| bad(format!("is no table of weights: {e}")))?;
    if let Some((word, weight)) = given.iter().find(|(_, weight)| !weight.is_finite()) {
        return Err(bad(format!("gives `{word}` the weight {weight}")));
    }
    let mut weights = vec![0.0; tokenizer.vocabulary()];
    let mut known = 0;
    for (id, weight) in (0u32..).zip(&mut weights) {
        if let Some(given) = tokenizer.word(id).and_then(|word| given.get(&word)) {
            *weight = *given as f32;
            known += 1;
        }
    }
    if known == 0 {
        return Err(bad(format!("has weights for {} words, none of them the tokenizer's", given.len())));
    }
    Ok(weights)
}

impl Module for SparseStaticEmbedding {
    fn name(&self) -> &'static str {
        "SparseStaticEmbedding"
    }

    fn class_path(&self) -> String {
        super::sparse_path(self.name())
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let words = self.weight.elements();
        let batch = &features.batch;
        let mut present = vec![0.0f32; batch.len() * words];
        for (ends, row) in batch.offsets.windows(2).zip(present.chunks_exact_mut(words.max(1))) {
            for id in &batch.ids[ends[0] as usize..ends[1] as usize] {
                let Some(place) = row.get_mut(*id as usize) else {
                    return Err(Error::Internal(format!("token {id} of {words}")));
                };
                *place = 1.0;
            }
        }
        let weight = ops::parameter(context, &self.weight)?;
        let present = Tensor::from_vec(present, (batch.len(), words), &Device::Cpu)?
            .to_dtype(weight.dtype())?
            .to_device(weight.device())?;
        let mut embedding = present.broadcast_mul(&weight)?; // [sequences, words]
        if let Some(before) = &features.sentence_embedding {
            embedding = embedding.mul(before)?;
        }
        features.sentence_embedding = Some(embedding);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        vec![(NAME.to_owned(), Arc::clone(&self.weight))]
    }

    fn output_dimension(&self, _: usize) -> usize {
        self.weight.elements()
    }

    fn tokenizer(&self, _: Option<&str>) -> Result<Option<&Arc<TextTokenizer>>> {
        Ok(Some(&self.tokenizer))
    }

    fn saves_in_root(&self) -> bool {
        true
    }

    fn save(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join("config.json"), &json!({"frozen": !self.weight.trainable()}))?;
        self.tokenizer_files.save(directory, &self.tokenizer, self.tokenizer.limit())?;
        self.tokenizer.save(directory)?;
        weights::save(&directory.join("model.safetensors"), &tensors(&self.params())?)
    }
}

/// How much a word tells by how many of `texts` have it: `ln(1 + (texts - with + 0.5) / (with + 0.5))`, as BM25 has it.
///
/// # Shapes
/// `with` `[words]`; the result alike.
#[must_use]
pub fn idf(texts: u64, with: &[u64]) -> Vec<f32> {
    let of = |with: &u64| {
        let (texts, with) = (texts as f64, *with as f64);
        (1.0 + (texts - with + 0.5) / (with + 0.5)).ln() as f32
    };
    with.iter().map(of).collect()
}
