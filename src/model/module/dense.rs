//! A fully connected layer with an activation on the sentence embedding.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use serde_json::{Value, json};

use super::{Features, Module, read_config, tensors, write_json};
use crate::error::{Error, Result};
use crate::model::weights::{self, Weights};
use crate::ops::{self, Activation, Context, Param};

/// `activation(x Wᵀ + b)`.
pub struct Dense {
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
    activation: Activation,
    activation_path: String,
    source: PathBuf,
}

/// Activations by the Python path that configurations carry.
fn activation(path: &str) -> Option<Activation> {
    match path.rsplit('.').next()? {
        "Tanh" => Some(Activation::Tanh),
        "Identity" => Some(Activation::Identity),
        "GELU" => Some(Activation::Gelu),
        "ReLU" => Some(Activation::Relu),
        "Sigmoid" => Some(Activation::Sigmoid),
        _ => None,
    }
}

impl Dense {
    /// Reads the folder's config.json and model.safetensors; `prefix` stands before parameter names, which are on
    /// `device`.
    ///
    /// # Errors
    /// When a file or key is missing, or the activation is unknown.
    pub fn load(directory: &Path, prefix: &str, device: &Device) -> Result<Self> {
        let config = read_config(directory)?;
        let file = directory.join("config.json");
        let bad = |what: String| Error::model(format!("`{}`: {what}", file.display()));
        let size = |key: &str| {
            config
                .get(key)
                .and_then(Value::as_u64)
                .filter(|n| *n > 0)
                .map(|n| n as usize)
                .ok_or_else(|| bad(format!("`{key}` is not a number above 0")))
        };
        for key in ["module_input_name", "module_output_name"] {
            let name = config.get(key).and_then(Value::as_str).unwrap_or("sentence_embedding");
            if name != "sentence_embedding" {
                return Err(bad(format!("`{key}` is `{name}`"))
                    .with_hint("a Dense module can work on `sentence_embedding` only"));
            }
        }
        let path =
            config.get("activation_function").and_then(Value::as_str).unwrap_or("torch.nn.modules.activation.Tanh");
        let activation = activation(path).ok_or_else(|| {
            bad(format!("`activation_function` is `{path}`"))
                .with_hint("supported are Tanh, Identity, GELU, ReLU and Sigmoid of torch.nn")
        })?;
        let (input, out) = (size("in_features")?, size("out_features")?);
        let mut weights = Weights::load(directory, device)?;
        Ok(Self {
            weight: weights.take(prefix, "linear.weight", &[out, input])?,
            bias: if config.get("bias").and_then(Value::as_bool).unwrap_or(true) {
                Some(weights.take(prefix, "linear.bias", &[out])?)
            } else {
                None
            },
            activation,
            activation_path: path.to_owned(),
            source: file,
        })
    }
}

impl Module for Dense {
    fn name(&self) -> &'static str {
        "Dense"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let x = features.sentence(self.name())?;
        let y = ops::linear(context, x, &self.weight, self.bias.as_ref())
            .map_err(|e| Error::model(format!("`{}`: {e}", self.source.display())))?;
        features.sentence_embedding = Some(ops::activation(&y, self.activation)?);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        let mut params = vec![("linear.weight".to_owned(), Arc::clone(&self.weight))];
        if let Some(bias) = &self.bias {
            params.push(("linear.bias".to_owned(), Arc::clone(bias)));
        }
        params
    }

    fn input_dimension(&self) -> Option<usize> {
        self.weight.dims().get(1).copied()
    }

    fn output_dimension(&self, input: usize) -> usize {
        self.weight.dims().first().copied().unwrap_or(input)
    }

    fn save(&self, directory: &Path) -> Result<()> {
        let dims = self.weight.dims();
        write_json(
            &directory.join("config.json"),
            &json!({
                "in_features": dims.get(1),
                "out_features": dims.first(),
                "bias": self.bias.is_some(),
                "activation_function": self.activation_path,
            }),
        )?;
        weights::save(&directory.join("model.safetensors"), &tensors(&self.params())?)
    }
}
