//! DeBERTa-v2's config.json, which DeBERTa-v3 has, too.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::backbone::activation;
use crate::model::backbone::bert_like::config::{check_heads, gelu, tenth};
use crate::ops::Activation;

/// What the network is like.
#[derive(Debug, Clone)]
pub struct Config {
    pub vocab_size: usize,
    /// Width of the embeddings; another than `hidden_size` where a layer leads from one to the other.
    pub embedding_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    /// Whether tokens' embeddings tell their places, too.
    pub position_biased_input: bool,
    /// Rows of the table; 0 for no table.
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: Activation,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub distances: Distances,
    /// Whether the rows of distances are normalised.
    pub norm_distances: bool,
    /// Whether queries' and keys' layers serve for the rows of distances, too.
    pub share_att_key: bool,
    /// Whether queries, and whether keys, tell distances.
    pub content_to_position: bool,
    pub position_to_content: bool,
    pub conv: Option<Conv>,
}

/// The convolution beside the first layer.
#[derive(Debug, Clone)]
pub struct Conv {
    pub kernel: usize,
    pub activation: Activation,
}

/// Which row a distance has.
#[derive(Debug, Clone, Copy)]
pub struct Distances {
    /// Half of the rows.
    pub span: usize,
    /// From half of them on, distances share rows the more the farther they are, up to this one.
    farthest: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Keys {
    vocab_size: usize,
    embedding_size: Option<usize>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    attention_head_size: Option<usize>,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "yes")]
    position_biased_input: bool,
    #[serde(default)]
    type_vocab_size: usize,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "tenth")]
    hidden_dropout_prob: f64,
    #[serde(default = "tenth")]
    attention_probs_dropout_prob: f64,
    #[serde(default)]
    relative_attention: bool,
    #[serde(default = "unset")]
    max_relative_positions: i64,
    #[serde(default = "unset")]
    position_buckets: i64,
    pos_att_type: Option<Value>,
    #[serde(default)]
    share_att_key: bool,
    norm_rel_ebd: Option<String>,
    #[serde(default)]
    conv_kernel_size: usize,
    #[serde(default = "one")]
    conv_groups: usize,
    conv_act: Option<String>,
}

fn yes() -> bool {
    true
}
fn eps() -> f64 {
    1e-7
}
fn unset() -> i64 {
    -1
}
fn one() -> usize {
    1
}

impl Keys {
    fn distances(&self) -> Result<Distances> {
        let size = |value: i64| usize::try_from(value).ok().filter(|value| *value > 0);
        let farthest = size(self.max_relative_positions).unwrap_or(self.max_position_embeddings);
        let Some(buckets) = size(self.position_buckets) else {
            return Ok(Distances { span: farthest, farthest: None });
        };
        if buckets < 2 || farthest < buckets / 2 + 2 {
            return Err(Error::model(format!(
                "`position_buckets` is {buckets}, and distances go to {farthest} (`max_relative_positions`)"
            ))
            .with_hint("there have to be at least 2, and half of them less than the farthest distance"));
        }
        Ok(Distances { span: buckets, farthest: Some(farthest) })
    }

    /// Whether queries, and whether keys, tell distances.
    fn terms(&self) -> Result<(bool, bool)> {
        let names: Vec<String> = match &self.pos_att_type {
            Some(Value::String(names)) => names.to_lowercase().split('|').map(|name| name.trim().to_owned()).collect(),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let (first, second) = (names.iter().any(|name| name == "c2p"), names.iter().any(|name| name == "p2c"));
        if !self.relative_attention || !(first || second) {
            return Err(Error::model("`relative_attention` is false, or `pos_att_type` has neither `c2p` nor `p2c`")
                .with_hint("only networks that tell distances are supported, as all published ones do"));
        }
        Ok((first, second))
    }

    fn conv(&self) -> Result<Option<Conv>> {
        if self.conv_kernel_size == 0 {
            return Ok(None);
        }
        if self.conv_kernel_size.is_multiple_of(2) || self.conv_groups != 1 {
            return Err(Error::model(format!(
                "`conv_kernel_size` is {}, `conv_groups` {}",
                self.conv_kernel_size, self.conv_groups
            ))
            .with_hint("only odd sizes and one group are supported"));
        }
        let activation = match self.conv_act.as_deref() {
            None | Some("tanh") => Activation::Tanh,
            Some(name) => activation("conv_act", name)?,
        };
        Ok(Some(Conv { kernel: self.conv_kernel_size, activation }))
    }
}

impl Config {
    /// Reads config.json.
    ///
    /// # Errors
    /// When a key is missing or of another type, or says what would be computed otherwise.
    pub fn read(config: &Value) -> Result<Self> {
        let keys: Keys = serde_json::from_value(config.clone()).map_err(|e| Error::model(e.to_string()))?;
        check_heads(("num_attention_heads", keys.num_attention_heads), ("hidden_size", keys.hidden_size))?;
        let head_dim = keys.hidden_size / keys.num_attention_heads;
        if keys.attention_head_size.is_some_and(|size| size != head_dim) {
            return Err(Error::model(format!("`attention_head_size` is not {head_dim}"))
                .with_hint("only heads that share `hidden_size` are supported: leave it out"));
        }
        let (content_to_position, position_to_content) = keys.terms()?;
        let norms = keys.norm_rel_ebd.as_deref().unwrap_or("none").to_lowercase();
        Ok(Self {
            distances: keys.distances()?,
            conv: keys.conv()?,
            content_to_position,
            position_to_content,
            norm_distances: norms.split('|').any(|name| name.trim() == "layer_norm"),
            vocab_size: keys.vocab_size,
            embedding_size: keys.embedding_size.unwrap_or(keys.hidden_size),
            hidden_size: keys.hidden_size,
            num_hidden_layers: keys.num_hidden_layers,
            num_attention_heads: keys.num_attention_heads,
            intermediate_size: keys.intermediate_size,
            max_position_embeddings: keys.max_position_embeddings,
            position_biased_input: keys.position_biased_input,
            type_vocab_size: keys.type_vocab_size,
            layer_norm_eps: keys.layer_norm_eps,
            hidden_act: activation("hidden_act", &keys.hidden_act)?,
            hidden_dropout_prob: keys.hidden_dropout_prob,
            attention_probs_dropout_prob: keys.attention_probs_dropout_prob,
            share_att_key: keys.share_att_key,
        })
    }
}

impl Distances {
    /// Rows of the table.
    #[must_use]
    pub fn rows(self) -> usize {
        2 * self.span
    }

    /// The row of a key that stands `distance` places before its query (behind it, if negative).
    #[must_use]
    pub fn row(self, distance: i64) -> u32 {
        let span = self.span as i64;
        (self.bucket(distance) + span).clamp(0, 2 * span - 1) as u32
    }

    /// A number for each of the nearer distances, then numbers for distances that grow by a factor.
    fn bucket(self, distance: i64) -> i64 {
        let half = (self.span / 2) as i64;
        let Some(farthest) = self.farthest.filter(|_| distance.abs() > half) else { return distance };
        // in f32, as there: what falls on a border depends on it
        let times = (distance.abs() as f32 / half as f32).ln();
        let most = ((farthest as f64 - 1.0) / half as f64) as f32;
        let far = (times / most.ln() * (half - 1) as f32).ceil() as i64 + half;
        far * distance.signum()
    }
}
