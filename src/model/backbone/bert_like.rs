//! The network of BERT and its relatives, as transformers has them without their poolers: what differs is names, what
//! tokens' embeddings are made of, and where positions begin.

pub mod config;
mod decoder;

use std::sync::Arc;

use candle_core::Tensor;

pub use self::config::Config;
use super::loader::{Dense, Loader, Tensors};
use super::{Backbone, Decoder, distances, mpnet};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::weights::Weights;
use crate::ops::{self, Context, Keep, Param};
use crate::util::seed::Rng;

/// How a family of networks differs from the others.
pub struct Family {
    /// In messages.
    pub name: &'static str,
    pub layer: LayerNames,
    /// Whether a token's type is what the tokenizer says; otherwise all tokens have the first.
    pub reads_types: bool,
    /// Whether the first position is that behind the number of the padding token.
    pub positions_after_padding: bool,
    /// Whether a layer may lead from embeddings to the first layer.
    pub projects: bool,
    /// Whether it can be a decoder.
    pub decoder: bool,
    /// The table, shared by all layers, of what attention adds to scores by distance.
    pub distances: Option<&'static str>,
}

/// What a layer's parts are called in checkpoints.
pub struct LayerNames {
    /// Stands before the layer's number.
    pub layer: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub intermediate: &'static str,
    pub output: &'static str,
    pub output_norm: &'static str,
}

