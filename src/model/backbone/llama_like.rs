//! Llama (Touvron et al., 2023, <https://arxiv.org/abs/2302.13971>) and its relatives, as transformers' `LlamaModel`,
//! `MistralModel`, `Qwen2Model`, `Qwen3Model` and `Gemma3TextModel`: each half of a layer normalises its input by its
//! root mean square and adds to it; queries share keys and values; a token sees those before it, or all.

pub mod config;

use std::sync::Arc;

use candle_core::Tensor;

use self::config::Window;
pub use self::config::{Config, keep_layer_types};
use super::Backbone;
use super::loader::{Linear, Loader, Tensors};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::weights::Weights;
use crate::ops::{self, Context, Param, Rotary, Sight};

/// What the relatives differ in.
#[derive(Debug)]
pub struct Family {
    /// Whether queries, keys and values have a bias and the output has none; `None` for what config.json says of all.
    pub attention_bias: Option<bool>,
    /// Whether config.json may ask for biases of the feed-forward half.
    pub mlp_bias: bool,
    /// Whether each head's queries and keys are normalised.
    pub head_norms: bool,
    /// Gemma's ways: embeddings times the root of the width, weights of norms kept less 1, results of both halves
    /// normalised, and scores scaled by a number of their own.
    pub gemma: bool,
    /// Values of a head where config.json says nothing; `None` for the width by heads.
    pub head_dim: Option<usize>,
    /// The angles' base where config.json says nothing.
    pub theta: f64,
    /// Whether layers with a window have angles of their own.
    pub two_thetas: bool,
    pub window: Window,
    pub activation: &'static str,
}

pub const LLAMA: Family = Family {
    attention_bias: None,
    mlp_bias: true,
    head_norms: false,
    gemma: false,
    head_dim: None,
    theta: 10_000.0,
    two_thetas: false,
    window: Window::None,
    activation: "silu",
};
pub const MISTRAL: Family =
    Family { attention_bias: Some(false), mlp_bias: false, window: Window::Everywhere, ..LLAMA };
pub const QWEN2: Family = Family { attention_bias: Some(true), window: Window::Above, ..MISTRAL };
pub const QWEN3: Family =
    Family { attention_bias: None, head_norms: true, head_dim: Some(128), window: Window::Above, ..MISTRAL };
pub const GEMMA3: Family = Family {
    gemma: true,
    head_dim: Some(256),
    theta: 1_000_000.0,
    two_thetas: true,
    window: Window::Pattern,
    activation: "gelu_pytorch_tanh",
    ..QWEN3
};

struct Layer {
    /// Whether tokens see those near them only.
    local: bool,
    input_norm: Arc<Param>,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    /// Of queries and of keys.
    head_norms: Option<[Arc<Param>; 2]>,
    /// Of what the first half adds, where that is normalised.
    attention_norm: Option<Arc<Param>>,
    forward_norm: Arc<Param>,
    gate: Linear,
    up: Linear,
    down: Linear,
    /// Of what the second half adds.
    result_norm: Option<Arc<Param>>,
}

/// The network.
pub struct LlamaLike {
    family: &'static Family,
    config: Arc<Config>,
    word: Arc<Param>,
    layers: Vec<Arc<Layer>>,
    norm: Arc<Param>,
    /// Whether a layer keeps its input alone, and is computed again for its gradient.
    checkpointing: bool,
    tensors: Tensors,
}

