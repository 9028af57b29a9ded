//! BERT (Devlin et al., 2018, <https://arxiv.org/abs/1810.04805>), as transformers' `BertModel` without its pooler.

mod decoder;

use std::sync::Arc;

use candle_core::Tensor;
use serde::Deserialize;

use super::{Backbone, Decoder};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::weights::Weights;
use crate::ops::{self, Activation, Context, Param};
use crate::util::seed::Rng;

/// The keys of config.json that change what the network computes.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    #[serde(default = "eps")]
    pub layer_norm_eps: f64,
    #[serde(default = "gelu")]
    pub hidden_act: String,
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    #[serde(default)]
    pub position_embedding_type: Option<String>,
    #[serde(default)]
    pub is_decoder: bool,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    #[serde(default = "pad_token_id")]
    pub pad_token_id: Option<u32>,
    #[serde(default)]
    pub tie_word_embeddings: Option<bool>,
}

fn two() -> usize {
    2
}
fn eps() -> f64 {
    1e-12
}
fn tenth() -> f64 {
    0.1
}
fn initializer_range() -> f64 {
    0.02
}
#[allow(clippy::unnecessary_wraps)]
fn pad_token_id() -> Option<u32> {
    Some(0)
}
fn gelu() -> String {
    "gelu".to_owned()
}

impl Config {
    /// Refuses what would be computed otherwise than the configuration says.
    ///
    /// # Errors
    /// For an activation, position embedding or shape that is not supported.
    pub fn validate(&self) -> Result<()> {
        self.activation()?;
        if let Some(kind) = &self.position_embedding_type
            && kind != "absolute"
        {
            return Err(Error::model(format!("`position_embedding_type` is `{kind}`"))
                .with_hint("only absolute position embeddings are supported for BERT"));
        }
        if self.is_decoder {
            return Err(Error::model("`is_decoder` is true").with_hint("only BERT encoders are supported"));
        }
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(Error::model(format!(
                "`num_attention_heads` {} does not divide `hidden_size` {}",
                self.num_attention_heads, self.hidden_size
            )));
        }
        Ok(())
    }

    fn activation(&self) -> Result<Activation> {
        match self.hidden_act.as_str() {
            "gelu" => Ok(Activation::Gelu),
            "relu" => Ok(Activation::Relu),
            other => Err(Error::model(format!("`hidden_act` is `{other}`"))
                .with_hint("supported activations of BERT are `gelu` and `relu`")),
        }
    }
}

/// A weight and its bias.
#[derive(Clone)]
struct Dense {
    weight: Arc<Param>,
    bias: Arc<Param>,
}

impl Dense {
    fn pair(&self) -> (&Arc<Param>, &Arc<Param>) {
        (&self.weight, &self.bias)
    }
}

#[derive(Clone)]
struct Layer {
    query: Dense,
    key: Dense,
    value: Dense,
    attention_output: Dense,
    attention_norm: Dense,
    intermediate: Dense,
    output: Dense,
    output_norm: Dense,
}

/// The network. A clone has the same parameters.
#[derive(Clone)]
pub struct Bert {
    config: Config,
    activation: Activation,
    word: Arc<Param>,
    position: Arc<Param>,
    token_type: Arc<Param>,
    norm: Dense,
    layers: Vec<Layer>,
    named: Vec<(String, Arc<Param>)>,
    unused: Vec<(String, Tensor)>,
}

/// Takes parameters out of a checkpoint and keeps the list of their names.
struct Loader<'a> {
    weights: Weights,
    prefix: &'a str,
    named: Vec<(String, Arc<Param>)>,
}

impl Loader<'_> {
    fn param(&mut self, name: &str, shape: &[usize]) -> Result<Arc<Param>> {
        let param = self.weights.take(self.prefix, name, shape)?;
        self.named.push((name.to_owned(), Arc::clone(&param)));
        Ok(param)
    }

    fn dense(&mut self, name: &str, out: usize, input: usize) -> Result<Dense> {
        Ok(Dense {
            weight: self.param(&format!("{name}.weight"), &[out, input])?,
            bias: self.param(&format!("{name}.bias"), &[out])?,
        })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Dense> {
        Ok(Dense {
            weight: self.param(&format!("{name}.weight"), &[width])?,
            bias: self.param(&format!("{name}.bias"), &[width])?,
        })
    }
}

