//! DeBERTa-v2 and v3 (He et al., 2021, <https://arxiv.org/abs/2006.03654> and <https://arxiv.org/abs/2111.09543>), as
//! transformers' `DebertaV2Model`: BERT's layers, whose tokens know places by distances only, of which query and key
//! both make something.

mod config;

use std::sync::Arc;

use candle_core::Tensor;

pub use self::config::Config;
use super::Backbone;
use super::loader::{Dense, Loader, Tensors};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::weights::Weights;
use crate::ops::{self, Context, Disentangled, Dropout, Param};

struct Layer {
    query: Dense,
    key: Dense,
    value: Dense,
    /// What makes keys and queries of the rows of distances, where there are such terms.
    positions: Vec<Dense>,
    attention_output: Dense,
    attention_norm: Dense,
    intermediate: Dense,
    output: Dense,
    output_norm: Dense,
}

/// The convolution over neighbours beside the first layer.
struct Conv {
    /// `[hidden, hidden, kernel]`
    weight: Arc<Param>,
    bias: Arc<Param>,
    norm: Dense,
}

/// The network.
pub struct Deberta {
    config: Arc<Config>,
    word: Arc<Param>,
    position: Option<Arc<Param>>,
    token_type: Option<Arc<Param>>,
    projection: Option<Arc<Param>>,
    norm: Dense,
    /// `[rows of distances, hidden]`
    distances: Arc<Param>,
    distances_norm: Option<Dense>,
    conv: Option<Conv>,
    layers: Vec<Arc<Layer>>,
    /// Whether a layer keeps its input alone, and is computed again for its gradient.
    checkpointing: bool,
    tensors: Tensors,
}

/// What all layers know of a batch's distances.
struct Relative {
    /// `[rows that occur, hidden]`
    rows: Tensor,
    distances: Arc<Disentangled>,
}

/// What all layers have in common in a pass.
struct Pass {
    config: Arc<Config>,
    batch: PackedBatch,
    relative: Relative,
}

