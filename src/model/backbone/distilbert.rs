//! DistilBERT (Sanh et al., 2019, <https://arxiv.org/abs/1910.01108>), as transformers' `DistilBertModel`: BERT's layers
//! by other names, without types of tokens.

use serde::Deserialize;
use serde_json::Value;

use super::activation;
use super::bert_like::config::{check_heads, eps, gelu, initializer_range, tenth};
use super::bert_like::{Config, Family, LayerNames};
use crate::error::{Error, Result};

pub const FAMILY: Family = Family {
    name: "DistilBERT",
    layer: LayerNames {
        layer: "transformer.layer",
        query: "attention.q_lin",
        key: "attention.k_lin",
        value: "attention.v_lin",
        attention_output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        intermediate: "ffn.lin1",
        output: "ffn.lin2",
        output_norm: "output_layer_norm",
    },
    reads_types: false,
    positions_after_padding: false,
    projects: false,
    decoder: false,
    distances: None,
};

/// The keys of config.json.
#[derive(Debug, Deserialize)]
struct Keys {
    vocab_size: usize,
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    max_position_embeddings: usize,
    #[serde(default = "gelu")]
    activation: String,
    #[serde(default = "tenth")]
    dropout: f64,
    #[serde(default = "tenth")]
    attention_dropout: f64,
    #[serde(default = "initializer_range")]
    initializer_range: f64,
    tie_word_embeddings: Option<bool>,
}

/// # Errors
/// When a key is missing or of another type, or says what would be computed otherwise.
pub fn config(config: &Value) -> Result<Config> {
    let keys: Keys = serde_json::from_value(config.clone()).map_err(|e| Error::model(e.to_string()))?;
    check_heads(("n_heads", keys.n_heads), ("dim", keys.dim))?;
    Ok(Config {
        vocab_size: keys.vocab_size,
        embedding_size: keys.dim,
        hidden_size: keys.dim,
        num_hidden_layers: keys.n_layers,
        num_attention_heads: keys.n_heads,
        intermediate_size: keys.hidden_dim,
        max_position_embeddings: keys.max_position_embeddings,
        type_vocab_size: 0,
        layer_norm_eps: eps(),
        hidden_act: activation("activation", &keys.activation)?,
        hidden_dropout_prob: keys.dropout,
        attention_probs_dropout_prob: keys.attention_dropout,
        initializer_range: keys.initializer_range,
        pad_token_id: None,
        tie_word_embeddings: keys.tie_word_embeddings.unwrap_or(true),
        distance_buckets: 0,
    })
}
