//! T5's encoder (Raffel et al., 2020, <https://arxiv.org/abs/1910.10683>), as transformers' `T5EncoderModel`: each half
//! of a layer normalises its input by its root mean square and adds to it; scores are not scaled and know by how far a
//! key stands from its query, in all layers from one table.

use std::sync::Arc;

use candle_core::Tensor;
use serde::Deserialize;
use serde_json::Value;

use super::loader::{Loader, Tensors};
use super::{Backbone, distances};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::weights::Weights;
use crate::ops::{self, Activation, Context, Param, Relative};

/// What the network is like.
#[derive(Debug, Clone)]
pub struct Config {
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_heads: usize,
    buckets: usize,
    farthest: usize,
    dropout: f64,
    eps: f64,
    activation: Activation,
    gated: bool,
}

#[derive(Debug, Deserialize)]
struct Keys {
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_heads: usize,
    #[serde(default = "thirty_two")]
    relative_attention_num_buckets: usize,
    #[serde(default = "farthest")]
    relative_attention_max_distance: usize,
    #[serde(default = "tenth")]
    dropout_rate: f64,
    #[serde(default = "eps")]
    layer_norm_epsilon: f64,
    #[serde(default = "relu")]
    feed_forward_proj: String,
}

fn thirty_two() -> usize {
    32
}
fn farthest() -> usize {
    128
}
fn tenth() -> f64 {
    0.1
}
fn eps() -> f64 {
    1e-6
}
fn relu() -> String {
    "relu".to_owned()
}

impl Config {
    /// Reads config.json.
    ///
    /// # Errors
    /// When a key is missing or of another type, or says what would be computed otherwise.
    pub fn read(config: &Value) -> Result<Self> {
        let keys: Keys = serde_json::from_value(config.clone()).map_err(|e| Error::model(e.to_string()))?;
        let (gated, name) = match keys.feed_forward_proj.strip_prefix("gated-") {
            // transformers' own reading of the old name
            Some("gelu") => (true, "gelu_new"),
            Some(name) => (true, name),
            None => (false, keys.feed_forward_proj.as_str()),
        };
        let activation = match name {
            "relu" => Activation::Relu,
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "silu" => Activation::Silu,
            _ => {
                return Err(Error::model(format!("`feed_forward_proj` is `{}`", keys.feed_forward_proj))
                    .with_hint("supported are `relu`, `gelu`, `silu`, and these after `gated-`"));
            }
        };
        let (buckets, farthest) = (keys.relative_attention_num_buckets, keys.relative_attention_max_distance);
        if buckets < 4 || !buckets.is_multiple_of(4) || farthest <= buckets / 4 {
            return Err(Error::model(format!("{buckets} buckets of distances up to {farthest}")).with_hint(
                "`relative_attention_num_buckets` is a multiple of 4 and below 4 `relative_attention_max_distance`",
            ));
        }
        if keys.num_heads == 0 || keys.d_kv == 0 {
            return Err(Error::model("`num_heads` or `d_kv` is 0"));
        }
        Ok(Self {
            vocab_size: keys.vocab_size,
            d_model: keys.d_model,
            d_kv: keys.d_kv,
            d_ff: keys.d_ff,
            num_layers: keys.num_layers,
            num_heads: keys.num_heads,
            buckets,
            farthest,
            dropout: keys.dropout_rate,
            eps: keys.layer_norm_epsilon,
            activation,
            gated,
        })
    }
}

struct Layer {
    attention_norm: Arc<Param>,
    query: Arc<Param>,
    key: Arc<Param>,
    value: Arc<Param>,
    output: Arc<Param>,
    forward_norm: Arc<Param>,
    /// The gate before the other, where there is one.
    inner: Vec<Arc<Param>>,
    outer: Arc<Param>,
}

/// The network.
pub struct T5Encoder {
    config: Arc<Config>,
    word: Arc<Param>,
    distances: Arc<Param>,
    layers: Vec<Arc<Layer>>,
    norm: Arc<Param>,
    /// Whether a layer keeps its input alone, and is computed again for its gradient.
    checkpointing: bool,
    tensors: Tensors,
}

