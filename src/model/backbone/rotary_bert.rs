//! BERT whose queries and keys are turned by their places, and whose inner layer has a gate: NomicBERT and GTE, which
//! differ in names and biases.

use std::sync::Arc;

use candle_core::Tensor;

use super::Backbone;
use super::loader::{Dense, Linear, Loader, Tensors};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::weights::Weights;
use crate::ops::{self, Activation, Context, Param, Rotary, Sight};

/// What the network is like.
#[derive(Debug, Clone)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    /// Rows of the table; 0 for no table.
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: Activation,
    pub embedding_dropout: f64,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    /// Of what the gate lets through, where it is dropped at all.
    pub inner_dropout: Option<f64>,
    /// Whether queries, keys, values and the attention's output have biases; the gated layer; the last.
    pub attention_bias: bool,
    pub inner_bias: bool,
    pub outer_bias: bool,
    pub rope_theta: f64,
    /// All angles are divided by it.
    pub rope_slowed: f64,
    /// Whether a new network has the last of the family's names.
    pub old_names: bool,
}

/// How checkpoints call the parts.
pub struct Names {
    /// The embeddings' normalisation.
    pub norm: &'static str,
    /// Stands before the layer's number.
    pub layer: &'static str,
    /// Queries, keys and values: three layers, or one.
    pub qkv: &'static [&'static str],
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    /// The gate, then what it is multiplied with; or one layer, in which the gate comes last.
    pub inner: &'static [&'static str],
    pub outer: &'static str,
    pub output_norm: &'static str,
}

impl Names {
    /// As transformers has them.
    pub const NATIVE: Self = Self {
        norm: "embeddings.LayerNorm",
        layer: "layers",
        qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        attention_output: "self_attn.o_proj",
        attention_norm: "post_attention_layernorm",
        inner: &["mlp.gate_proj", "mlp.up_proj"],
        outer: "mlp.down_proj",
        output_norm: "post_mlp_layernorm",
    };
}

/// How a family of networks differs from the others.
pub struct Family {
    /// What else may stand before the names of a checkpoint with a head.
    pub prefixes: &'static [&'static str],
    /// The names that checkpoints may have; they are saved by those that were found.
    pub names: &'static [Names],
}

struct Layer {
    qkv: Vec<Linear>,
    attention_output: Linear,
    attention_norm: Dense,
    inner: Vec<Linear>,
    outer: Linear,
    output_norm: Dense,
}

/// The network.
pub struct RotaryBert {
    config: Arc<Config>,
    word: Arc<Param>,
    token_type: Option<Arc<Param>>,
    norm: Dense,
    layers: Vec<Arc<Layer>>,
    /// Whether a layer keeps its input alone, and is computed again for its gradient.
    checkpointing: bool,
    tensors: Tensors,
}

/// What all layers have in common in a pass.
struct Pass {
    config: Arc<Config>,
    batch: PackedBatch,
    rotary: Arc<Rotary>,
}

/// Refuses heads of which no pairs of values can be turned, or that do not share the width.
///
/// # Errors
/// Then.
pub fn check_head_dim(told: Option<usize>, head_dim: usize) -> Result<()> {
    if told.is_some_and(|told| told != head_dim) {
        return Err(Error::model(format!("`head_dim` is not {head_dim}"))
            .with_hint("only heads that share `hidden_size` are supported: leave it out"));
    }
    if head_dim.is_multiple_of(2) {
        return Ok(());
    }
    Err(Error::model(format!("heads have {head_dim} values, an odd number"))
        .with_hint("rotary positions turn pairs of them: change the width or the number of heads"))
}