impl Deberta {
    /// Takes the network's tensors out of `weights`; `prefix` stands before their names in messages and optimizer.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub fn load(config: Config, weights: Weights, prefix: &str) -> Result<Self> {
        let mut load = Loader::new(weights, prefix);
        let (embedding, hidden, inner) = (config.embedding_size, config.hidden_size, config.intermediate_size);
        let word = load.param("embeddings.word_embeddings.weight", &[config.vocab_size, embedding])?;
        let positions = [config.max_position_embeddings, embedding];
        let mut table = |wanted: bool, name: &str, shape: &[usize]| -> Result<Option<Arc<Param>>> {
            wanted.then(|| load.param(&format!("{name}.weight"), shape)).transpose()
        };
        let position = table(config.position_biased_input, "embeddings.position_embeddings", &positions)?;
        let types = [config.type_vocab_size, embedding];
        let token_type = table(config.type_vocab_size > 0, "embeddings.token_type_embeddings", &types)?;
        let projection = table(embedding != hidden, "embeddings.embed_proj", &[hidden, embedding])?;
        let norm = load.norm("embeddings.LayerNorm", hidden)?;
        let distances = load.param("encoder.rel_embeddings.weight", &[config.distances.rows(), hidden])?;
        let distances_norm = config.norm_distances.then(|| load.norm("encoder.LayerNorm", hidden)).transpose()?;
        let conv = match &config.conv {
            None => None,
            Some(conv) => Some(Conv {
                weight: load.param("encoder.conv.conv.weight", &[hidden, hidden, conv.kernel])?,
                bias: load.param("encoder.conv.conv.bias", &[hidden])?,
                norm: load.norm("encoder.conv.LayerNorm", hidden)?,
            }),
        };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let at = |name: &str| format!("encoder.layer.{i}.{name}");
            let query = load.dense(&at("attention.self.query_proj"), hidden, hidden)?;
            let key = load.dense(&at("attention.self.key_proj"), hidden, hidden)?;
            let terms = [
                (config.content_to_position, "attention.self.pos_key_proj", &key),
                (config.position_to_content, "attention.self.pos_query_proj", &query),
            ];
            let positions = terms.into_iter().filter(|(wanted, _, _)| *wanted).map(|(_, name, shared)| {
                if config.share_att_key { Ok(shared.clone()) } else { load.dense(&at(name), hidden, hidden) }
            });
            layers.push(Arc::new(Layer {
                positions: positions.collect::<Result<_>>()?,
                query,
                key,
                value: load.dense(&at("attention.self.value_proj"), hidden, hidden)?,
                attention_output: load.dense(&at("attention.output.dense"), hidden, hidden)?,
                attention_norm: load.norm(&at("attention.output.LayerNorm"), hidden)?,
                intermediate: load.dense(&at("intermediate.dense"), inner, hidden)?,
                output: load.dense(&at("output.dense"), hidden, inner)?,
                output_norm: load.norm(&at("output.LayerNorm"), hidden)?,
            }));
        }
        let tensors = load.finish();
        Ok(Self {
            config: Arc::new(config),
            word,
            position,
            token_type,
            projection,
            norm,
            distances,
            distances_norm,
            conv,
            layers,
            checkpointing: false,
            tensors,
        })
    }

    fn embed(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let (longest, most) = (batch.longest(), self.config.max_position_embeddings);
        if longest > most {
            return Err(Error::model(format!("a text has {longest} tokens, the model has {most} positions"))
                .with_hint("set `model.max_seq_length` to at most that number"));
        }
        if batch.attended.iter().zip(batch.offsets.windows(2)).any(|(attended, w)| *attended < w[1] - w[0]) {
            return Err(Error::model("a DeBERTa network looks at every token of a text")
                .with_hint("set `attend = true` in `query_expansion`"));
        }
        let mut tables = vec![(&self.word, Arc::clone(&batch.ids))];
        if let Some(table) = &self.position {
            tables.push((table, Arc::new(batch.offsets.windows(2).flat_map(|w| 0..w[1] - w[0]).collect())));
        }
        if let Some(table) = &self.token_type {
            let told = self.config.type_vocab_size > 1 && !batch.types.is_empty();
            let types = if told { Arc::clone(&batch.types) } else { Arc::new(vec![0u32; batch.tokens()]) };
            tables.push((table, types));
        }
        let sum = ops::embedding_sum(context, &tables)?; // [tokens, embedding]
        let wide = match &self.projection {
            Some(weight) => ops::linear(context, &sum, weight, None)?, // [tokens, hidden]
            None => sum,
        };
        let normal = self.normal(&wide, &self.norm)?;
        Ok(ops::dropout(&normal, context.dropout(self.config.hidden_dropout_prob))?)
    }

    fn normal(&self, x: &Tensor, norm: &Dense) -> Result<Tensor> {
        Ok(ops::layer_norm(x, &norm.weight, &norm.bias, self.config.layer_norm_eps)?)
    }

    /// The row of every distance between two tokens of a batch, from the key farthest before its query on.
    fn rows_of_distances(&self, batch: &PackedBatch) -> Vec<u32> {
        let reach = batch.longest().saturating_sub(1) as i64;
        (-reach..=reach).map(|behind| self.config.distances.row(-behind)).collect()
    }

    /// The rows that a batch's distances have, without those between which there are none.
    fn relative(&self, batch: &PackedBatch, context: &Context) -> Result<Relative> {
        let rows = self.rows_of_distances(batch);
        let first = rows.iter().copied().min().unwrap_or(0);
        let ids = Arc::new((first..=rows.iter().copied().max().unwrap_or(0)).collect());
        let near = ops::embedding_sum(context, &[(&self.distances, ids)])?;
        let (config, rows) = (&self.config, rows.into_iter().map(|row| row - first).collect());
        let distances = Disentangled::new(rows, config.content_to_position, config.position_to_content)?;
        let rows = match &self.distances_norm {
            Some(norm) => self.normal(&near, norm)?,
            None => near,
        };
        Ok(Relative { rows, distances: Arc::new(distances) })
    }

    /// The first layer's result and what a convolution makes of its input, normalised.
    fn convolve(
        &self,
        conv: &Conv,
        input: &Tensor,
        y: &Tensor,
        batch: &PackedBatch,
        context: &Context,
    ) -> Result<Tensor> {
        let &[out, width, kernel] = conv.weight.dims() else {
            return Err(Error::Internal(format!("a convolution is {:?}", conv.weight.dims())));
        };
        let windows = ops::windows(input, &batch.offsets, kernel)?;
        let weight = ops::parameter(context, &conv.weight)?.reshape((out, width * kernel))?;
        let seen = ops::dot_products(&windows, &weight)?.broadcast_add(&ops::parameter(context, &conv.bias)?)?;
        let seen = ops::dropout(&seen, context.dropout(self.config.hidden_dropout_prob))?;
        let seen = match &self.config.conv {
            Some(conv) => ops::activation(&seen, conv.activation)?,
            None => seen,
        };
        let (weight, bias) = conv.norm.pair();
        Ok(ops::residual_layer_norm(&seen, y, Dropout::NONE, weight, bias, self.config.layer_norm_eps)?)
    }

    /// The embedding layer's states, then each layer's to `keep`.
    fn run(&self, batch: &PackedBatch, context: &Context, mut keep: impl FnMut(&Tensor)) -> Result<Tensor> {
        let mut x = self.embed(batch, context)?;
        let relative = self.relative(batch, context)?;
        let pass = Arc::new(Pass { config: Arc::clone(&self.config), batch: batch.clone(), relative });
        keep(&x);
        for (i, layer) in self.layers.iter().enumerate() {
            let y = match self.checkpointing {
                false => pass.layer(layer, &x, &pass.relative.rows, context)?,
                true => {
                    // what is computed again has one input, and the rows of distances have gradients, too
                    let both = Tensor::cat(&[&x, &pass.relative.rows], 0)?;
                    let (own, pass) = (Arc::clone(layer), Arc::clone(&pass));
                    ops::checkpoint(context, &both, layer.params(), move |both, context| {
                        let tokens = pass.batch.tokens();
                        let rows = both.narrow(0, tokens, both.dim(0)? - tokens)?;
                        pass.layer(&own, &both.narrow(0, 0, tokens)?, &rows, context)
                    })?
                }
            };
            x = match &self.conv {
                Some(conv) if i == 0 => self.convolve(conv, &x, &y, batch, context)?,
                _ => y,
            };
            keep(&x);
        }
        Ok(x)
    }
}

