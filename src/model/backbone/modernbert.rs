//! ModernBERT (Warner et al., 2024, <https://arxiv.org/abs/2412.13663>), as transformers' `ModernBertModel`: each half of
//! a layer normalises its input and adds to it; tokens are placed by turning queries and keys; in most layers a token
//! sees its neighbours only.

mod config;

use std::sync::Arc;

use candle_core::Tensor;

pub use self::config::{Config, keep_layer_types};
use super::Backbone;
use super::loader::{Dense, Linear, Loader, Tensors};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::weights::Weights;
use crate::ops::{self, Context, Param, Rotary, Sight};

struct Layer {
    /// The first layer's input is normalised already.
    attn_norm: Option<Dense>,
    qkv: Linear,
    attn_out: Linear,
    mlp_norm: Dense,
    inner: Linear,
    outer: Linear,
    /// Whether a token sees its neighbours only.
    local: bool,
}

/// The network.
pub struct ModernBert {
    config: Arc<Config>,
    word: Arc<Param>,
    norm: Dense,
    layers: Vec<Arc<Layer>>,
    final_norm: Dense,
    /// Whether a layer keeps its input alone, and is computed again for its gradient.
    checkpointing: bool,
    tensors: Tensors,
}

/// What layers of one kind have in common in a pass.
struct Attention {
    rotary: Arc<Rotary>,
    sight: Sight,
}

impl ModernBert {
    /// Takes the network's tensors out of `weights`; `prefix` stands before their names in messages and optimizer.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub fn load(config: Config, weights: Weights, prefix: &str) -> Result<Self> {
        let mut load = Loader::new(weights, prefix);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let word = load.param("embeddings.tok_embeddings.weight", &[config.vocab_size, hidden])?;
        let norm = load.norm_with("embeddings.norm", hidden, config.norm_bias)?;
        let mut layers = Vec::with_capacity(config.local.len());
        for (i, local) in config.local.iter().enumerate() {
            let at = |name: &str| format!("layers.{i}.{name}");
            layers.push(Arc::new(Layer {
                attn_norm: match i {
                    0 => None,
                    _ => Some(load.norm_with(&at("attn_norm"), hidden, config.norm_bias)?),
                },
                qkv: load.linear(&at("attn.Wqkv"), 3 * hidden, hidden, config.attention_bias)?,
                attn_out: load.linear(&at("attn.Wo"), hidden, hidden, config.attention_bias)?,
                mlp_norm: load.norm_with(&at("mlp_norm"), hidden, config.norm_bias)?,
                inner: load.linear(&at("mlp.Wi"), 2 * inner, hidden, config.mlp_bias)?,
                outer: load.linear(&at("mlp.Wo"), hidden, inner, config.mlp_bias)?,
                local: *local,
            }));
        }
        let final_norm = load.norm_with("final_norm", hidden, config.norm_bias)?;
        let tensors = load.finish();
        let config = Arc::new(config);
        Ok(Self { config, word, norm, layers, final_norm, checkpointing: false, tensors })
    }

    fn normal(&self, x: &Tensor, norm: &Dense) -> Result<Tensor> {
        Ok(ops::layer_norm(x, &norm.weight, &norm.bias, self.config.norm_eps)?)
    }

    fn embed(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let (longest, most) = (batch.longest(), self.config.max_position_embeddings);
        if longest > most {
            return Err(Error::model(format!("a text has {longest} tokens, the model has {most} positions"))
                .with_hint("set `model.max_seq_length` to at most that number"));
        }
        let words = ops::embedding_sum(context, &[(&self.word, Arc::clone(&batch.ids))])?; // [tokens, hidden]
        let x = self.normal(&words, &self.norm)?;
        Ok(ops::dropout(&x, context.dropout(self.config.embedding_dropout))?)
    }

    fn pass(&self, batch: &PackedBatch) -> Pass {
        let config = &self.config;
        let head_dim = config.hidden_size / config.num_attention_heads;
        let rotary = |theta: f64| Arc::new(Rotary::new(theta, head_dim, batch.longest()));
        Pass {
            config: Arc::clone(config),
            batch: batch.clone(),
            global: Attention { rotary: rotary(config.global_rope_theta), sight: Sight::All },
            local: Attention {
                rotary: rotary(config.local_rope_theta),
                sight: Sight::Near(config.local_attention / 2),
            },
        }
    }

    /// `[tokens, hidden]` to the same.
    fn layer(&self, layer: &Arc<Layer>, x: &Tensor, pass: &Arc<Pass>, context: &Context) -> Result<Tensor> {
        if !self.checkpointing {
            return Ok(pass.layer(layer, x, context)?);
        }
        let (own, pass) = (Arc::clone(layer), Arc::clone(pass));
        Ok(ops::checkpoint(context, x, layer.params(), move |x, context| pass.layer(&own, x, context))?)
    }
}

