//! Classifiers on top of a network: from hidden states to the logits of a text or a pair.
//!
//! All of transformers' `…ForSequenceClassification` that tallow knows take one vector of a text through a layer with an
//! activation and then through the classifier; what differs is names, activation, dropouts, and which vector.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::backbone::{self, Architecture};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::ops::{self, Activation, Context, Param, PoolingMode};
use crate::util::seed::Rng;
use crate::util::suggest;

/// What the classifier of an architecture looks like.
struct Convention {
    /// `model_type`s of config.json.
    model_types: &'static [&'static str],
    /// The first layer; named without the prefix where it belongs to the network.
    dense: &'static str,
    dense_in_network: bool,
    /// The key of config.json that tells whether it has a bias, and what that is without.
    bias: (&'static str, bool),
    /// The key of config.json that names the activation, and the activation without.
    activation: (&'static str, Activation),
    /// A normalisation after the activation.
    norm: Option<&'static str>,
    /// Of the dropout before the first layer, where there is one, and of that before the last: the keys of the
    /// probability in config.json, the first that is there counts, and what it is without them.
    early_dropout: Option<(&'static [&'static str], f64)>,
    dropout: (&'static [&'static str], f64),
    /// The last layer.
    out: &'static str,
}

const INHERITED: (&[&str], f64) = (&["classifier_dropout", "hidden_dropout_prob"], 0.1);

const BERT: Convention = Convention {
    model_types: &["bert", "nomic_bert", "gte", "new"],
    dense: "pooler.dense",
    dense_in_network: true,
    bias: ("", true),
    activation: ("", Activation::Tanh),
    norm: None,
    early_dropout: None,
    dropout: INHERITED,
    out: "classifier",
};

const ROBERTA: Convention = Convention {
    model_types: &["roberta", "xlm-roberta", "camembert", "mpnet"],
    dense: "classifier.dense",
    dense_in_network: false,
    early_dropout: Some(INHERITED),
    out: "classifier.out_proj",
    ..BERT
};

const CONVENTIONS: &[Convention] = &[
    BERT,
    ROBERTA,
    Convention { model_types: &["electra"], activation: ("", Activation::Gelu), ..ROBERTA },
    Convention {
        model_types: &["distilbert"],
        dense: "pre_classifier",
        dense_in_network: false,
        activation: ("", Activation::Relu),
        dropout: (&["seq_classif_dropout"], 0.2),
        ..BERT
    },
    Convention {
        model_types: &["deberta-v2"],
        dense: "pooler.dense",
        dense_in_network: false,
        activation: ("pooler_hidden_act", Activation::Gelu),
        early_dropout: Some((&["pooler_dropout"], 0.0)),
        dropout: (&["cls_dropout", "hidden_dropout_prob"], 0.1),
        ..BERT
    },
    Convention {
        model_types: &["modernbert"],
        dense: "head.dense",
        dense_in_network: false,
        bias: ("classifier_bias", false),
        activation: ("classifier_activation", Activation::Gelu),
        norm: Some("head.norm"),
        dropout: (&["classifier_dropout"], 0.0),
        ..BERT
    },
];

fn convention(model_type: &str) -> Result<&'static Convention> {
    CONVENTIONS.iter().find(|c| c.model_types.contains(&model_type)).ok_or_else(|| {
        let known = CONVENTIONS.iter().flat_map(|c| c.model_types.iter().copied());
        Error::model(format!("there is no classifier for models of type `{model_type}`"))
            .with_hint(suggest::hint(model_type, known))
    })
}

/// How a classifier is made where a checkpoint has none, or is to be changed.
#[derive(Debug, Clone, Copy)]
pub struct HeadOptions {
    /// Logits; `None` for as many as the checkpoint has, and 1 where it has none.
    pub num_labels: Option<usize>,
    /// Replaces its dropout.
    pub dropout: Option<f64>,
    /// For new weights.
    pub rng: Rng,
}

struct Layer {
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
}

/// `(weight, bias)` and what is added to the variance.
struct Norm {
    weight: Arc<Param>,
    bias: Arc<Param>,
    eps: f64,
}