impl LlamaLike {
    /// Takes the network's tensors out of `weights`; `prefix` stands before their names in messages and optimizer.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub fn load(family: &'static Family, config: Config, weights: Weights, prefix: &str) -> Result<Self> {
        let mut load = Loader::new(weights, prefix);
        let (hidden, inner, head_dim) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let queries = config.num_attention_heads * head_dim;
        let pairs = config.num_key_value_heads * head_dim;
        let word = load.param("embed_tokens.weight", &[config.vocab_size, hidden])?;
        let mut layers = Vec::with_capacity(config.local.len());
        for (i, local) in config.local.iter().enumerate() {
            let at = |name: &str| format!("layers.{i}.{name}");
            let norm =
                |load: &mut Loader<'_>, name: &str, width: usize| load.param(&at(&format!("{name}.weight")), &[width]);
            let bias = config.attention_bias;
            let input_norm = norm(&mut load, "input_layernorm", hidden)?;
            let query = load.linear(&at("self_attn.q_proj"), queries, hidden, bias)?;
            let key = load.linear(&at("self_attn.k_proj"), pairs, hidden, bias)?;
            let value = load.linear(&at("self_attn.v_proj"), pairs, hidden, bias)?;
            let output = load.linear(&at("self_attn.o_proj"), hidden, queries, config.output_bias)?;
            let head_norms = match family.head_norms {
                true => Some([
                    norm(&mut load, "self_attn.q_norm", head_dim)?,
                    norm(&mut load, "self_attn.k_norm", head_dim)?,
                ]),
                false => None,
            };
            // where there are four norms, the name of the second is another
            let (attention_norm, forward_norm) = match family.gemma {
                true => (Some("post_attention_layernorm"), "pre_feedforward_layernorm"),
                false => (None, "post_attention_layernorm"),
            };
            layers.push(Arc::new(Layer {
                local: *local,
                input_norm,
                query,
                key,
                value,
                output,
                head_norms,
                attention_norm: attention_norm.map(|name| norm(&mut load, name, hidden)).transpose()?,
                forward_norm: norm(&mut load, forward_norm, hidden)?,
                gate: load.linear(&at("mlp.gate_proj"), inner, hidden, config.mlp_bias)?,
                up: load.linear(&at("mlp.up_proj"), inner, hidden, config.mlp_bias)?,
                down: load.linear(&at("mlp.down_proj"), hidden, inner, config.mlp_bias)?,
                result_norm: match family.gemma {
                    true => Some(norm(&mut load, "post_feedforward_layernorm", hidden)?),
                    false => None,
                },
            }));
        }
        let norm = load.param("norm.weight", &[hidden])?;
        let mut tensors = load.finish();
        // what says the next token has nothing to say of a text
        tensors.unused.retain(|(name, _)| !name.starts_with("lm_head."));
        let config = Arc::new(config);
        Ok(Self { family, config, word, layers, norm, checkpointing: false, tensors })
    }

    fn embed(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let (longest, most) = (batch.longest(), self.config.max_position_embeddings);
        if longest > most {
            return Err(Error::model(format!("a text has {longest} tokens, the model has {most} positions"))
                .with_hint("set `model.max_seq_length` to at most that number"));
        }
        let words = ops::embedding_sum(context, &[(&self.word, Arc::clone(&batch.ids))])?; // [tokens, hidden]
        match self.family.gemma {
            true => Ok((words * (self.config.hidden_size as f64).sqrt())?),
            false => Ok(words),
        }
    }

    /// The states after the embedding layer and after each layer, which `each` is shown; the last of them, normalised.
    fn run(&self, batch: &PackedBatch, context: &Context, mut each: impl FnMut(&Tensor)) -> Result<Tensor> {
        let places = batch.longest();
        let angles = [0, 1].map(|kind| Arc::new(Rotary::with_speeds(&self.config.speeds[kind], places)));
        let pass =
            Arc::new(Pass { family: self.family, config: Arc::clone(&self.config), batch: batch.clone(), angles });
        let mut x = self.embed(batch, context)?;
        for layer in &self.layers {
            each(&x);
            x = match self.checkpointing {
                false => pass.layer(layer, &x, context)?,
                true => {
                    let (own, pass) = (Arc::clone(layer), Arc::clone(&pass));
                    ops::checkpoint(context, &x, layer.params(), move |x, context| pass.layer(&own, x, context))?
                }
            };
        }
        Ok(pass.normal(&x, &self.norm)?)
    }
}

impl Layer {
    fn params(&self) -> Vec<Arc<Param>> {
        let linear = [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down];
        let linear = linear.into_iter().flat_map(|layer| layer.bias.iter().chain([&layer.weight]));
        let norms = self.head_norms.iter().flatten().chain(&self.attention_norm).chain(&self.result_norm);
        linear.chain(norms).chain([&self.input_norm, &self.forward_norm]).map(Arc::clone).collect()
    }
}

/// What all layers have in common in a pass.
struct Pass {
    family: &'static Family,
    config: Arc<Config>,
    batch: PackedBatch,
    /// The angles of layers that see everything, then of those with a window.
    angles: [Arc<Rotary>; 2],
}

impl Pass {
    fn normal(&self, x: &Tensor, weight: &Arc<Param>) -> candle_core::Result<Tensor> {
        let shift = if self.family.gemma { 1.0 } else { 0.0 };
        ops::rms_norm(x, weight, shift, self.config.rms_norm_eps)
    }

