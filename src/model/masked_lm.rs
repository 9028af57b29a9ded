//! The head that foretells words: from hidden states to what a score for every word is made of.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::backbone::{self, Architecture, Backbone};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::ops::{self, Activation, Context, Param};
use crate::util::seed::Rng;

/// What the head of an architecture looks like: a layer, an activation and a normalisation before the words' vectors.
struct Convention {
    /// `model_type`s of config.json.
    model_types: &'static [&'static str],
    dense: &'static str,
    /// The keys of config.json that tell whether layer, normalisation and last layer have biases, and what they are
    /// without.
    biases: [(&'static str, bool); 3],
    /// The key of config.json that names the activation; `None` for GELU.
    activation: Option<&'static str>,
    norm: &'static str,
    /// What is added to the variance: a key of config.json, and what it is without.
    eps: (&'static str, f64),
    /// The last layer, whose weight is that of the embedding layer unless config.json says otherwise.
    decoder: &'static str,
    /// The last layer's bias where its weight is the embedding layer's.
    bias: &'static str,
    /// Of an architecture with two heads: what `legacy` in config.json says of this one.
    legacy: Option<bool>,
}

const ALWAYS: [(&str, bool); 3] = [("", true); 3];

const DEBERTA: Convention = Convention {
    model_types: &["deberta-v2"],
    dense: "cls.predictions.transform.dense",
    biases: ALWAYS,
    activation: Some("hidden_act"),
    norm: "cls.predictions.transform.LayerNorm",
    eps: ("layer_norm_eps", 1e-7),
    decoder: "cls.predictions.decoder",
    bias: "cls.predictions.bias",
    legacy: Some(true),
};

const GTE: Convention = Convention {
    model_types: &["gte"],
    dense: "lm_head.dense",
    biases: ALWAYS,
    activation: None,
    norm: "lm_head.layer_norm",
    eps: ("layer_norm_eps", 1e-12),
    decoder: "lm_head.decoder",
    // it has no other name
    bias: "lm_head.decoder.bias",
    legacy: None,
};

const CONVENTIONS: &[Convention] = &[
    Convention {
        model_types: &["bert"],
        dense: "cls.predictions.transform.dense",
        biases: ALWAYS,
        activation: Some("hidden_act"),
        norm: "cls.predictions.transform.LayerNorm",
        eps: ("layer_norm_eps", 1e-12),
        decoder: "cls.predictions.decoder",
        bias: "cls.predictions.bias",
        legacy: None,
    },
    DEBERTA,
    Convention {
        dense: "lm_predictions.lm_head.dense",
        norm: "lm_predictions.lm_head.LayerNorm",
        decoder: "lm_predictions.lm_head.decoder",
        bias: "lm_predictions.lm_head.bias",
        legacy: Some(false),
        ..DEBERTA
    },
    Convention {
        model_types: &["roberta", "xlm-roberta", "camembert", "mpnet"],
        dense: "lm_head.dense",
        biases: ALWAYS,
        activation: None,
        norm: "lm_head.layer_norm",
        eps: ("layer_norm_eps", 1e-12),
        decoder: "lm_head.decoder",
        bias: "lm_head.bias",
        legacy: None,
    },
    Convention {
        model_types: &["distilbert"],
        dense: "vocab_transform",
        biases: ALWAYS,
        activation: Some("activation"),
        norm: "vocab_layer_norm",
        eps: ("", 1e-12),
        decoder: "vocab_projector",
        bias: "vocab_projector.bias",
        legacy: None,
    },
    Convention {
        // the generator's; what a discriminator has tells nothing about words
        model_types: &["electra"],
        dense: "generator_predictions.dense",
        biases: ALWAYS,
        activation: None,
        norm: "generator_predictions.LayerNorm",
        eps: ("layer_norm_eps", 1e-12),
        decoder: "generator_lm_head",
        bias: "generator_lm_head.bias",
        legacy: None,
    },
    Convention {
        model_types: &["nomic_bert"],
        dense: "cls.predictions.transform.dense",
        biases: ALWAYS,
        activation: Some("hidden_act"),
        norm: "cls.predictions.transform.layer_norm",
        eps: ("layer_norm_eps", 1e-12),
        decoder: "cls.predictions.decoder",
        bias: "cls.predictions.bias",
        legacy: None,
    },
    GTE,
    Convention { model_types: &["new", "gte"], norm: "lm_head.norm", ..GTE },
    Convention {
        model_types: &["modernbert"],
        dense: "head.dense",
        biases: [("classifier_bias", false), ("norm_bias", false), ("decoder_bias", true)],
        activation: Some("classifier_activation"),
        norm: "head.norm",
        eps: ("norm_eps", 1e-5),
        decoder: "decoder",
        bias: "decoder.bias",
        legacy: None,
    },
];

/// The head of an architecture: of two that whose tensors are there, else the one that config.json says.
fn convention(model_type: &str, config: &Value, weights: &Weights) -> Option<&'static Convention> {
    let there = |c: &&Convention| weights.contains(&format!("{}.weight", c.norm));
    let legacy = backbone::flag(config, ("legacy", true));
    let of_type = || CONVENTIONS.iter().filter(|c| c.model_types.contains(&model_type));
    of_type().find(there).or_else(|| of_type().find(|c| c.legacy.is_none_or(|own| own == legacy)))
}

/// What turns a transformed hidden state into scores: a vector for each word, and a bias.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// `[words, width]`
    pub weight: Arc<Param>,
    /// `[words]`
    pub bias: Arc<Param>,
}

