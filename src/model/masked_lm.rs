//! The head that foretells words: from hidden states to what a score for every word is made of.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::backbone::Backbone;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::ops::{self, Activation, Context, Param};
use crate::util::seed::Rng;

/// Stands before the network's names in the weights of the whole.
const PREFIX: &str = "bert.";
const DENSE: &str = "cls.predictions.transform.dense";
const NORM: &str = "cls.predictions.transform.LayerNorm";
const BIAS: &str = "cls.predictions.bias";
const DECODER: &str = "cls.predictions.decoder.weight";

/// What turns a transformed hidden state into scores: a vector for each word, and a bias.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// `[words, hidden]`
    pub weight: Arc<Param>,
    /// `[words]`
    pub bias: Arc<Param>,
}

/// transformers' `BertForMaskedLM` without its network.
pub struct MaskedLm {
    dense: (Arc<Param>, Arc<Param>),
    norm: (Arc<Param>, Arc<Param>),
    eps: f64,
    activation: Activation,
    vocabulary: Vocabulary,
    /// Whether the words' vectors are those of the embedding layer.
    tied: bool,
    new: bool,
}

impl MaskedLm {
    /// Takes the head's tensors out of what a network left of its checkpoint; where there are none the transformation is
    /// new, and the words' vectors are those of the embedding layer.
    ///
    /// # Errors
    /// When the architecture has no such head here, or a tensor is of another shape than the configuration says.
    pub fn load(
        config: &Value,
        network: &dyn Backbone,
        weights: &mut Weights,
        prefix: &str,
        rng: Rng,
        device: &Device,
    ) -> Result<Self> {
        let table = network.word_embeddings().filter(|_| config["model_type"] == "bert").ok_or_else(|| {
            Error::model(format!("a SparseEncoder cannot be made of a `{}` network", config["model_type"]))
                .with_hint("take a BERT network, such as `bert-base-uncased` or MiniLM")
        })?;
        let hidden = network.hidden_size();
        let words = table.dims().first().copied().unwrap_or(0);
        let new = !weights.contains(&format!("{DENSE}.weight"));
        let number = |key: &str, default: f64| config.get(key).and_then(Value::as_f64).unwrap_or(default);
        let mut fresh = Weights::fresh(rng, number("initializer_range", 0.02), device);
        let source = if new { &mut fresh } else { &mut *weights };
        let mut take = |name: &str, shape: &[usize]| source.take(prefix, name, shape);
        let dense = (take(&format!("{DENSE}.weight"), &[hidden, hidden])?, take(&format!("{DENSE}.bias"), &[hidden])?);
        let norm = (take(&format!("{NORM}.weight"), &[hidden])?, take(&format!("{NORM}.bias"), &[hidden])?);
        let bias = match weights.contains(BIAS) {
            true => weights.take(prefix, BIAS, &[words])?,
            false => Param::new(format!("{prefix}{BIAS}"), &Tensor::zeros(words, DType::F32, device)?)?,
        };
        let tied = config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(true);
        let weight = match !tied && weights.contains(DECODER) {
            true => weights.take(prefix, DECODER, &[words, hidden])?,
            false => Arc::clone(table),
        };
        let activation = match config.get("hidden_act").and_then(Value::as_str) {
            Some("relu") => Activation::Relu,
            _ => Activation::Gelu,
        };
        Ok(Self {
            dense,
            norm,
            eps: number("layer_norm_eps", 1e-12),
            activation,
            tied: Arc::ptr_eq(&weight, table),
            vocabulary: Vocabulary { weight, bias },
            new,
        })
    }

    /// What scores are made of.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// How many words.
    #[must_use]
    pub fn words(&self) -> usize {
        self.vocabulary.bias.elements()
    }

    /// The layers that were not in the checkpoint and have random weights.
    #[must_use]
    pub fn new_layers(&self) -> Vec<String> {
        if self.new { vec![DENSE.to_owned()] } else { Vec::new() }
    }

    /// `[tokens, hidden]` to `[tokens, hidden]`: what the words' vectors are multiplied with.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, tokens: &Tensor, context: &Context) -> Result<Tensor> {
        let x = ops::linear(context, tokens, &self.dense.0, Some(&self.dense.1))?;
        let x = ops::activation(&x, self.activation)?;
        Ok(ops::layer_norm(&x, &self.norm.0, &self.norm.1, self.eps)?)
    }

    /// What stands before the network's names in the weights of the whole.
    #[must_use]
    pub fn network_prefix(&self) -> &'static str {
        PREFIX
    }

    /// Every parameter of its own with its name in the weights of the whole.
    #[must_use]
    pub fn params(&self) -> Vec<(String, Arc<Param>)> {
        let named = |name: String, param: &Arc<Param>| (name, Arc::clone(param));
        let mut params = vec![
            named(format!("{DENSE}.weight"), &self.dense.0),
            named(format!("{DENSE}.bias"), &self.dense.1),
            named(format!("{NORM}.weight"), &self.norm.0),
            named(format!("{NORM}.bias"), &self.norm.1),
            named(BIAS.to_owned(), &self.vocabulary.bias),
        ];
        if !self.tied {
            params.push(named(DECODER.to_owned(), &self.vocabulary.weight));
        }
        params
    }

    /// The keys of config.json that are the head's.
    pub fn describe(&self, config: &mut Value) {
        config["architectures"] = serde_json::json!(["BertForMaskedLM"]);
    }
}