impl Bert {
    /// Takes the network's tensors out of `weights`; `prefix` stands before their names in messages and optimizer.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub fn load(config: Config, mut weights: Weights, prefix: &str) -> Result<Self> {
        weights.strip_prefix("bert.");
        weights.modernise();
        let mut load = Loader { weights, prefix, named: Vec::new() };
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let word = load.param("embeddings.word_embeddings.weight", &[config.vocab_size, hidden])?;
        let position =
            load.param("embeddings.position_embeddings.weight", &[config.max_position_embeddings, hidden])?;
        let token_type = load.param("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, hidden])?;
        let norm = load.norm("embeddings.LayerNorm", hidden)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let at = |name: &str| format!("encoder.layer.{i}.{name}");
            layers.push(Layer {
                query: load.dense(&at("attention.self.query"), hidden, hidden)?,
                key: load.dense(&at("attention.self.key"), hidden, hidden)?,
                value: load.dense(&at("attention.self.value"), hidden, hidden)?,
                attention_output: load.dense(&at("attention.output.dense"), hidden, hidden)?,
                attention_norm: load.norm(&at("attention.output.LayerNorm"), hidden)?,
                intermediate: load.dense(&at("intermediate.dense"), inner, hidden)?,
                output: load.dense(&at("output.dense"), hidden, inner)?,
                output_norm: load.norm(&at("output.LayerNorm"), hidden)?,
            });
        }
        Ok(Self {
            activation: config.activation()?,
            config,
            word,
            position,
            token_type,
            norm,
            layers,
            named: load.named,
            unused: load.weights.rest(),
        })
    }

    fn embed(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let longest = batch.longest();
        if longest > self.config.max_position_embeddings {
            return Err(Error::model(format!(
                "a text has {longest} tokens, the model has {} positions",
                self.config.max_position_embeddings
            ))
            .with_hint("set `model.max_seq_length` to at most that number"));
        }
        let mut positions = Vec::with_capacity(batch.tokens());
        for w in batch.offsets.windows(2) {
            positions.extend(0..w[1] - w[0]);
        }
        let types = match batch.types.is_empty() {
            true => Arc::new(vec![0u32; batch.tokens()]),
            // networks with one type of token give it to both texts
            false if self.config.type_vocab_size == 1 => Arc::new(vec![0u32; batch.tokens()]),
            false => Arc::clone(&batch.types),
        };
        let sum = ops::embedding_sum(
            context,
            &[(&self.word, Arc::clone(&batch.ids)), (&self.position, Arc::new(positions)), (&self.token_type, types)],
        )?;
        let normal = ops::layer_norm(&sum, &self.norm.weight, &self.norm.bias, self.config.layer_norm_eps)?;
        Ok(ops::dropout(&normal, context.dropout(self.config.hidden_dropout_prob))?)
    }

    /// One layer's parameters, and the dropouts of this pass.
    fn layer<'a>(&self, layer: &'a Layer, context: &Context) -> ops::EncoderLayer<'a> {
        let config = &self.config;
        ops::EncoderLayer {
            attention: ops::SelfAttention {
                query: layer.query.pair(),
                key: layer.key.pair(),
                value: layer.value.pair(),
                output: layer.attention_output.pair(),
                norm: layer.attention_norm.pair(),
                eps: config.layer_norm_eps,
                heads: config.num_attention_heads,
                probability_dropout: context.dropout(config.attention_probs_dropout_prob),
                dropout: context.dropout(config.hidden_dropout_prob),
            },
            feed_forward: ops::FeedForward {
                inner: layer.intermediate.pair(),
                activation: self.activation,
                outer: layer.output.pair(),
                norm: layer.output_norm.pair(),
                eps: config.layer_norm_eps,
                dropout: context.dropout(config.hidden_dropout_prob),
            },
        }
    }
}

impl Backbone for Bert {
    fn forward(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let x = self.embed(batch, context)?;
        let layers: Vec<_> = self.layers.iter().map(|layer| self.layer(layer, context)).collect();
        Ok(ops::encoder(context, &x, &batch.offsets, &layers)?)
    }

    fn forward_layers(&self, batch: &PackedBatch, context: &Context) -> Result<Vec<Tensor>> {
        let mut all = vec![self.embed(batch, context)?];
        for layer in &self.layers {
            let Some(x) = all.last() else { break };
            let y = ops::encoder(context, x, &batch.offsets, &[self.layer(layer, context)])?;
            all.push(y);
        }
        Ok(all)
    }

    fn forward_some(&self, batch: &PackedBatch, layers: &[usize], context: &Context) -> Result<Vec<Tensor>> {
        // as few operations as there are cuts: within each of them nothing is kept between layers
        let mut cuts: Vec<usize> = layers.iter().copied().chain([0, self.layers.len()]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut states = vec![(0, self.embed(batch, context)?)];
        for ends in cuts.windows(2) {
            let Some((_, x)) = states.last() else { break };
            let parts = self.layers.get(ends[0]..ends[1]).unwrap_or_default();
            let parts: Vec<_> = parts.iter().map(|layer| self.layer(layer, context)).collect();
            let y = ops::encoder(context, x, &batch.offsets, &parts)?;
            states.push((ends[1], y));
        }
        let state = |layer: usize| states.iter().find(|(at, _)| *at == layer).map(|(_, state)| state.clone());
        layers
            .iter()
            .map(|layer| state(*layer))
            .chain([state(self.layers.len())])
            .collect::<Option<_>>()
            .ok_or_else(|| Error::Internal(format!("layers {layers:?} of {}", self.layers.len())))
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        self.named.clone()
    }

    fn rows(&self, batch: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)> {
        vec![
            (Arc::clone(&self.word), batch.ids.to_vec()),
            (Arc::clone(&self.position), (0..batch.longest() as u32).collect()),
            (Arc::clone(&self.token_type), if batch.types.contains(&1) { vec![0, 1] } else { vec![0] }),
        ]
    }

    fn unused(&self) -> &[(String, Tensor)] {
        &self.unused
    }

    fn take_unused(&mut self) -> Vec<(String, Tensor)> {
        std::mem::take(&mut self.unused)
    }

    fn word_embeddings(&self) -> Option<&Arc<Param>> {
        Some(&self.word)
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn layers(&self) -> usize {
        self.layers.len()
    }

    fn activation_floats(&self) -> usize {
        self.floats()
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.config.max_position_embeddings)
    }

    fn set_dropout(&mut self, probability: f64) {
        self.config.hidden_dropout_prob = probability;
        self.config.attention_probs_dropout_prob = probability;
    }

    fn decoder(&self, prefix: &str, rng: Rng) -> Result<Box<dyn Decoder>> {
        Ok(Box::new(decoder::BertDecoder::new(self.clone(), prefix, rng)?))
    }
}

impl Bert {
    fn floats(&self) -> usize {
        // query, key, value, attention, and the sums of both norms; the inner layer before its activation; then the
        // embeddings' steps and the largest gradients that are alive at once
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        self.config.num_hidden_layers * (6 * hidden + inner) + 8 * hidden + inner
    }
}