impl Layer {
    fn params(&self) -> Vec<Arc<Param>> {
        let layers = [&self.query, &self.key, &self.value, &self.attention_output, &self.intermediate, &self.output];
        let norms = [&self.attention_norm, &self.output_norm];
        let all = layers.into_iter().chain(&self.positions).chain(norms);
        // keys and queries of distances may be those of tokens
        let mut params: Vec<Arc<Param>> = Vec::new();
        for param in all.flat_map(|dense| [&dense.weight, &dense.bias]) {
            if !params.iter().any(|other| Arc::ptr_eq(other, param)) {
                params.push(Arc::clone(param));
            }
        }
        params
    }
}

impl Pass {
    /// `[tokens, hidden]` to the same; `rows` are those of the distances, `[rows, hidden]`.
    fn layer(&self, layer: &Layer, x: &Tensor, rows: &Tensor, context: &Context) -> candle_core::Result<Tensor> {
        let Self { config, batch, relative } = self;
        let dropout = || context.dropout(config.hidden_dropout_prob);
        let several = |x: &Tensor, layers: &[&Dense]| {
            let layers: Vec<_> = layers.iter().map(|layer| (&layer.weight, Some(&layer.bias))).collect();
            ops::linears(context, x, &layers)
        };
        let qkv = several(x, &[&layer.query, &layer.key, &layer.value])?; // [tokens, 3 * hidden]
        let rows = ops::dropout(rows, dropout())?;
        let positions = several(&rows, &layer.positions.iter().collect::<Vec<_>>())?; // [rows, terms * hidden]
        let (heads, probabilities) = (config.num_attention_heads, context.dropout(config.attention_probs_dropout_prob));
        let (offsets, distances) = (&batch.offsets, &relative.distances);
        let seen = ops::disentangled_attention(&qkv, &positions, offsets, heads, distances, probabilities)?;
        let seen = several(&seen, &[&layer.attention_output])?;
        let (weight, bias) = layer.attention_norm.pair();
        let x = ops::residual_layer_norm(&seen, x, dropout(), weight, bias, config.layer_norm_eps)?;
        let feed_forward = ops::FeedForward {
            inner: layer.intermediate.pair(),
            activation: config.hidden_act,
            outer: layer.output.pair(),
            norm: layer.output_norm.pair(),
            eps: config.layer_norm_eps,
            dropout: dropout(),
        };
        ops::feed_forward(context, &x, &feed_forward)
    }
}

impl Backbone for Deberta {
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
        let mut distances = self.rows_of_distances(batch);
        distances.sort_unstable();
        distances.dedup();
        let mut rows = vec![(Arc::clone(&self.word), batch.ids.to_vec()), (Arc::clone(&self.distances), distances)];
        if let Some(table) = &self.position {
            rows.push((Arc::clone(table), (0..batch.longest() as u32).collect()));
        }
        if let Some(table) = &self.token_type {
            let both = self.config.type_vocab_size > 1 && batch.types.contains(&1);
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
        // queries, keys, values, what was seen, its layer's result and the standardised sum, the sum's norm, then the
        // inner layer before its activation, the second sum and its norm; of the convolution the windows twice and what
        // comes of them; then the embeddings' steps and the largest gradients that are alive at once
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let conv = self.config.conv.as_ref().map_or(0, |conv| (2 * conv.kernel + 6) * hidden);
        let (layers, layer) = (self.layers.len(), 9 * hidden + inner);
        // a layer that is computed again has its input twice, once with the rows of distances behind it, which are at
        // most as many as two texts' tokens
        let kept = if self.checkpointing { layers * 2 * hidden + layer + hidden } else { layers * layer };
        kept + conv + 8 * hidden + inner
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.config.max_position_embeddings)
    }

    fn set_dropout(&mut self, probability: f64) {
        let config = Arc::make_mut(&mut self.config);
        config.hidden_dropout_prob = probability;
        config.attention_probs_dropout_prob = probability;
    }

    fn set_checkpointing(&mut self) -> Result<()> {
        self.checkpointing = true;
        Ok(())
    }
}