impl LayerNames {
    pub const BERT: Self = Self {
        layer: "encoder.layer",
        query: "attention.self.query",
        key: "attention.self.key",
        value: "attention.self.value",
        attention_output: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        intermediate: "intermediate.dense",
        output: "output.dense",
        output_norm: "output.LayerNorm",
    };
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
pub struct BertLike {
    family: &'static Family,
    config: Config,
    word: Arc<Param>,
    position: Arc<Param>,
    token_type: Option<Arc<Param>>,
    /// `[buckets, heads]`
    distances: Option<Arc<Param>>,
    norm: Dense,
    projection: Option<Dense>,
    layers: Vec<Layer>,
    keep: Keep,
    tensors: Tensors,
}

impl BertLike {
    /// Takes the network's tensors out of `weights`; `prefix` stands before their names in messages and optimizer.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub fn load(family: &'static Family, config: Config, mut weights: Weights, prefix: &str) -> Result<Self> {
        weights.modernise();
        let mut load = Loader::new(weights, prefix);
        let (embedding, hidden, inner) = (config.embedding_size, config.hidden_size, config.intermediate_size);
        let word = load.param("embeddings.word_embeddings.weight", &[config.vocab_size, embedding])?;
        let position =
            load.param("embeddings.position_embeddings.weight", &[config.max_position_embeddings, embedding])?;
        let token_type = match config.type_vocab_size {
            0 => None,
            types => Some(load.param("embeddings.token_type_embeddings.weight", &[types, embedding])?),
        };
        let norm = load.norm("embeddings.LayerNorm", embedding)?;
        let projection = match embedding == hidden {
            true => None,
            false => Some(load.dense("embeddings_project", hidden, embedding)?),
        };
        let shape = [config.distance_buckets, config.num_attention_heads];
        let distances = family.distances.map(|name| load.param(name, &shape)).transpose()?;
        let names = &family.layer;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let at = |name: &str| format!("{}.{i}.{name}", names.layer);
            layers.push(Layer {
                query: load.dense(&at(names.query), hidden, hidden)?,
                key: load.dense(&at(names.key), hidden, hidden)?,
                value: load.dense(&at(names.value), hidden, hidden)?,
                attention_output: load.dense(&at(names.attention_output), hidden, hidden)?,
                attention_norm: load.norm(&at(names.attention_norm), hidden)?,
                intermediate: load.dense(&at(names.intermediate), inner, hidden)?,
                output: load.dense(&at(names.output), hidden, inner)?,
                output_norm: load.norm(&at(names.output_norm), hidden)?,
            });
        }
        let tensors = load.finish();
        let keep = Keep::All;
        Ok(Self { family, config, word, position, token_type, distances, norm, projection, layers, keep, tensors })
    }

    /// The token whose number positions begin behind.
    fn padding(&self) -> Option<u32> {
        self.config.pad_token_id.filter(|_| self.family.positions_after_padding)
    }

    /// How many tokens a text may have.
    fn positions(&self) -> usize {
        let unused = self.padding().map_or(0, |padding| padding as usize + 1);
        self.config.max_position_embeddings.saturating_sub(unused)
    }

    /// The row of the position table of every token: each text begins anew.
    fn position_ids(&self, batch: &PackedBatch) -> Vec<u32> {
        let mut positions = Vec::with_capacity(batch.tokens());
        for w in batch.offsets.windows(2) {
            match self.padding() {
                None => positions.extend(0..w[1] - w[0]),
                // a padding token in a text is not counted, and has the position of its number
                Some(padding) => {
                    let mut last = padding;
                    positions.extend(batch.ids[w[0] as usize..w[1] as usize].iter().map(|id| {
                        last += u32::from(*id != padding);
                        if *id == padding { padding } else { last }
                    }));
                }
            }
        }
        positions
    }

    fn embed(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let (longest, most) = (batch.longest(), self.positions());
        if longest > most {
            return Err(Error::model(format!("a text has {longest} tokens, the model has {most} positions"))
                .with_hint("set `model.max_seq_length` to at most that number"));
        }
        let mut tables =
            vec![(&self.word, Arc::clone(&batch.ids)), (&self.position, Arc::new(self.position_ids(batch)))];
        if let Some(table) = &self.token_type {
            // networks with one type of token give it to both texts
            let told = self.family.reads_types && self.config.type_vocab_size > 1 && !batch.types.is_empty();
            let types = if told { Arc::clone(&batch.types) } else { Arc::new(vec![0u32; batch.tokens()]) };
            tables.push((table, types));
        }
        let sum = ops::embedding_sum(context, &tables)?; // [tokens, embedding]
        let normal = ops::layer_norm(&sum, &self.norm.weight, &self.norm.bias, self.config.layer_norm_eps)?;
        let x = ops::dropout(&normal, context.dropout(self.config.hidden_dropout_prob))?;
        Ok(match &self.projection {
            Some(layer) => ops::linear(context, &x, &layer.weight, Some(&layer.bias))?, // [tokens, hidden]
            None => x,
        })
    }

    /// What distances add to scores, for the sequences of a batch.
    fn relative(&self, batch: &PackedBatch) -> Result<Option<ops::Relative>> {
        let Some(table) = &self.distances else { return Ok(None) };
        let rows = Arc::new(distances::rows(batch.longest(), mpnet::BUCKETS, mpnet::FARTHEST));
        Ok(Some(ops::Relative::new(table, &rows)?))
    }

    /// `[tokens, hidden]` through some layers.
    fn through(
        &self,
        layers: &[Layer],
        x: &Tensor,
        batch: &PackedBatch,
        relative: Option<&ops::Relative>,
        context: &Context,
    ) -> Result<Tensor> {
        let composed = layers.first().is_some_and(|layer| layer.query.weight.composed());
        if self.keep == Keep::Input && composed {
            let mut x = x.clone();
            for layer in layers {
                let (config, own, batch) = (self.config.clone(), layer.clone(), batch.clone());
                let relative = relative.cloned();
                let table = self.distances.iter().map(Arc::clone);
                let params = layer.params().into_iter().chain(table).collect();
                x = ops::checkpoint(context, &x, params, move |x, context| {
                    let part = own.part(&config, &batch, relative.as_ref(), context);
                    ops::encoder(context, x, &batch.offsets, &[part], Keep::All)
                })?;
            }
            return Ok(x);
        }
        let parts: Vec<_> = layers.iter().map(|layer| layer.part(&self.config, batch, relative, context)).collect();
        Ok(ops::encoder(context, x, &batch.offsets, &parts, self.keep)?)
    }
}

impl Layer {
    fn params(&self) -> Vec<Arc<Param>> {
        let all = [
            &self.query,
            &self.key,
            &self.value,
            &self.attention_output,
            &self.attention_norm,
            &self.intermediate,
            &self.output,
            &self.output_norm,
        ];
        all.into_iter().flat_map(|dense| [Arc::clone(&dense.weight), Arc::clone(&dense.bias)]).collect()
    }

