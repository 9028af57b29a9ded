//! Bags of words: one dimension a word, its number of occurrences times its weight.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::Value;

use super::{Config, Features, Module, Source, write_json};
use crate::error::Result;
use crate::model::tokenizer::{TextTokenizer, Words};
use crate::ops::Context;
use crate::util::files;

/// A vocabulary and a weight for each word of it.
pub struct Bow {
    weights: Vec<f32>,
    /// Whether a word counts each time.
    cumulative: bool,
    tokenizer: Arc<TextTokenizer>,
    config: Value,
    device: Device,
}

impl Bow {
    /// Reads the folder's config.json.
    ///
    /// # Errors
    /// When it is missing or a key is not what it should be.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read(source.directory, "config.json")?;
        let mut vocabulary = config.texts("vocab")?.ok_or_else(|| config.bad("no `vocab`"))?;
        let mut seen = std::collections::HashSet::new();
        vocabulary.retain(|word| seen.insert(word.clone()));
        let file = source.directory.join("config.json");
        let text = files::read_text(&file)?;
        Ok(Self {
            weights: super::word_weights::of_words(&config, &vocabulary)?,
            cumulative: config.flag("cumulative_term_frequency", true)?,
            tokenizer: Arc::new(TextTokenizer::of_words(Words::new(vocabulary, Vec::new(), false), file)),
            config: serde_json::from_str(&text).map_err(|e| config.bad(e))?,
            device: source.device.clone(),
        })
    }
}

impl Module for Bow {
    fn name(&self) -> &'static str {
        "BoW"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let (batch, width) = (&features.batch, self.weights.len());
        let mut values = vec![0.0f32; batch.len() * width];
        for (row, w) in values.chunks_mut(width.max(1)).zip(batch.offsets.windows(2)) {
            for id in &batch.ids[w[0] as usize..w[1] as usize] {
                if let (Some(value), Some(weight)) = (row.get_mut(*id as usize), self.weights.get(*id as usize)) {
                    *value = if self.cumulative { *value + weight } else { *weight };
                }
            }
        }
        let values = Tensor::from_vec(values, (batch.len(), width), &self.device)?;
        features.sentence_embedding = Some(context.attach(&values)?);
        Ok(features)
    }

    fn output_dimension(&self, _: usize) -> usize {
        self.weights.len()
    }

    fn tokenizer(&self, _: Option<&str>) -> Result<Option<&Arc<TextTokenizer>>> {
        Ok(Some(&self.tokenizer))
    }

    fn save(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join("config.json"), &self.config)
    }
}