impl RotaryBert {
    /// Takes the network's tensors out of `weights`; `prefix` stands before their names in messages and optimizer.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub fn load(family: &'static Family, config: Config, mut weights: Weights, prefix: &str) -> Result<Self> {
        family.prefixes.iter().for_each(|prefix| weights.strip_prefix(prefix));
        let there = |n: &&Names| n.qkv.iter().any(|name| weights.contains(&format!("{}.0.{name}.weight", n.layer)));
        let usual = if config.old_names { family.names.last() } else { family.names.first() };
        let names = family.names.iter().find(there).or(usual).unwrap_or(&Names::NATIVE);
        let mut load = Loader::new(weights, prefix);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let word = load.param("embeddings.word_embeddings.weight", &[config.vocab_size, hidden])?;
        let token_type = match config.type_vocab_size {
            0 => None,
            types => Some(load.param("embeddings.token_type_embeddings.weight", &[types, hidden])?),
        };
        let norm = load.norm(names.norm, hidden)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let at = |name: &str| format!("{}.{i}.{name}", names.layer);
            let mut several = |parts: &[&str], all: usize, bias: bool| -> Result<Vec<Linear>> {
                parts.iter().map(|name| load.linear(&at(name), all / parts.len(), hidden, bias)).collect()
            };
            layers.push(Arc::new(Layer {
                qkv: several(names.qkv, 3 * hidden, config.attention_bias)?,
                inner: several(names.inner, 2 * inner, config.inner_bias)?,
                attention_output: load.linear(&at(names.attention_output), hidden, hidden, config.attention_bias)?,
                attention_norm: load.norm(&at(names.attention_norm), hidden)?,
                outer: load.linear(&at(names.outer), hidden, inner, config.outer_bias)?,
                output_norm: load.norm(&at(names.output_norm), hidden)?,
            }));
        }
        let tensors = load.finish();
        Ok(Self { config: Arc::new(config), word, token_type, norm, layers, checkpointing: false, tensors })
    }

    /// Whether the tokenizer's types of tokens count.
    fn told(&self, batch: &PackedBatch) -> bool {
        self.config.type_vocab_size > 1 && !batch.types.is_empty()
    }

    fn embed(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let (longest, most) = (batch.longest(), self.config.max_position_embeddings);
        if longest > most {
            return Err(Error::model(format!("a text has {longest} tokens, the model has {most} positions"))
                .with_hint("set `model.max_seq_length` to at most that number"));
        }
        let mut tables = vec![(&self.word, Arc::clone(&batch.ids))];
        if let Some(table) = &self.token_type {
            let types = if self.told(batch) { Arc::clone(&batch.types) } else { Arc::new(vec![0; batch.tokens()]) };
            tables.push((table, types));
        }
        let sum = ops::embedding_sum(context, &tables)?; // [tokens, hidden]
        let normal = ops::layer_norm(&sum, &self.norm.weight, &self.norm.bias, self.config.layer_norm_eps)?;
        Ok(ops::dropout(&normal, context.dropout(self.config.embedding_dropout))?)
    }

    /// The last layer's states; the embedding layer's, then each layer's, go to `keep`.
    fn run(&self, batch: &PackedBatch, context: &Context, mut keep: impl FnMut(&Tensor)) -> Result<Tensor> {
        let config = &self.config;
        let head_dim = config.hidden_size / config.num_attention_heads;
        let rotary = Arc::new(Rotary::slowed(config.rope_theta, config.rope_slowed, head_dim, batch.longest()));
        let pass = Arc::new(Pass { config: Arc::clone(config), batch: batch.clone(), rotary });
        let mut x = self.embed(batch, context)?;
        keep(&x);
        for layer in &self.layers {
            x = match self.checkpointing {
                false => pass.layer(layer, &x, context)?,
                true => {
                    let (own, pass) = (Arc::clone(layer), Arc::clone(&pass));
                    ops::checkpoint(context, &x, layer.params(), move |x, context| pass.layer(&own, x, context))?
                }
            };
            keep(&x);
        }
        Ok(x)
    }
}

impl Layer {
    fn params(&self) -> Vec<Arc<Param>> {
        let norms = [&self.attention_norm, &self.output_norm].into_iter().flat_map(|norm| [&norm.weight, &norm.bias]);
        let layers = self.qkv.iter().chain(&self.inner).chain([&self.attention_output, &self.outer]);
        let layers = layers.flat_map(|layer| layer.bias.iter().chain([&layer.weight]));
        norms.chain(layers).map(Arc::clone).collect()
    }
}

impl Pass {
    /// `[tokens, hidden]` to the same.
    fn layer(&self, layer: &Layer, x: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        let Self { config, batch, rotary } = self;
        let several = |x: &Tensor, layers: &[Linear]| {
            let layers: Vec<_> = layers.iter().map(|layer| (&layer.weight, layer.bias.as_ref())).collect();
            ops::linears(context, x, &layers)
        };
        let linear = |x: &Tensor, layer: &Linear| ops::linear(context, x, &layer.weight, layer.bias.as_ref());
        let add = |y: &Tensor, x: &Tensor, norm: &Dense| {
            let dropout = context.dropout(config.hidden_dropout_prob);
            ops::residual_layer_norm(y, x, dropout, &norm.weight, &norm.bias, config.layer_norm_eps)
        };
        let qkv = several(x, &layer.qkv)?; // [tokens, 3 * hidden]
        let (heads, dropout) = (config.num_attention_heads, context.dropout(config.attention_probs_dropout_prob));
        let sequences = (&batch.offsets, batch.attended.as_slice());
        let seen = ops::rotary_attention_to(&qkv, sequences, heads, rotary, Sight::All, dropout)?;
        let x = add(&linear(&seen, &layer.attention_output)?, x, &layer.attention_norm)?;
        let inner = several(&x, &layer.inner)?; // [tokens, 2 * inner]
        let inner = match layer.inner.len() {
            1 => ops::gated_last(&inner, config.hidden_act)?,
            _ => ops::gated(&inner, config.hidden_act)?,
        };
        let inner = ops::dropout(&inner, context.dropout(config.inner_dropout.unwrap_or(0.0)))?;
        add(&linear(&inner, &layer.outer)?, &x, &layer.output_norm)
    }
}

impl Backbone for RotaryBert {
    fn forward(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        self.run(batch, context, |_| {})
    }

    fn forward_layers(&self, batch: &PackedBatch, context: &Context) -> Result<Vec<Tensor>> {
        let mut all = Vec::with_capacity(self.layers.len() + 1);
        self.run(batch, context, |x| all.push(x.clone()))?;
        Ok(all)
    }

    fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    fn tensors_mut(&mut self) -> &mut Tensors {
        &mut self.tensors
    }

    fn rows(&self, batch: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)> {
        let mut rows = vec![(Arc::clone(&self.word), batch.ids.to_vec())];
        if let Some(table) = &self.token_type {
            let both = self.told(batch) && batch.types.contains(&1);
            rows.push((Arc::clone(table), if both { vec![0, 1] } else { vec![0] }));
        }
        rows
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
        // queries, keys, values, what was seen, its layer's result, the standardised sum and the sum's norm; both parts
        // of the inner layer and their product; the last layer's result, its standardised sum and its norm; then the
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
        config.hidden_dropout_prob = probability;
        config.attention_probs_dropout_prob = probability;
        config.inner_dropout = config.inner_dropout.map(|_| probability);
    }

    fn set_checkpointing(&mut self) -> Result<()> {
        self.checkpointing = true;
        Ok(())
    }
}
