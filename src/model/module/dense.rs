//! A fully connected layer with an activation, on the sentence embedding or on every token's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Tensor;
use serde_json::json;

use super::{Config, Features, Module, Slot, Source, tensors, write_json};
use crate::error::{Error, Result};
use crate::model::options::TransformerTask;
use crate::model::weights::{self, Weights};
use crate::ops::{self, Activation, Context, Param};

/// `activation(x Wᵀ + b)`, plus `x` or `x Rᵀ` where the layer has a residual connection.
pub struct Dense {
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
    /// `None` without residual connection; in it the projection, where the widths differ.
    residual: Option<Option<Arc<Param>>>,
    activation: Activation,
    activation_path: String,
    input: Slot,
    output: Slot,
    source: PathBuf,
    /// Whether its weights are random.
    new: bool,
}

/// torch's activations that need no settings, by class name.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("Tanh", Activation::Tanh),
    ("Identity", Activation::Identity),
    ("ReLU", Activation::Relu),
    ("GELU", Activation::Gelu),
    ("Sigmoid", Activation::Sigmoid),
    ("SiLU", Activation::Silu),
    ("ELU", Activation::Elu),
    ("CELU", Activation::Elu),
    ("SELU", Activation::Selu),
    ("LeakyReLU", Activation::LeakyRelu),
    ("ReLU6", Activation::Relu6),
    ("Softplus", Activation::Softplus),
    ("Softsign", Activation::Softsign),
    ("Mish", Activation::Mish),
    ("Hardtanh", Activation::Hardtanh),
    ("Hardswish", Activation::Hardswish),
    ("Hardsigmoid", Activation::Hardsigmoid),
    ("LogSigmoid", Activation::LogSigmoid),
    ("Tanhshrink", Activation::Tanhshrink),
    ("Softshrink", Activation::Softshrink),
    ("Hardshrink", Activation::Hardshrink),
];

/// The activation that a configuration names by its Python path, as `torch.nn.modules.activation.Tanh`.
#[must_use]
pub fn activation(path: &str) -> Option<Activation> {
    let class = path.strip_prefix("torch.")?.rsplit('.').next()?;
    ACTIVATIONS.iter().find(|(name, _)| *name == class).map(|(_, activation)| *activation)
}

impl Dense {
    /// Reads the folder's config.json and model.safetensors.
    ///
    /// # Errors
    /// When a file or key is missing, or the activation is unknown.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read(source.directory, "config.json")?;
        let path = config.text("activation_function")?.unwrap_or("torch.nn.modules.activation.Tanh");
        let activation = activation(path).ok_or_else(|| {
            let names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
            config
                .bad(format!("`activation_function` is `{path}`"))
                .with_hint(format!("supported are those of torch.nn without settings: {}", names.join(", ")))
        })?;
        let (input, out) = (config.size(&["in_features"])?, config.size(&["out_features"])?);
        let mut weights = Weights::load(source.directory, source.device)?;
        let mut take = |name: &str, shape: &[usize]| weights.take(source.prefix, name, shape);
        let weight = take("linear.weight", &[out, input])?;
        let bias = if config.flag("bias", true)? { Some(take("linear.bias", &[out])?) } else { None };
        let residual = match config.flag("use_residual", false)? {
            false => None,
            true if input == out => Some(None),
            true => Some(Some(take("residual.weight", &[out, input])?)),
        };
        let from = config.slot("module_input_name")?.unwrap_or(Slot::Sentence);
        // where tokens are compared nothing pools, and what was a layer on top of that is one of every token
        let each_token = source.options.task == TransformerTask::TokenEmbeddings;
        let from = if each_token { Slot::Tokens } else { from };
        let to = config.slot("module_output_name")?.filter(|_| !each_token).unwrap_or(from);
        Ok(Self {
            weight,
            bias,
            residual,
            activation,
            activation_path: path.to_owned(),
            input: from,
            output: to,
            source: source.directory.join("config.json"),
            new: false,
        })
    }

    /// A linear layer on every token, without bias or activation: `weight` `[out, in]`.
    ///
    /// # Errors
    /// When the parameter cannot be made.
    pub fn projection(weight: &Tensor, prefix: &str) -> Result<Self> {
        Ok(Self {
            weight: Param::new(format!("{prefix}linear.weight"), weight)?,
            bias: None,
            residual: None,
            activation: Activation::Identity,
            activation_path: "torch.nn.modules.linear.Identity".to_owned(),
            input: Slot::Tokens,
            output: Slot::Tokens,
            source: PathBuf::from("the projection"),
            new: false,
        })
    }

    /// As [`Dense::projection`], of weights that are random.
    ///
    /// # Errors
    /// As there.
    pub fn new_projection(weight: &Tensor, prefix: &str) -> Result<Self> {
        Ok(Self { new: true, ..Self::projection(weight, prefix)? })
    }

    fn apply(&self, x: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        let y = ops::activation(&ops::linear(context, x, &self.weight, self.bias.as_ref())?, self.activation)?;
        match &self.residual {
            None => Ok(y),
            Some(None) => y + x,
            Some(Some(weight)) => y + ops::linear(context, x, weight, None)?,
        }
    }
}

impl Module for Dense {
    fn name(&self) -> &'static str {
        "Dense"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let x = self.input.of(&features, self.name())?;
        let y = self.apply(x, context).map_err(|e| Error::model(format!("`{}`: {e}", self.source.display())))?;
        self.output.put(&mut features, y);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        let named = |name: &str, param: &Arc<Param>| (name.to_owned(), Arc::clone(param));
        let mut params = vec![named("linear.weight", &self.weight)];
        params.extend(self.bias.iter().map(|bias| named("linear.bias", bias)));
        params.extend(self.residual.iter().flatten().map(|weight| named("residual.weight", weight)));
        params
    }

    fn new_layers(&self) -> Vec<String> {
        if self.new { vec!["the projection".to_owned()] } else { Vec::new() }
    }

    fn activation_floats(&self) -> usize {
        match self.input {
            Slot::Sentence => 0,
            Slot::Tokens => 3 * self.weight.dims().first().copied().unwrap_or(0),
        }
    }

    fn input_dimension(&self) -> Option<usize> {
        self.weight.dims().get(1).copied()
    }

    fn output_dimension(&self, input: usize) -> usize {
        self.weight.dims().first().copied().unwrap_or(input)
    }

    fn save(&self, directory: &Path) -> Result<()> {
        let dims = self.weight.dims();
        let mut config = json!({
            "in_features": dims.get(1),
            "out_features": dims.first(),
            "bias": self.bias.is_some(),
            "activation_function": self.activation_path,
        });
        // Older versions refuse keys that they do not know, so what is usual is left out.
        if (self.input, self.output) != (Slot::Sentence, Slot::Sentence) {
            config["module_input_name"] = self.input.name().into();
            config["module_output_name"] = self.output.name().into();
        }
        if self.residual.is_some() {
            config["use_residual"] = true.into();
        }
        write_json(&directory.join("config.json"), &config)?;
        weights::save(&directory.join("model.safetensors"), &tensors(&self.params())?)
    }
}