/// What whole models have beside their encoder: it is not saved, as transformers does not save it.
const NOT_OURS: [&str; 3] = ["decoder.", "lm_head.", "encoder.embed_tokens."];

impl T5Encoder {
    /// Takes the encoder's tensors out of `weights`; `prefix` stands before their names in messages and optimizer.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub fn load(config: Config, mut weights: Weights, prefix: &str) -> Result<Self> {
        // an encoder that was saved alone may name its table after itself
        if !weights.contains("shared.weight") {
            weights.rename(|name| {
                Some(if name == "encoder.embed_tokens.weight" { "shared.weight".to_owned() } else { name })
            });
        }
        let mut load = Loader::new(weights, prefix);
        let (width, heads) = (config.d_model, config.num_heads * config.d_kv);
        let word = load.param("shared.weight", &[config.vocab_size, width])?;
        let table = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        let distances = load.param(table, &[config.buckets, config.num_heads])?;
        let mut layers = Vec::with_capacity(config.num_layers);
        for i in 0..config.num_layers {
            let mut take =
                |name: &str, shape: &[usize]| load.param(&format!("encoder.block.{i}.layer.{name}.weight"), shape);
            let inner: &[&str] = if config.gated {
                &["1.DenseReluDense.wi_0", "1.DenseReluDense.wi_1"]
            } else {
                &["1.DenseReluDense.wi"]
            };
            layers.push(Arc::new(Layer {
                query: take("0.SelfAttention.q", &[heads, width])?,
                key: take("0.SelfAttention.k", &[heads, width])?,
                value: take("0.SelfAttention.v", &[heads, width])?,
                output: take("0.SelfAttention.o", &[width, heads])?,
                attention_norm: take("0.layer_norm", &[width])?,
                inner: inner.iter().map(|name| take(name, &[config.d_ff, width])).collect::<Result<_>>()?,
                outer: take("1.DenseReluDense.wo", &[width, config.d_ff])?,
                forward_norm: take("1.layer_norm", &[width])?,
            }));
        }
        let norm = load.param("encoder.final_layer_norm.weight", &[width])?;
        let mut tensors = load.finish();
        tensors.unused.retain(|(name, _)| !NOT_OURS.iter().any(|prefix| name.starts_with(prefix)));
        let config = Arc::new(config);
        Ok(Self { config, word, distances, layers, norm, checkpointing: false, tensors })
    }

    /// The states after the embedding layer and after each layer, which `each` is shown; the last of them, normalised.
    fn run(&self, batch: &PackedBatch, context: &Context, mut each: impl FnMut(&Tensor)) -> Result<Tensor> {
        let rows = distances::rows(batch.longest(), self.config.buckets, self.config.farthest);
        let distances = Relative::new(&self.distances, &Arc::new(rows))?;
        let pass = Arc::new(Pass { config: Arc::clone(&self.config), batch: batch.clone(), distances });
        let words = ops::embedding_sum(context, &[(&self.word, Arc::clone(&batch.ids))])?; // [tokens, d_model]
        let mut x = pass.dropped(&words, context)?;
        for layer in &self.layers {
            each(&x);
            x = match self.checkpointing {
                false => pass.layer(layer, &x, context)?,
                true => {
                    let (own, pass) = (Arc::clone(layer), Arc::clone(&pass));
                    let params = [layer.params(), vec![Arc::clone(&self.distances)]].concat();
                    ops::checkpoint(context, &x, params, move |x, context| pass.layer(&own, x, context))?
                }
            };
        }
        Ok(pass.dropped(&pass.normal(&x, &self.norm)?, context)?)
    }
}

impl Layer {
    fn params(&self) -> Vec<Arc<Param>> {
        let all =
            [&self.attention_norm, &self.query, &self.key, &self.value, &self.output, &self.forward_norm, &self.outer];
        all.into_iter().chain(&self.inner).map(Arc::clone).collect()
    }
}

