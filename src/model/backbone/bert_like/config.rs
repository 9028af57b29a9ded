//! What a network of this kind is like, and BERT's keys for it.

use serde::Deserialize;
use serde_json::Value;

use super::Family;
use crate::error::{Error, Result};
use crate::model::backbone::activation;
use crate::ops::Activation;

/// What changes the network, whatever a family's config.json calls it.
#[derive(Debug, Clone)]
pub struct Config {
    pub vocab_size: usize,
    /// Width of the embeddings; another than `hidden_size` where a layer leads from one to the other.
    pub embedding_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    /// Rows of the table.
    pub max_position_embeddings: usize,
    /// Rows of the table; 0 for no table.
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: Activation,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub initializer_range: f64,
    pub pad_token_id: Option<u32>,
    pub tie_word_embeddings: bool,
    /// Rows of the table of distances, of families that have one.
    pub distance_buckets: usize,
}

/// The keys of BERT's config.json, which RoBERTa and ELECTRA have, too.
#[derive(Debug, Deserialize)]
struct Keys {
    vocab_size: usize,
    embedding_size: Option<usize>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "tenth")]
    hidden_dropout_prob: f64,
    #[serde(default = "tenth")]
    attention_probs_dropout_prob: f64,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default = "initializer_range")]
    initializer_range: f64,
    pad_token_id: Option<u32>,
    tie_word_embeddings: Option<bool>,
}

fn two() -> usize {
    2
}
pub(in crate::model::backbone) fn eps() -> f64 {
    1e-12
}
pub(in crate::model::backbone) fn tenth() -> f64 {
    0.1
}
pub(in crate::model::backbone) fn initializer_range() -> f64 {
    0.02
}
pub(in crate::model::backbone) fn gelu() -> String {
    "gelu".to_owned()
}

/// Refuses a number of heads that does not divide the width.
///
/// # Errors
/// Then.
pub(in crate::model::backbone) fn check_heads(heads: (&str, usize), width: (&str, usize)) -> Result<()> {
    if heads.1 == 0 || !width.1.is_multiple_of(heads.1) {
        let ((heads, count), (width, size)) = (heads, width);
        return Err(Error::model(format!("`{heads}` {count} does not divide `{width}` {size}"))
            .with_hint(format!("set `{heads}` to a divisor of `{width}`")));
    }
    Ok(())
}

impl Config {
    /// Reads BERT's keys; `pad_token_id` is what the family has where the key is missing.
    ///
    /// # Errors
    /// When a key is missing or of another type, or says what would be computed otherwise.
    pub fn of_bert(config: &Value, family: &Family, pad_token_id: u32) -> Result<Self> {
        let keys: Keys = serde_json::from_value(config.clone()).map_err(|e| Error::model(e.to_string()))?;
        if let Some(kind) = &keys.position_embedding_type
            && kind != "absolute"
        {
            return Err(Error::model(format!("`position_embedding_type` is `{kind}`"))
                .with_hint(format!("only absolute position embeddings are supported for {}", family.name)));
        }
        if keys.is_decoder {
            return Err(
                Error::model("`is_decoder` is true").with_hint(format!("only {} encoders are supported", family.name))
            );
        }
        check_heads(("num_attention_heads", keys.num_attention_heads), ("hidden_size", keys.hidden_size))?;
        Ok(Self {
            vocab_size: keys.vocab_size,
            embedding_size: keys.embedding_size.filter(|_| family.projects).unwrap_or(keys.hidden_size),
            hidden_size: keys.hidden_size,
            num_hidden_layers: keys.num_hidden_layers,
            num_attention_heads: keys.num_attention_heads,
            intermediate_size: keys.intermediate_size,
            max_position_embeddings: keys.max_position_embeddings,
            type_vocab_size: keys.type_vocab_size,
            layer_norm_eps: keys.layer_norm_eps,
            hidden_act: activation("hidden_act", &keys.hidden_act)?,
            hidden_dropout_prob: keys.hidden_dropout_prob,
            attention_probs_dropout_prob: keys.attention_probs_dropout_prob,
            initializer_range: keys.initializer_range,
            // `null` is a value: no token is padding
            pad_token_id: if config.get("pad_token_id").is_some() { keys.pad_token_id } else { Some(pad_token_id) },
            tie_word_embeddings: keys.tie_word_embeddings.unwrap_or(true),
            distance_buckets: 0,
        })
    }
}