impl Layer {
    fn params(&self) -> Vec<Arc<Param>> {
        let norms = self.attn_norm.iter().chain([&self.mlp_norm]).flat_map(|norm| [&norm.weight, &norm.bias]);
        let layers = [&self.qkv, &self.attn_out, &self.inner, &self.outer];
        let layers = layers.into_iter().flat_map(|layer| layer.bias.iter().chain([&layer.weight]));
        norms.chain(layers).map(Arc::clone).collect()
    }
}

/// What all layers have in common in a pass.
struct Pass {
    config: Arc<Config>,
    batch: PackedBatch,
    /// Of layers that see everything.
    global: Attention,
    /// Of layers that see a token's neighbours.
    local: Attention,
}

impl Pass {
    fn layer(&self, layer: &Layer, x: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        let Self { config, batch, .. } = self;
        let linear = |x: &Tensor, layer: &Linear| ops::linear(context, x, &layer.weight, layer.bias.as_ref());
        let normal = |x: &Tensor, norm: &Dense| ops::layer_norm(x, &norm.weight, &norm.bias, config.norm_eps);
        let Attention { rotary, sight } = if layer.local { &self.local } else { &self.global };
        let before = layer.attn_norm.as_ref().map(|norm| normal(x, norm)).transpose()?;
        let qkv = linear(before.as_ref().unwrap_or(x), &layer.qkv)?; // [tokens, 3 * hidden]
        let heads = config.num_attention_heads;
        let dropout = context.dropout(config.attention_dropout);
        let seen = ops::rotary_attention_to(&qkv, (&batch.offsets, &batch.attended), heads, rotary, *sight, dropout)?;
        let seen = linear(&seen, &layer.attn_out)?;
        let x = (x + ops::dropout(&seen, context.dropout(config.attention_dropout))?)?;
        let inner = linear(&normal(&x, &layer.mlp_norm)?, &layer.inner)?; // [tokens, 2 * inner]
        let inner = ops::gated(&inner, config.hidden_activation)?;
        let inner = ops::dropout(&inner, context.dropout(config.mlp_dropout))?;
        x + linear(&inner, &layer.outer)?
    }
}

impl Backbone for ModernBert {
    fn forward(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let pass = Arc::new(self.pass(batch));
        let mut x = self.embed(batch, context)?;
        for layer in &self.layers {
            x = self.layer(layer, &x, &pass, context)?;
        }
        self.normal(&x, &self.final_norm)
    }

    fn forward_layers(&self, batch: &PackedBatch, context: &Context) -> Result<Vec<Tensor>> {
        let pass = Arc::new(self.pass(batch));
        let mut x = self.embed(batch, context)?;
        let mut all = vec![x.clone()];
        for layer in &self.layers {
            x = self.layer(layer, &x, &pass, context)?;
            all.push(x.clone());
        }
        // only the last layer's states are normalised
        if let Some(last) = all.last_mut() {
            *last = self.normal(&x, &self.final_norm)?;
        }
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
        // of the first half the normal input, queries, keys, values, what was seen, its layer's result and the sum; of
        // the second the normal input, both parts of the inner layer, their product, the result and the sum; then the
        // embeddings' steps and the largest gradients that are alive at once
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let (layers, layer) = (self.layers.len(), 10 * hidden + 3 * inner);
        // a layer that is computed again has its input twice
        let kept = if self.checkpointing { layers * hidden + layer + hidden } else { layers * layer };
        kept + 8 * hidden + 4 * inner
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.config.max_position_embeddings)
    }

    fn set_dropout(&mut self, probability: f64) {
        let config = Arc::make_mut(&mut self.config);
        config.embedding_dropout = probability;
        config.attention_dropout = probability;
        config.mlp_dropout = probability;
    }

    fn set_checkpointing(&mut self) -> Result<()> {
        self.checkpointing = true;
        Ok(())
    }
}