    /// Its parameters, and the dropouts of this pass.
    fn part<'a>(
        &'a self,
        config: &Config,
        batch: &'a PackedBatch,
        relative: Option<&'a ops::Relative>,
        context: &Context,
    ) -> ops::EncoderLayer<'a> {
        ops::EncoderLayer {
            attention: ops::SelfAttention {
                query: self.query.pair(),
                key: self.key.pair(),
                value: self.value.pair(),
                output: self.attention_output.pair(),
                norm: self.attention_norm.pair(),
                eps: config.layer_norm_eps,
                heads: config.num_attention_heads,
                relative,
                attended: &batch.attended,
                probability_dropout: context.dropout(config.attention_probs_dropout_prob),
                dropout: context.dropout(config.hidden_dropout_prob),
            },
            feed_forward: ops::FeedForward {
                inner: self.intermediate.pair(),
                activation: config.hidden_act,
                outer: self.output.pair(),
                norm: self.output_norm.pair(),
                eps: config.layer_norm_eps,
                dropout: context.dropout(config.hidden_dropout_prob),
            },
        }
    }
}

impl Backbone for BertLike {
    fn forward(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let (x, relative) = (self.embed(batch, context)?, self.relative(batch)?);
        self.through(&self.layers, &x, batch, relative.as_ref(), context)
    }

    fn forward_layers(&self, batch: &PackedBatch, context: &Context) -> Result<Vec<Tensor>> {
        let relative = self.relative(batch)?;
        let mut all = vec![self.embed(batch, context)?];
        for layer in &self.layers {
            let Some(x) = all.last() else { break };
            let y = self.through(std::slice::from_ref(layer), x, batch, relative.as_ref(), context)?;
            all.push(y);
        }
        Ok(all)
    }

    fn forward_some(&self, batch: &PackedBatch, layers: &[usize], context: &Context) -> Result<Vec<Tensor>> {
        // as few operations as there are cuts: within each of them nothing is kept between layers
        let mut cuts: Vec<usize> = layers.iter().copied().chain([0, self.layers.len()]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let relative = self.relative(batch)?;
        let mut states = vec![(0, self.embed(batch, context)?)];
        for ends in cuts.windows(2) {
            let Some((_, x)) = states.last() else { break };
            let parts = self.layers.get(ends[0]..ends[1]).unwrap_or_default();
            let y = self.through(parts, x, batch, relative.as_ref(), context)?;
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

    fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    fn tensors_mut(&mut self) -> &mut Tensors {
        &mut self.tensors
    }

    fn rows(&self, batch: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)> {
        let positions = match self.padding() {
            None => (0..batch.longest() as u32).collect(),
            Some(_) => {
                let mut positions = self.position_ids(batch);
                positions.sort_unstable();
                positions.dedup();
                positions
            }
        };
        let mut rows = vec![(Arc::clone(&self.word), batch.ids.to_vec()), (Arc::clone(&self.position), positions)];
        if let Some(table) = &self.token_type {
            let both = self.family.reads_types && batch.types.contains(&1);
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
        self.floats()
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.positions())
    }

    fn set_dropout(&mut self, probability: f64) {
        self.config.hidden_dropout_prob = probability;
        self.config.attention_probs_dropout_prob = probability;
    }

    fn set_checkpointing(&mut self) -> Result<()> {
        self.keep = Keep::Input;
        Ok(())
    }

    fn decoder(&self, prefix: &str, rng: Rng) -> Result<Box<dyn Decoder>> {
        if !self.family.decoder {
            return Err(Error::model(format!("a {} network cannot be a decoder", self.family.name))
                .with_hint("BERT networks can"));
        }
        Ok(Box::new(decoder::BertDecoder::new(self.clone(), prefix, rng)?))
    }
}

impl BertLike {
    fn floats(&self) -> usize {
        // query, key, value, attention, and the sums of both norms; the inner layer before its activation; then the
        // embeddings' steps and the largest gradients that are alive at once
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let (layers, layer) = (self.config.num_hidden_layers, 6 * hidden + inner);
        let kept = match self.keep {
            Keep::All => layers * layer,
            Keep::Input => layers * hidden + layer,
        };
        kept + 8 * hidden + inner
    }
}
