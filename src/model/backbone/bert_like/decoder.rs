//! BERT as a decoder (transformers' `BertLMHeadModel` with cross-attention) that reads one sentence embedding.
//!
//! The only thing to attend to is the sentence's embedding, so that the weight on it is 1 whatever query and key are:
//! cross-attention is its value through the output layer. Query and key would have no influence and no gradient; there
//! are none.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{BertLike, Layer};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::backbone::Decoder;
use crate::model::backbone::loader::Dense;
use crate::ops::{self, Context, Param};
use crate::util::seed::Rng;

/// Cross-attention of one layer.
struct Cross {
    value: Dense,
    output: Dense,
    norm: Dense,
}

/// The network with what only a decoder has.
pub(super) struct BertDecoder {
    bert: BertLike,
    cross: Vec<Cross>,
    transform: Dense,
    transform_norm: Dense,
    /// Of the vocabulary; the weight is that of the word embeddings.
    bias: Arc<Param>,
    own: Vec<Arc<Param>>,
}

/// Makes the decoder's own parameters: those of the checkpoint where it has them, else new ones.
struct Maker<'a> {
    bert: &'a BertLike,
    prefix: &'a str,
    rng: Rng,
    device: Device,
    own: Vec<Arc<Param>>,
}

impl Maker<'_> {
    fn param(&mut self, name: &str, shape: &[usize], new: impl FnOnce(&mut Rng) -> Vec<f64>) -> Result<Arc<Param>> {
        let found = self.bert.tensors.unused.iter().find(|(other, tensor)| other == name && tensor.dims() == shape);
        let value = match found {
            Some((_, tensor)) => tensor.clone(),
            // not from an f64, which not every device knows
            None => Tensor::from_vec(new(&mut self.rng), shape, &Device::Cpu)?.to_dtype(DType::F32)?,
        };
        let value = value.to_dtype(self.bert.word.dtype())?.to_device(&self.device)?;
        let param = Param::new(format!("{}{name}", self.prefix), &value)?;
        self.own.push(Arc::clone(&param));
        Ok(param)
    }

    /// As transformers begins: weights from a normal distribution, biases 0.
    fn dense(&mut self, name: &str, out: usize, input: usize) -> Result<Dense> {
        let deviation = self.bert.config.initializer_range;
        let normal = |rng: &mut Rng| (0..out * input).map(|_| deviation * rng.normal()).collect();
        Ok(Dense {
            weight: self.param(&format!("{name}.weight"), &[out, input], normal)?,
            bias: self.param(&format!("{name}.bias"), &[out], |_| vec![0.0; out])?,
        })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Dense> {
        Ok(Dense {
            weight: self.param(&format!("{name}.weight"), &[width], |_| vec![1.0; width])?,
            bias: self.param(&format!("{name}.bias"), &[width], |_| vec![0.0; width])?,
        })
    }
}

impl BertDecoder {
    /// A decoder on `bert`'s parameters; those that only it has are called `prefix` and their name in a checkpoint.
    pub(super) fn new(bert: BertLike, prefix: &str, rng: Rng) -> Result<Self> {
        if !bert.config.tie_word_embeddings {
            return Err(Error::model("`tie_word_embeddings` is false in config.json")
                .with_hint("a decoder's last layer has the weights of the word embeddings; take the key out"));
        }
        let hidden = bert.config.hidden_size;
        let device = bert.word.value().device().clone();
        let mut make = Maker { bert: &bert, prefix, rng, device, own: Vec::new() };
        let mut cross = Vec::with_capacity(bert.layers.len());
        for i in 0..bert.layers.len() {
            let at = |name: &str| format!("encoder.layer.{i}.crossattention.{name}");
            cross.push(Cross {
                value: make.dense(&at("self.value"), hidden, hidden)?,
                output: make.dense(&at("output.dense"), hidden, hidden)?,
                norm: make.norm(&at("output.LayerNorm"), hidden)?,
            });
        }
        let transform = make.dense("cls.predictions.transform.dense", hidden, hidden)?;
        let transform_norm = make.norm("cls.predictions.transform.LayerNorm", hidden)?;
        let size = bert.config.vocab_size;
        let bias = make.param("cls.predictions.bias", &[size], |_| vec![0.0; size])?;
        let own = make.own;
        Ok(Self { bert, cross, transform, transform_norm, bias, own })
    }