    /// `[tokens, hidden]` to the same.
    fn layer(&self, layer: &Layer, x: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        let x = (x + self.attend(layer, x, context)?)?;
        &x + self.feed(layer, &x, context)?
    }

    fn sight(&self, local: bool) -> Sight {
        match (local, self.config.causal) {
            (false, true) => Sight::Before,
            (false, false) => Sight::All,
            (true, true) => Sight::Last(self.config.window),
            (true, false) => Sight::Near(self.config.window),
        }
    }

    /// `[tokens, pairs * head_dim]` to `[tokens, heads * head_dim]`: each head of keys or values as often as queries
    /// share it.
    fn repeat(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (heads, pairs, dim) =
            (self.config.num_attention_heads, self.config.num_key_value_heads, self.config.head_dim);
        if heads == pairs {
            return Ok(x.clone());
        }
        let tokens = x.dim(0)?;
        let shared = x.reshape((tokens, pairs, 1, dim))?.broadcast_as((tokens, pairs, heads / pairs, dim))?;
        shared.reshape((tokens, heads * dim))
    }

    /// What the first half of a layer adds, `[tokens, hidden]`.
    fn attend(&self, layer: &Layer, x: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        let (config, batch) = (&self.config, &self.batch);
        let linear = |x: &Tensor, layer: &Linear| ops::linear(context, x, &layer.weight, layer.bias.as_ref());
        let x = self.normal(x, &layer.input_norm)?;
        let (mut q, mut k, v) = (linear(&x, &layer.query)?, linear(&x, &layer.key)?, linear(&x, &layer.value)?);
        if let Some([of_queries, of_keys]) = &layer.head_norms {
            (q, k) = (self.normal(&q, of_queries)?, self.normal(&k, of_keys)?);
        }
        if config.query_scalar != config.head_dim as f64 {
            // attention divides by the root of the head's width
            q = (q * (config.head_dim as f64 / config.query_scalar).sqrt())?;
        }
        let qkv = Tensor::cat(&[q, self.repeat(&k)?, self.repeat(&v)?], 1)?; // [tokens, 3 * heads * head_dim]
        let (offsets, dropout) = ((&batch.offsets, &batch.attended[..]), context.dropout(config.attention_dropout));
        let (rotary, sight) = (&self.angles[usize::from(layer.local)], self.sight(layer.local));
        let seen = ops::rotary_attention_to(&qkv, offsets, config.num_attention_heads, rotary, sight, dropout)?;
        let added = linear(&seen, &layer.output)?;
        match &layer.attention_norm {
            Some(norm) => self.normal(&added, norm),
            None => Ok(added),
        }
    }

    /// What the second half of a layer adds, `[tokens, hidden]`.
    fn feed(&self, layer: &Layer, x: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        let linear = |x: &Tensor, layer: &Linear| ops::linear(context, x, &layer.weight, layer.bias.as_ref());
        let x = self.normal(x, &layer.forward_norm)?;
        let gate = ops::activation(&linear(&x, &layer.gate)?, self.config.activation)?;
        let added = linear(&(gate * linear(&x, &layer.up)?)?, &layer.down)?;
        match &layer.result_norm {
            Some(norm) => self.normal(&added, norm),
            None => Ok(added),
        }
    }
}

impl Backbone for LlamaLike {
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
        self.config.hidden_size
    }

    fn layers(&self) -> usize {
        self.layers.len()
    }

    fn activation_floats(&self) -> usize {
        // of the first half the normal input, queries, keys and values with their norms, side by side, what was seen,
        // what it adds (normalised, perhaps) and the sum; of the second the normal input, the gate before and after its
        // activation, what it lets through, the product, what is added and the sum; then the largest gradients that are
        // alive at once
        let config = &self.config;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (queries, pairs) =
            (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
        let norms =
            usize::from(self.family.head_norms) * (queries + pairs) + usize::from(self.family.gemma) * 2 * hidden;
        let layer = 6 * hidden + 6 * queries + 4 * pairs + 4 * inner + norms;
        let layers = self.layers.len();
        // a layer that is computed again has its input twice
        let kept = if self.checkpointing { layers * hidden + layer + hidden } else { layers * layer };
        kept + 4 * hidden + 6 * queries + 4 * inner
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.config.max_position_embeddings)
    }

    fn set_dropout(&mut self, probability: f64) {
        Arc::make_mut(&mut self.config).attention_dropout = probability;
    }

    fn set_checkpointing(&mut self) -> Result<()> {
        self.checkpointing = true;
        Ok(())
    }
}
