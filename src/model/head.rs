//! Classifiers on top of a network: from hidden states to the logits of a text or a pair.
//!
//! All of transformers' `…ForSequenceClassification` that tallow knows take the first token through a layer with an
//! activation and then through the classifier; what differs is names, activation and dropouts.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::weights::Weights;
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::ops::{self, Activation, Context, Param, PoolingMode};
use crate::util::seed::Rng;
use crate::util::suggest;

/// What an architecture's classifier looks like.
struct Convention {
    /// `model_type` of config.json.
    model_type: &'static str,
    /// Class of the whole, for `architectures` in config.json.
    architecture: &'static str,
    /// Stands before the network's names in the weights of the whole.
    prefix: &'static str,
    /// The first layer; named without the prefix where it belongs to the network.
    dense: &'static str,
    dense_in_network: bool,
    activation: Activation,
    /// Whether there is a dropout before the first layer, too.
    early_dropout: bool,
    /// The last layer.
    out: &'static str,
}

const CONVENTIONS: &[Convention] = &[Convention {
    model_type: "bert",
    architecture: "BertForSequenceClassification",
    prefix: "bert.",
    dense: "pooler.dense",
    dense_in_network: true,
    activation: Activation::Tanh,
    early_dropout: false,
    out: "classifier",
}];

fn convention(model_type: &str) -> Result<&'static Convention> {
    CONVENTIONS.iter().find(|c| c.model_type == model_type).ok_or_else(|| {
        let known = CONVENTIONS.iter().map(|c| c.model_type);
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
    bias: Arc<Param>,
}

/// A classifier with its weights.
pub struct SequenceClassification {
    convention: &'static Convention,
    dense: Layer,
    out: Layer,
    dropout: f64,
    num_labels: usize,
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
        let convention = convention(config["model_type"].as_str().unwrap_or_default())?;
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
        let mut layer = |name: &'static str, out: usize, rng: Rng| -> Result<Layer> {
            let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            if weights.contains(&weight) {
                return Ok(Layer {
                    weight: weights.take(name_prefix, &weight, &[out, hidden])?,
                    bias: weights.take(name_prefix, &bias, &[out])?,
                });
            }
            new.push(name);
            let mut rng = rng;
            let values: Vec<f32> = (0..out * hidden).map(|_| (range * rng.normal()) as f32).collect();
            let values = Tensor::from_vec(values, (out, hidden), &Device::Cpu)?.to_device(device)?;
            Ok(Layer {
                weight: Param::new(format!("{name_prefix}{weight}"), &values)?,
                bias: Param::new(format!("{name_prefix}{bias}"), &Tensor::zeros(out, DType::F32, device)?)?,
            })
        };
        let dense = layer(convention.dense, hidden, options.rng.fork(0))?;
        let out = layer(convention.out, num_labels, options.rng.fork(1))?;
        let dropout = ["classifier_dropout", "hidden_dropout_prob"].into_iter().find_map(text);
        Ok(Self { convention, dense, out, dropout: options.dropout.or(dropout).unwrap_or(0.1), num_labels, new })
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
        let first = ops::pool(tokens, &batch.offsets, &Arc::new(Vec::new()), PoolingMode::Cls)?;
        let first = match self.convention.early_dropout {
            true => ops::dropout(&first, context.dropout(self.dropout))?,
            false => first,
        };
        let inner = ops::linear(context, &first, &self.dense.weight, Some(&self.dense.bias))?;
        let inner = ops::activation(&inner, self.convention.activation)?;
        let inner = ops::dropout(&inner, context.dropout(self.dropout))?;
        Ok(ops::linear(context, &inner, &self.out.weight, Some(&self.out.bias))?)
    }

    /// Every parameter with its name in the weights of the whole.
    #[must_use]
    pub fn params(&self) -> Vec<(String, Arc<Param>)> {
        let prefix = if self.convention.dense_in_network { self.convention.prefix } else { "" };
        let layer = |prefix: &str, name: &str, layer: &Layer| {
            [
                (format!("{prefix}{name}.weight"), Arc::clone(&layer.weight)),
                (format!("{prefix}{name}.bias"), Arc::clone(&layer.bias)),
            ]
        };
        let mut params = layer(prefix, self.convention.dense, &self.dense).to_vec();
        params.extend(layer("", self.convention.out, &self.out));
        params
    }

    /// What stands before the network's names in the weights of the whole.
    #[must_use]
    pub fn network_prefix(&self) -> &'static str {
        self.convention.prefix
    }

    /// The keys of config.json that are the classifier's.
    pub fn describe(&self, config: &mut Value) {
        config["architectures"] = serde_json::json!([self.convention.architecture]);
        let labelled = config.get("id2label").and_then(Value::as_object).map(serde_json::Map::len);
        if labelled != Some(self.num_labels) {
            let names: Vec<String> = (0..self.num_labels).map(|i| format!("LABEL_{i}")).collect();
            config["id2label"] =
                names.iter().enumerate().map(|(i, n)| (i.to_string(), Value::from(n.as_str()))).collect();
            config["label2id"] = names.iter().enumerate().map(|(i, n)| (n.clone(), Value::from(i))).collect();
        }
    }
}