    /// `LayerNorm(dropout(the sentence's value through the output layer) + x)` of every token.
    ///
    /// `x` `[tokens, hidden]`, `sentence` `[rows, hidden]`, `rows` `[tokens]`: the row of each token.
    fn attend(&self, layer: &Cross, x: &Tensor, sentence: &Tensor, rows: &Tensor, context: &Context) -> Result<Tensor> {
        let config = &self.bert.config;
        let dense = |x: &Tensor, dense: &Dense| ops::linear(context, x, &dense.weight, Some(&dense.bias));
        let value = dense(sentence, &layer.value)?; // [rows, hidden]
        let dropout = context.dropout(config.attention_probs_dropout_prob);
        let seen = if dropout.active() {
            // each head of each token drops the one weight that it has
            let (tokens, heads) = (x.dim(0)?, config.num_attention_heads);
            let width = config.hidden_size / heads;
            let kept = ops::dropout(&Tensor::ones((tokens, heads), x.dtype(), x.device())?, dropout)?;
            let value = value.index_select(rows, 0)?.reshape((tokens, heads, width))?;
            let value = value.broadcast_mul(&kept.reshape((tokens, heads, 1))?)?;
            dense(&value.reshape((tokens, config.hidden_size))?, &layer.output)?
        } else {
            dense(&value, &layer.output)?.index_select(rows, 0)? // [tokens, hidden]
        };
        let dropout = context.dropout(config.hidden_dropout_prob);
        let norm = (&layer.norm.weight, &layer.norm.bias);
        Ok(ops::residual_layer_norm(&seen, x, dropout, norm.0, norm.1, config.layer_norm_eps)?)
    }

    fn layer(&self, layer: &Layer, cross: &Cross, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let context = pass.context;
        let ops::EncoderLayer { attention, feed_forward } = layer.part(&self.bert.config, &pass.inputs, None, context);
        let x = ops::causal_self_attention(context, x, &pass.inputs.offsets, &attention)?;
        let x = self.attend(cross, &x, pass.sentence, &pass.rows, context)?;
        Ok(ops::feed_forward(context, &x, &feed_forward)?)
    }
}

/// One pass over a batch.
struct Pass<'a> {
    context: &'a Context,
    sentence: &'a Tensor,
    inputs: PackedBatch,
    rows: Tensor,
}

impl Decoder for BertDecoder {
    fn cross_entropy(&self, sentence: &Tensor, texts: &PackedBatch, context: &Context) -> Result<Tensor> {
        let config = &self.bert.config;
        let (mut sequences, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (row, ends) in texts.offsets.windows(2).enumerate() {
            // every token but the last foretells the one after it
            let ids = texts.ids.get(ends[0] as usize..ends[1] as usize).unwrap_or(&[]);
            let Some((_, inputs)) = ids.split_last() else { continue };
            rows.extend(std::iter::repeat_n(row as u32, inputs.len()));
            targets.extend(ids.iter().skip(1));
            sequences.push((inputs, 0));
        }
        let inputs = PackedBatch::pack(sequences);
        let counted: Vec<u32> =
            (0..targets.len() as u32).filter(|i| config.pad_token_id != Some(targets[*i as usize])).collect();
        if counted.is_empty() {
            return Err(Error::data("no text of the batch has a token to foretell")
                .with_hint("texts need two tokens at least, special tokens included"));
        }
        let device = sentence.device();
        let tokens = rows.len();
        let pass = Pass { context, sentence, inputs, rows: Tensor::from_vec(rows, tokens, device)? };
        let mut x = self.bert.embed(&pass.inputs, context)?;
        for (layer, cross) in self.bert.layers.iter().zip(&self.cross) {
            x = self.layer(layer, cross, &x, &pass)?;
        }
        if counted.len() < tokens {
            targets = counted.iter().map(|i| targets[*i as usize]).collect();
            let count = counted.len();
            x = x.index_select(&Tensor::from_vec(counted, count, device)?, 0)?;
        }
        let x = ops::linear(context, &x, &self.transform.weight, Some(&self.transform.bias))?;
        let x = ops::activation(&x, self.bert.config.hidden_act)?;
        let x = ops::layer_norm(&x, &self.transform_norm.weight, &self.transform_norm.bias, config.layer_norm_eps)?;
        Ok(ops::vocabulary_cross_entropy(context, &x, &self.bert.word, &self.bias, &targets)?)
    }

    fn own_params(&self) -> Vec<Arc<Param>> {
        self.own.clone()
    }

    fn whole_tables(&self) -> Vec<Arc<Param>> {
        vec![Arc::clone(&self.bert.word)]
    }

    fn activation_floats(&self) -> usize {
        // a layer leaves two more norms, the value and what it becomes; the head three states and the scores
        let config = &self.bert.config;
        let layer = 6 * config.hidden_size;
        self.bert.floats() + config.num_hidden_layers * layer + 6 * config.hidden_size + 2 * config.vocab_size
    }
}
