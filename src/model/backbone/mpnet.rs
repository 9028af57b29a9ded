//! MPNet (Song et al., 2020, <https://arxiv.org/abs/2004.09297>), as transformers' `MPNetModel` without its pooler: BERT
//! without types of tokens, with RoBERTa's positions, and with scores that know how far a key stands from its query.

use serde_json::Value;

use super::bert_like::{Config, Family, LayerNames};
use super::roberta;
use crate::error::{Error, Result};

pub const FAMILY: Family = Family {
    name: "MPNet",
    layer: LayerNames {
        query: "attention.attn.q",
        key: "attention.attn.k",
        value: "attention.attn.v",
        attention_output: "attention.attn.o",
        attention_norm: "attention.LayerNorm",
        ..LayerNames::BERT
    },
    reads_types: false,
    positions_after_padding: true,
    projects: false,
    decoder: false,
    distances: Some("encoder.relative_attention_bias.weight"),
};

/// Rows of the table of distances; transformers' `MPNetEncoder` knows no other number.
pub const BUCKETS: usize = 32;
/// From here on all distances are one.
pub const FARTHEST: usize = 128;

/// # Errors
/// As RoBERTa's, and when there are other buckets than transformers fills.
pub fn config(config: &Value) -> Result<Config> {
    let buckets = config.get("relative_attention_num_buckets").and_then(Value::as_u64).unwrap_or(BUCKETS as u64);
    if buckets != BUCKETS as u64 {
        return Err(Error::model(format!("`relative_attention_num_buckets` is {buckets}"))
            .with_hint(format!("transformers computes {BUCKETS} whatever it says, and so does tallow")));
    }
    let mut config = Config { type_vocab_size: 0, ..roberta::positions(Config::of_bert(config, &FAMILY, 1)?)? };
    config.distance_buckets = BUCKETS;
    Ok(config)
}
