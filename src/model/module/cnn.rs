//! Convolutions of several widths over a text's tokens, side by side.
//!
//! A sequence is convolved by itself, with zeros beyond its ends. (In a padded batch the reference's convolutions
//! would see the padding of shorter texts; as a batch of one each text has zeros there, and that is what this is.)

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::json;

use super::{Config, Features, Module, Source, write_json};
use crate::error::Result;
use crate::model::weights::{self, Weights};
use crate::ops::{self, Context, Param};

const CONFIG: &str = "cnn_config.json";

/// One width: `weight` is `[out, in * width]`, so that a convolution is a product.
struct Convolution {
    width: usize,
    weight: Arc<Param>,
    bias: Arc<Param>,
}

/// The convolutions, in the order in which their channels are put together.
pub struct Cnn {
    convolutions: Vec<Convolution>,
    input: usize,
    channels: usize,
}

impl Cnn {
    /// Reads the folder's cnn_config.json and model.safetensors.
    ///
    /// # Errors
    /// When a file or key is missing, or a width or stride would change the number of tokens.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read(source.directory, CONFIG)?;
        let input = config.size(&["in_embedding_dimension", "in_word_embedding_dimension"])?;
        let channels = config.size(&["out_channels"])?;
        let widths = config.sizes("kernel_sizes")?.unwrap_or_else(|| vec![1, 3, 5]);
        if let Some(width) = widths.iter().find(|width| *width % 2 == 0) {
            return Err(config
                .bad(format!("`kernel_sizes` has {width}"))
                .with_hint("only odd widths are supported: an even one gives fewer vectors than there are tokens"));
        }
        if config.sizes("stride_sizes")?.is_some_and(|strides| strides.iter().any(|stride| *stride != 1)) {
            return Err(config.bad("`stride_sizes` is not 1 everywhere").with_hint("only strides of 1 are supported"));
        }
        let mut weights = Weights::load(source.directory, source.device)?;
        let convolutions = widths
            .into_iter()
            .enumerate()
            .map(|(i, width)| {
                let weight = weights.take(source.prefix, &format!("convs.{i}.weight"), &[channels, input, width])?;
                let flat = weight.value().reshape((channels, input * width))?;
                Ok(Convolution {
                    width,
                    weight: Param::new(weight.name(), &flat)?,
                    bias: weights.take(source.prefix, &format!("convs.{i}.bias"), &[channels])?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { convolutions, input, channels })
    }
}

impl Module for Cnn {
    fn name(&self) -> &'static str {
        "CNN"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let x = features.tokens(self.name())?;
        let mut parts = Vec::with_capacity(self.convolutions.len());
        for convolution in &self.convolutions {
            let windows = ops::windows(x, &features.batch.offsets, convolution.width)?;
            parts.push(ops::linear(context, &windows, &convolution.weight, Some(&convolution.bias))?);
        }
        features.token_embeddings = Some(Tensor::cat(&parts, 1)?);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        let named = |(i, c): (usize, &Convolution)| {
            [(format!("convs.{i}.weight"), Arc::clone(&c.weight)), (format!("convs.{i}.bias"), Arc::clone(&c.bias))]
        };
        self.convolutions.iter().enumerate().flat_map(named).collect()
    }

    fn activation_floats(&self) -> usize {
        self.convolutions.iter().map(|c| 3 * self.input * c.width + 2 * self.channels).sum()
    }

    fn input_dimension(&self) -> Option<usize> {
        Some(self.input)
    }

    fn output_dimension(&self, _: usize) -> usize {
        self.channels * self.convolutions.len()
    }

    fn save(&self, directory: &Path) -> Result<()> {
        let widths: Vec<usize> = self.convolutions.iter().map(|c| c.width).collect();
        write_json(
            &directory.join(CONFIG),
            &json!({
                "in_word_embedding_dimension": self.input,
                "out_channels": self.channels,
                "kernel_sizes": widths,
            }),
        )?;
        let mut tensors = Vec::new();
        for (i, c) in self.convolutions.iter().enumerate() {
            let weight = c.weight.value().to_device(&Device::Cpu)?.reshape((self.channels, self.input, c.width))?;
            tensors.push((format!("convs.{i}.weight"), weight));
            tensors.push((format!("convs.{i}.bias"), c.bias.value().to_device(&Device::Cpu)?));
        }
        weights::save(&directory.join("model.safetensors"), &tensors)
    }
}