/// What all layers have in common in a pass.
struct Pass {
    config: Arc<Config>,
    batch: PackedBatch,
    distances: Relative,
}

impl Pass {
    fn normal(&self, x: &Tensor, weight: &Arc<Param>) -> candle_core::Result<Tensor> {
        ops::rms_norm(x, weight, 0.0, self.config.eps)
    }

    fn dropped(&self, x: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        ops::dropout(x, context.dropout(self.config.dropout))
    }

    /// `[tokens, d_model]` to the same.
    fn layer(&self, layer: &Layer, x: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        let x = (x + self.dropped(&self.attend(layer, x, context)?, context)?)?;
        &x + self.dropped(&self.feed(layer, &x, context)?, context)?
    }

    /// What the first half of a layer adds, `[tokens, d_model]`.
    fn attend(&self, layer: &Layer, x: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        let linear = |x: &Tensor, weight: &Arc<Param>| ops::linear(context, x, weight, None);
        let x = self.normal(x, &layer.attention_norm)?;
        // attention divides scores by this root
        let q = (linear(&x, &layer.query)? * (self.config.d_kv as f64).sqrt())?;
        let (k, v) = (linear(&x, &layer.key)?, linear(&x, &layer.value)?);
        let (offsets, dropout) =
            ((&self.batch.offsets, &self.batch.attended[..]), context.dropout(self.config.dropout));
        let seen = ops::relative_attention(&q, &k, &v, offsets, self.config.num_heads, &self.distances, dropout)?;
        linear(&seen, &layer.output)
    }

    /// What the second half of a layer adds, `[tokens, d_model]`.
    fn feed(&self, layer: &Layer, x: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        let linear = |x: &Tensor, weight: &Arc<Param>| ops::linear(context, x, weight, None);
        let x = self.normal(x, &layer.forward_norm)?;
        let mut inner = ops::activation(&linear(&x, &layer.inner[0])?, self.config.activation)?;
        for weight in &layer.inner[1..] {
            inner = (inner * linear(&x, weight)?)?;
        }
        linear(&self.dropped(&inner, context)?, &layer.outer)
    }
}

impl Backbone for T5Encoder {
    fn forward(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        self.run(batch, context, |_| {})
    }

    fn forward_layers(&self, batch: &PackedBatch, context: &Context) -> Result<Vec<Tensor>> {
        let mut all = Vec::new();
        let last = self.run(batch, context, |x| all.push(x.clone()))?;
        all.push(last);
        Ok(all)
    }

    fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    fn tensors_mut(&mut self) -> &mut Tensors {
        &mut self.tensors
    }

    fn rows(&self, batch: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)> {
        vec![(Arc::clone(&self.word), batch.ids.to_vec())]
    }

    fn word_embeddings(&self) -> Option<&Arc<Param>> {
        Some(&self.word)
    }

    fn hidden_size(&self) -> usize {
        self.config.d_model
    }

    fn layers(&self) -> usize {
        self.layers.len()
    }

    fn activation_floats(&self) -> usize {
        // of the first half the normal input, queries before and after their factor, keys, values, what was seen, what
        // is added, before dropout and after, and the sum; of the second the normal input, each inner part, its
        // activation, their product, with dropout, what is added twice and the sum; then the largest gradients
        let (width, inner) = (self.config.d_model, self.config.d_ff);
        let heads = self.config.num_heads * self.config.d_kv;
        let parts = if self.config.gated { 5 } else { 3 };
        let (layers, layer) = (self.layers.len(), 8 * width + 5 * heads + parts * inner);
        // a layer that is computed again has its input twice
        let kept = if self.checkpointing { layers * width + layer + width } else { layers * layer };
        kept + 6 * width + 4 * inner
    }

    fn max_positions(&self) -> Option<usize> {
        None
    }

    fn set_dropout(&mut self, probability: f64) {
        Arc::make_mut(&mut self.config).dropout = probability;
    }

    fn set_checkpointing(&mut self) -> Result<()> {
        self.checkpointing = true;
        Ok(())
    }
}