/// transformers' `…ForMaskedLM` without its network.
pub struct MaskedLm {
    architecture: &'static Architecture,
    convention: &'static Convention,
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
        let architecture = backbone::architecture(config, "config.json")?;
        let model_type = architecture.model_type;
        let convention = convention(model_type, config, weights);
        let (Some(convention), Some(table)) = (convention, network.word_embeddings()) else {
            return Err(Error::model(format!("a SparseEncoder cannot be made of a `{model_type}` network"))
                .with_hint("take a BERT network, such as `bert-base-uncased` or MiniLM"));
        };
        let hidden = network.hidden_size();
        let (words, width) = match table.dims() {
            &[words, width] => (words, width),
            other => return Err(Error::Internal(format!("a table of words' embeddings is {other:?}"))),
        };
        let new = !weights.contains(&format!("{}.weight", convention.dense));
        let number = |key: &str, default: f64| config.get(key).and_then(Value::as_f64).unwrap_or(default);
        let mut fresh = Weights::fresh(rng, number("initializer_range", 0.02), device);
        let source = if new { &mut fresh } else { &mut *weights };
        let [has_dense_bias, has_norm_bias, has_bias] = convention.biases.map(|key| backbone::flag(config, key));
        let mut pair = |name: &str, shape: &[usize], has_bias: bool| -> Result<_> {
            let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            let weight = source.take(prefix, &weight, shape)?;
            let bias = match has_bias {
                true => source.take(prefix, &bias, &[width])?,
                false => source.zeros(prefix, &bias, width)?,
            };
            Ok((weight, bias))
        };
        let dense = pair(convention.dense, &[width, hidden], has_dense_bias)?;
        let norm = pair(convention.norm, &[width], has_norm_bias)?;
        // without vectors of its own the head has the embedding layer's, whatever the configuration says
        let decoder = format!("{}.weight", convention.decoder);
        let untied = config.get("tie_word_embeddings").and_then(Value::as_bool) == Some(false);
        let tied = !(untied && weights.contains(&decoder));
        let weight = match tied {
            true => Arc::clone(table),
            false => weights.take(prefix, &decoder, &[words, width])?,
        };
        // transformers saves the bias by both names, and reads that of the layer where the weight is its own
        let (shared, own) = (convention.bias.to_owned(), format!("{}.bias", convention.decoder));
        let (name, other) = if tied { (shared, own) } else { (own, shared) };
        let found = [&name, &other].into_iter().find(|name| weights.contains(name));
        let bias = match found {
            _ if !has_bias => weights.zeros(prefix, &name, words)?,
            Some(found) => weights.take(prefix, found, &[words])?,
            None => Param::new(format!("{prefix}{name}"), &Tensor::zeros(words, DType::F32, device)?)?,
        };
        let activation = match convention.activation.and_then(|key| Some((key, config.get(key)?.as_str()?))) {
            Some((key, name)) => backbone::activation(key, name)?,
            None => Activation::Gelu,
        };
        let eps = number(convention.eps.0, convention.eps.1);
        let vocabulary = Vocabulary { weight, bias };
        Ok(Self { architecture, convention, dense, norm, eps, activation, vocabulary, tied, new })
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
        if self.new { vec![self.convention.dense.to_owned()] } else { Vec::new() }
    }

    /// `[tokens, hidden]` to `[tokens, width]`: what the words' vectors are multiplied with.
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
        self.architecture.prefix
    }

    /// Every parameter of its own with its name in the weights of the whole.
    #[must_use]
    pub fn params(&self) -> Vec<(String, Arc<Param>)> {
        let Convention { dense, norm, decoder, bias, .. } = self.convention;
        let bias = if self.tied { (*bias).to_owned() } else { format!("{decoder}.bias") };
        let mut params = vec![
            (format!("{dense}.weight"), &self.dense.0),
            (format!("{dense}.bias"), &self.dense.1),
            (format!("{norm}.weight"), &self.norm.0),
            (format!("{norm}.bias"), &self.norm.1),
            (bias, &self.vocabulary.bias),
        ];
        if !self.tied {
            params.push((format!("{decoder}.weight"), &self.vocabulary.weight));
        }
        // zeros stand for biases that there are not
        let real = params.into_iter().filter(|(_, param)| !param.constant());
        real.map(|(name, param)| (name, Arc::clone(param))).collect()
    }

    /// The keys of config.json that are the head's.
    pub fn describe(&self, config: &mut Value) {
        config["architectures"] = serde_json::json!([format!("{}ForMaskedLM", self.architecture.class)]);
        if let Some(legacy) = self.convention.legacy {
            config["legacy"] = legacy.into();
        }
        if config.get("tie_word_embeddings").is_some() || !self.tied {
            config["tie_word_embeddings"] = self.tied.into();
        }
    }
}
