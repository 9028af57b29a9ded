//! From a score for every word at every token to one weight a word.

use std::path::Path;

use serde_json::json;

use super::{Config, Features, Module, write_json};
use crate::error::{Error, Result};
use crate::ops::{self, Context, SpladePooling as Mode};

/// The largest (or the sum) over a text's tokens of `log(1 + relu(score))`.
pub struct SpladePooling {
    mode: Mode,
    /// Words of the vocabulary; 0 where the configuration does not say.
    words: usize,
}

impl SpladePooling {
    /// The largest, as the reference does by default.
    #[must_use]
    pub fn new(words: usize) -> Self {
        Self { mode: Mode { sum: false, twice: false }, words }
    }

    /// Reads the folder's config.json.
    ///
    /// # Errors
    /// When a strategy or an activation is unknown.
    pub fn load(directory: &Path) -> Result<Self> {
        let config = Config::read(directory, "config.json")?;
        let sum = match config.text("pooling_strategy")?.unwrap_or("max") {
            "max" => false,
            "sum" => true,
            other => {
                return Err(config.bad(format!("`pooling_strategy` is `{other}`")).with_hint("it is `max` or `sum`"));
            }
        };
        let twice = match config.text("activation_function")?.unwrap_or("relu") {
            "relu" => false,
            "log1p_relu" => true,
            other => {
                let error = config.bad(format!("`activation_function` is `{other}`"));
                return Err(error.with_hint("it is `relu` or `log1p_relu`"));
            }
        };
        let words = config.size(&["embedding_dimension", "word_embedding_dimension"]).unwrap_or(0);
        Ok(Self { mode: Mode { sum, twice }, words })
    }
}

impl Module for SpladePooling {
    fn name(&self) -> &'static str {
        "SpladePooling"
    }

    fn class_path(&self) -> String {
        super::sparse_path(self.name())
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let vocabulary = features.vocabulary.take().ok_or_else(|| {
            Error::model("the SpladePooling module needs scores for every word")
                .with_hint("a Transformer with a masked-language-model head must stand before it in modules.json")
        })?;
        let tokens = features.tokens(self.name())?;
        let offsets = &features.batch.offsets;
        let pooled = ops::splade_pool(context, tokens, &vocabulary.weight, &vocabulary.bias, offsets, self.mode)?;
        features.sentence_embedding = Some(pooled);
        features.token_embeddings = None;
        Ok(features)
    }

    fn output_dimension(&self, input: usize) -> usize {
        input
    }

    fn save(&self, directory: &Path) -> Result<()> {
        let config = json!({
            "pooling_strategy": if self.mode.sum { "sum" } else { "max" },
            "activation_function": if self.mode.twice { "log1p_relu" } else { "relu" },
            "word_embedding_dimension": (self.words > 0).then_some(self.words),
        });
        write_json(&directory.join("config.json"), &config)
    }
}
