//! Which networks does candle-transformers have that tallow does not train? They compute what their checkpoint says, as
//! teachers, as guides, to mine with and to encode; nothing of them has a gradient.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::jina_bert;
use serde_json::Value;

use super::bert_like::config::check_heads;
use super::{Backbone, Tensors};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::weights::Weights;
use crate::ops::{Context, Param};

/// Values that a batch of texts of one length may have in its attention scores: 64 MiB.
const SCORES: usize = 1 << 24;

/// JinaBERT (Günther et al., 2023, <https://arxiv.org/abs/2310.19923>): BERT whose scores fall with distance (ALiBi)
/// in place of positions, and with gated feed-forward halves, as the remote code of `jinaai/jina-bert-implementation`.
pub struct JinaBert {
    config: jina_bert::Config,
    tensors: Tensors,
    device: Device,
    /// The network for texts of up to so many tokens: its table of distances is the square of that.
    network: Mutex<(usize, Arc<jina_bert::BertModel>)>,
}

impl JinaBert {
    /// Reads the configuration and takes the checkpoint's tensors.
    ///
    /// # Errors
    /// When the configuration lacks a key or asks for what candle's network does not have, or a tensor is missing or of
    /// another shape.
    pub fn load(config: &Value, weights: Weights, device: &Device) -> Result<Self> {
        if weights.is_new() {
            return Err(Error::model("tallow does not train JinaBERT networks")
                .with_hint("it computes embeddings as teacher or guide; train `bert` or `modernbert` from scratch"));
        }
        let kind = config.get("feed_forward_type").cloned().unwrap_or_default();
        let config: jina_bert::Config =
            serde_json::from_value(config.clone()).map_err(|e| Error::model(e.to_string()))?;
        let heads = config.num_attention_heads;
        check_heads(("num_attention_heads", heads), ("hidden_size", config.hidden_size))?;
        if let Some(kind) = kind.as_str().filter(|kind| *kind != "geglu") {
            return Err(Error::model(format!("`feed_forward_type` is `{kind}`"))
                .with_hint("of the JinaBERT models those with `geglu` are supported"));
        }
        let tensors = weights.rest();
        if let Some((name, _)) = tensors.iter().find(|(name, _)| name.contains("layer_norm_q")) {
            return Err(Error::model(format!("tensor `{name}`: norms of queries and keys are not supported"))
                .with_hint(
                    "of the JinaBERT models those for English, German, Spanish and Chinese are; not the one for code",
                ));
        }
        let on_device: Result<Vec<_>> =
            tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.to_device(device)?))).collect();
        let tensors = on_device?;
        let length = config.max_position_embeddings.clamp(1, 128);
        let network = Mutex::new((length, Arc::new(build(&config, &tensors, device, length)?)));
        let tensors = Tensors { named: Vec::new(), unused: tensors };
        Ok(Self { config, tensors, device: device.clone(), network })
    }

    /// The network for texts of `longest` tokens.
    fn network(&self, longest: usize) -> Result<Arc<jina_bert::BertModel>> {
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        if longest > network.0 {
            let length = longest.next_power_of_two();
            *network = (length, Arc::new(build(&self.config, &self.tensors.unused, &self.device, length)?));
        }
        Ok(Arc::clone(&network.1))
    }
}

/// The network over `tensors`, which it shares, with distances up to `length`.
fn build(
    config: &jina_bert::Config,
    tensors: &[(String, Tensor)],
    device: &Device,
    length: usize,
) -> Result<jina_bert::BertModel> {
    let shared: HashMap<String, Tensor> = tensors.iter().cloned().collect();
    let config = jina_bert::Config { max_position_embeddings: length, ..config.clone() };
    jina_bert::BertModel::new(VarBuilder::from_tensors(shared, DType::F32, device), &config).map_err(|e| {
        Error::model(format!("the weights do not fit config.json: {e}"))
            .with_hint("they belong to different models, or the file is incomplete: download it again")
    })
}

impl Backbone for JinaBert {
    fn forward(&self, batch: &PackedBatch, _: &Context) -> Result<Tensor> {
        let (longest, most) = (batch.longest(), self.config.max_position_embeddings);
        if longest > most {
            return Err(Error::model(format!("a text has {longest} tokens, the model has {most} positions"))
                .with_hint("set `model.max_seq_length` to at most that number"));
        }
        if let Some(id) = batch.ids.iter().find(|id| **id as usize >= self.config.vocab_size) {
            return Err(Error::model(format!("token {id} is not in the vocabulary of {}", self.config.vocab_size))
                .with_hint("tokenizer and weights belong to different models"));
        }
        let network = self.network(longest)?;
        let (rows, order) =
            alike(&batch.offsets, |length| (SCORES / (length * length * self.config.num_attention_heads)).max(1));
        let mut hidden = Vec::with_capacity(rows.len());
        for (length, starts) in &rows {
            let ids: Vec<u32> = starts.iter().flat_map(|start| &batch.ids[*start..start + length]).copied().collect();
            let ids = Tensor::from_vec(ids, (starts.len(), *length), &self.device)?;
            hidden.push(network.forward(&ids)?.flatten_to(1)?); // [texts * length, hidden]
        }
        let order = Tensor::from_vec(order, batch.ids.len(), &self.device)?;
        Ok(Tensor::cat(&hidden, 0)?.index_select(&order, 0)?.detach())
    }

    fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    fn tensors_mut(&mut self) -> &mut Tensors {
        &mut self.tensors
    }

    fn rows(&self, _: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)> {
        Vec::new()
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn layers(&self) -> usize {
        self.config.num_hidden_layers
    }

    fn activation_floats(&self) -> usize {
        0
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.config.max_position_embeddings)
    }

    fn set_dropout(&mut self, _: f64) {}
}

/// Texts of one length together, so that none is padded: the length and where they begin, at most `most(length)` at a
/// time; then for each token of the batch where it is among those of all groups.
fn alike(offsets: &[u32], most: impl Fn(usize) -> usize) -> (Vec<(usize, Vec<usize>)>, Vec<u32>) {
    let mut lengths: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for pair in offsets.windows(2) {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        if end > start {
            lengths.entry(end - start).or_default().push(start);
        }
    }
    let mut order = vec![0; offsets.last().map_or(0, |end| *end as usize)];
    let mut groups = Vec::new();
    let mut at = 0;
    for (length, starts) in lengths {
        for part in starts.chunks(most(length)) {
            for start in part {
                for token in 0..length {
                    order[start + token] = at;
                    at += 1;
                }
            }
            groups.push((length, part.to_vec()));
        }
    }
    (groups, order)
}
