//! Drops values of sentence embeddings at random in training.

use std::path::Path;

use serde_json::json;

use super::{Config, Features, Module, Source, write_json};
use crate::error::Result;
use crate::ops::{self, Context};

/// A value is dropped with this probability; the rest is scaled up to keep the mean.
pub struct Dropout {
    probability: f64,
}

impl Dropout {
    /// Reads the folder's config.json; the recipe's dropout comes before it.
    ///
    /// # Errors
    /// When it is missing, or the probability is none.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read(source.directory, "config.json")?;
        let probability = source.options.dropout.unwrap_or(config.number("dropout", 0.2)?);
        if !(0.0..=1.0).contains(&probability) {
            return Err(config.bad(format!("`dropout` is {probability}")).with_hint("give a probability from 0 to 1"));
        }
        Ok(Self { probability })
    }
}

impl Module for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let y = ops::dropout(features.sentence(self.name())?, context.dropout(self.probability))?;
        features.sentence_embedding = Some(y);
        Ok(features)
    }

    fn save(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join("config.json"), &json!({"dropout": self.probability}))
    }
}
