//! Token embeddings as a weighted mean of those of several layers; the weights are learned.

use std::path::Path;
use std::sync::Arc;

use candle_core::{D, Device, Tensor};
use serde_json::json;

use super::{Config, Features, Module, Source, write_json};
use crate::error::{Error, Result};
use crate::model::weights::{self, Weights};
use crate::ops::{self, Context, Param};

/// One weight a layer, from `first` on; layer 0 is the embedding layer.
pub struct WeightedLayerPooling {
    /// `[1, layers]`
    weights: Arc<Param>,
    dimension: usize,
    first: usize,
    layers: usize,
}

/// The name of the weights in the weights file.
const NAME: &str = "layer_weights";

impl WeightedLayerPooling {
    /// Reads the folder's config.json and model.safetensors.
    ///
    /// # Errors
    /// When a file or key is missing.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read(source.directory, "config.json")?;
        let dimension = config.size(&["embedding_dimension", "word_embedding_dimension"])?;
        let number = |key: &str, default: f64| config.number(key, default).map(|n| n as usize);
        let (first, layers) = (number("layer_start", 4.0)?, number("num_hidden_layers", 12.0)?);
        if first > layers {
            return Err(config.bad(format!("`layer_start` is {first}, but there are only {layers} layers")));
        }
        let count = layers + 1 - first;
        let flat = Weights::load(source.directory, source.device)?.take(source.prefix, NAME, &[count])?;
        Ok(Self { weights: Param::new(flat.name(), &flat.value().reshape((1, count))?)?, dimension, first, layers })
    }
}

impl Module for WeightedLayerPooling {
    fn name(&self) -> &'static str {
        "WeightedLayerPooling"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        // As in the reference, a model that is not asked for its layers (`output_hidden_states`) goes through as it is.
        let Some(all) = &features.all_layers else { return Ok(features) };
        let Some(layers) = all.get(self.first..).filter(|layers| layers.len() == self.weights.elements()) else {
            return Err(Error::model(format!(
                "WeightedLayerPooling has weights for {} layers, the encoder {} layers",
                self.layers,
                all.len().saturating_sub(1)
            ))
            .with_hint("`num_hidden_layers` in its config.json must be that of the encoder"));
        };
        let stacked = Tensor::stack(layers, D::Minus1)?; // [tokens, dim, layers]
        let sum = ops::linear(context, &stacked, &self.weights, None)?.squeeze(D::Minus1)?;
        // the sum of the weights, as the same layer of ones, so that gradients reach them
        let ones = context.attach(&Tensor::ones((1, layers.len()), sum.dtype(), sum.device())?)?;
        let total = ops::linear(context, &ones, &self.weights, None)?;
        features.token_embeddings = Some(sum.broadcast_div(&total)?);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        vec![(NAME.to_owned(), Arc::clone(&self.weights))]
    }

    fn activation_floats(&self) -> usize {
        2 * self.dimension * self.weights.elements()
    }

    fn input_dimension(&self) -> Option<usize> {
        Some(self.dimension)
    }

    fn save(&self, directory: &Path) -> Result<()> {
        write_json(
            &directory.join("config.json"),
            &json!({
                "word_embedding_dimension": self.dimension,
                "layer_start": self.first,
                "num_hidden_layers": self.layers,
            }),
        )?;
        let flat = self.weights.value().to_device(&Device::Cpu)?.flatten_all()?;
        weights::save(&directory.join("model.safetensors"), &[(NAME.to_owned(), flat)])
    }
}