impl Norm {
    /// Takes it out of `weights`, or out of `fresh` where it is not there.
    fn load(
        name: &str,
        config: &Value,
        width: usize,
        weights: &mut Weights,
        fresh: &mut Weights,
        prefix: &str,
    ) -> Result<Self> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let source = if weights.contains(&weight) { weights } else { fresh };
        Ok(Self {
            weight: source.take(prefix, &weight, &[width])?,
            bias: match backbone::flag(config, ("norm_bias", false)) {
                true => source.take(prefix, &bias, &[width])?,
                false => source.zeros(prefix, &bias, width)?,
            },
            eps: config.get("norm_eps").and_then(Value::as_f64).unwrap_or(1e-5),
        })
    }
}

/// A classifier with its weights.
pub struct SequenceClassification {
    architecture: &'static Architecture,
    convention: &'static Convention,
    dense: Layer,
    activation: Activation,
    norm: Option<Norm>,
    out: Layer,
    /// Which of a text's tokens the classifier sees.
    pooling: PoolingMode,
    early_dropout: f64,
    dropout: f64,
    num_labels: usize,
    /// What training data calls the classes, by number; empty where it does not.
    class_names: Vec<String>,
    /// The layers that the checkpoint did not have.
    new: Vec<&'static str>,
}

impl SequenceClassification {
    /// Takes the classifier's tensors out of what a network left of its checkpoint, and makes those that are missing:
    /// normal with the configuration's `initializer_range`, biases 0.
    ///
    /// # Errors
    /// When the architecture has no classifier here, or a tensor is of another shape than the configuration says.
    pub fn load(
        config: &Value,
        hidden: usize,
        weights: &mut Weights,
        name_prefix: &str,
        options: HeadOptions,
        device: &Device,
    ) -> Result<Self> {
        let architecture = backbone::architecture(config, "config.json")?;
        let convention = convention(architecture.model_type)?;
        let text = |key: &str| config.get(key).and_then(Value::as_f64);
        let out_weight = format!("{}.weight", convention.out);
        let there = weights.shape(&out_weight).and_then(|shape| shape.first().copied());
        let num_labels = options.num_labels.or(there).unwrap_or(1);
        if num_labels == 0 {
            return Err(
                Error::usage("`model.num_labels` is 0").with_hint("1 for a reranker, else the number of classes")
            );
        }
        if there.is_some_and(|labels| labels != num_labels) {
            // another number of labels: what is there says nothing about them
            weights.remove(&out_weight);
            weights.remove(&format!("{}.bias", convention.out));
        }
        let range = text("initializer_range").unwrap_or(0.02);
        let mut new = Vec::new();
        let mut layer = |name: &'static str, out: usize, has_bias: bool, rng: Rng| -> Result<Layer> {
            let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            if weights.contains(&weight) {
                return Ok(Layer {
                    weight: weights.take(name_prefix, &weight, &[out, hidden])?,
                    bias: has_bias.then(|| weights.take(name_prefix, &bias, &[out])).transpose()?,
                });
            }
            new.push(name);
            let mut rng = rng;
            let values: Vec<f32> = (0..out * hidden).map(|_| (range * rng.normal()) as f32).collect();
            let values = Tensor::from_vec(values, (out, hidden), &Device::Cpu)?.to_device(device)?;
            let zeros = || -> Result<_> {
                let zeros = Tensor::zeros(out, DType::F32, device)?;
                Ok(Param::new(format!("{name_prefix}{bias}"), &zeros)?)
            };
            Ok(Layer {
                weight: Param::new(format!("{name_prefix}{weight}"), &values)?,
                bias: has_bias.then(zeros).transpose()?,
            })
        };
        let has_bias = backbone::flag(config, convention.bias);
        let dense = layer(convention.dense, hidden, has_bias, options.rng.fork(0))?;
        let out = layer(convention.out, num_labels, true, options.rng.fork(1))?;
        let mut fresh = Weights::fresh(options.rng.fork(2), range, device);
        let mut norm = |name| Norm::load(name, config, hidden, weights, &mut fresh, name_prefix);
        let norm = convention.norm.map(&mut norm).transpose()?;
        let (key, activation) = convention.activation;
        let activation = match config.get(key).and_then(Value::as_str) {
            Some(name) => backbone::activation(key, name)?,
            None => activation,
        };
        let pooling = match config.get("classifier_pooling").and_then(Value::as_str) {
            None | Some("cls") => PoolingMode::Cls,
            Some("mean") => PoolingMode::Mean,
            Some(other) => {
                return Err(Error::model(format!("`classifier_pooling` is `{other}`"))
                    .with_hint("supported are `cls` and `mean`"));
            }
        };
        let probability = |(keys, default): (&[&str], f64)| {
            options.dropout.or(keys.iter().copied().find_map(text)).unwrap_or(default)
        };
        Ok(Self {
            architecture,
            convention,
            dense,
            activation,
            norm,
            out,
            pooling,
            early_dropout: convention.early_dropout.map_or(0.0, probability),
            dropout: probability(convention.dropout),
            num_labels,
            new,
            class_names: Vec::new(),
        })
    }

    /// Says what its classes are called; for config.json.
    pub fn name_classes(&mut self, names: &[String]) {
        self.class_names = names.to_vec();
    }

    /// Logits of a text or a pair.
    #[must_use]
    pub fn num_labels(&self) -> usize {
        self.num_labels
    }

    /// The layers that were not in the checkpoint and have random weights.
    #[must_use]
    pub fn new_layers(&self) -> &[&'static str] {
        &self.new
    }

    /// `[sequences, num_labels]`: the logits from `[tokens, hidden]`.
    ///
    /// # Errors
    /// When a sequence has no token.
    pub fn forward(&self, tokens: &Tensor, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let linear = |x: &Tensor, layer: &Layer| ops::linear(context, x, &layer.weight, layer.bias.as_ref());
        let text = ops::pool(tokens, &batch.offsets, &Arc::new(Vec::new()), self.pooling)?; // [sequences, hidden]
        let text = ops::dropout(&text, context.dropout(self.early_dropout))?;
        let inner = ops::activation(&linear(&text, &self.dense)?, self.activation)?;
        let inner = match &self.norm {
            Some(norm) => ops::layer_norm(&inner, &norm.weight, &norm.bias, norm.eps)?,
            None => inner,
        };
        let inner = ops::dropout(&inner, context.dropout(self.dropout))?;
        Ok(linear(&inner, &self.out)?)
    }

    /// Every parameter with its name in the weights of the whole.
    #[must_use]
    pub fn params(&self) -> Vec<(String, Arc<Param>)> {
        let prefix = if self.convention.dense_in_network { self.architecture.prefix } else { "" };
        let layer = |prefix: &str, name: &str, layer: &Layer| {
            let weight = (format!("{prefix}{name}.weight"), Arc::clone(&layer.weight));
            let bias = layer.bias.as_ref().map(|bias| (format!("{prefix}{name}.bias"), Arc::clone(bias)));
            std::iter::once(weight).chain(bias)
        };
        let mut params: Vec<_> = layer(prefix, self.convention.dense, &self.dense).collect();
        if let (Some(name), Some(norm)) = (self.convention.norm, &self.norm) {
            let both = [("weight", &norm.weight), ("bias", &norm.bias)];
            // zeros stand for a bias that there is not
            let real = both.into_iter().filter(|(_, param)| !param.constant());
            params.extend(real.map(|(part, param)| (format!("{name}.{part}"), Arc::clone(param))));
        }
        params.extend(layer("", self.convention.out, &self.out));
        params
    }

    /// What stands before the network's names in the weights of the whole.
    #[must_use]
    pub fn network_prefix(&self) -> &'static str {
        self.architecture.prefix
    }

    /// The keys of config.json that are the classifier's.
    pub fn describe(&self, config: &mut Value) {
        config["architectures"] = serde_json::json!([format!("{}ForSequenceClassification", self.architecture.class)]);
        let labelled = config.get("id2label").and_then(Value::as_object).map(serde_json::Map::len);
        let named = Some(&self.class_names).filter(|names| names.len() == self.num_labels);
        if named.is_some() || labelled != Some(self.num_labels) {
            let numbered = || (0..self.num_labels).map(|i| format!("LABEL_{i}")).collect::<Vec<String>>();
            let names = named.cloned().unwrap_or_else(numbered);
            config["id2label"] =
                names.iter().enumerate().map(|(i, n)| (i.to_string(), Value::from(n.as_str()))).collect();
            config["label2id"] = names.iter().enumerate().map(|(i, n)| (n.clone(), Value::from(i))).collect();
        }
    }
}
