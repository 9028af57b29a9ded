//! Standardises every sentence embedding, then scales and shifts it.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::{Config, Features, Module, Source, tensors, write_json};
use crate::error::Result;
use crate::model::weights::{self, Weights};
use crate::ops::{self, Context, Param};

/// torch's default.
const EPS: f64 = 1e-5;

/// `(x - mean) / sqrt(variance + 1e-5) · w + b`.
pub struct LayerNorm {
    weight: Arc<Param>,
    bias: Arc<Param>,
}

impl LayerNorm {
    /// Reads the folder's config.json and model.safetensors.
    ///
    /// # Errors
    /// When a file or key is missing.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let width = Config::read(source.directory, "config.json")?.size(&["dimension"])?;
        let mut weights = Weights::load(source.directory, source.device)?;
        Ok(Self {
            weight: weights.take(source.prefix, "norm.weight", &[width])?,
            bias: weights.take(source.prefix, "norm.bias", &[width])?,
        })
    }
}

impl Module for LayerNorm {
    fn name(&self) -> &'static str {
        "LayerNorm"
    }

    fn forward(&self, mut features: Features, _: &Context) -> Result<Features> {
        let x = features.sentence(self.name())?;
        features.sentence_embedding = Some(ops::layer_norm(x, &self.weight, &self.bias, EPS)?);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        vec![("norm.weight".to_owned(), Arc::clone(&self.weight)), ("norm.bias".to_owned(), Arc::clone(&self.bias))]
    }

    fn input_dimension(&self) -> Option<usize> {
        self.weight.dims().first().copied()
    }

    fn save(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join("config.json"), &json!({"dimension": self.input_dimension()}))?;
        weights::save(&directory.join("model.safetensors"), &tensors(&self.params())?)
    }
}
