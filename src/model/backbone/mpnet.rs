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
const FARTHEST: f32 = 128.0;

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

/// The row for a key that stands `distance` places behind its query (before it, if negative): a row for each of the
/// first few, then one for distances that grow by a factor; those behind have a half of their own.
#[must_use]
pub fn bucket(distance: i64) -> u32 {
    let half = (BUCKETS / 2) as u32;
    let exact = half / 2;
    let far = distance.unsigned_abs();
    let behind = if distance > 0 { half } else { 0 };
    if far < u64::from(exact) {
        return behind + far as u32;
    }
    // in f32, as there: what falls on a border depends on it
    let part = (far as f32 / exact as f32).ln() / (FARTHEST / exact as f32).ln() * (half - exact) as f32;
    behind + (exact + part as u32).min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_a_row_each_and_far_ones_share() {
        // both sides of every border that transformers' function has
        let rows: Vec<u32> =
            [0, 1, 7, 8, 11, 12, 15, 16, 22, 23, 31, 32, 45, 46, 63, 64, 90, 91, 5000].map(bucket).to_vec();
        assert_eq!(rows, [0, 17, 23, 24, 24, 25, 25, 26, 26, 27, 27, 28, 28, 29, 29, 30, 30, 31, 31]);
        let before: Vec<u32> = [-1, -7, -8, -12, -127, -128, -5000].map(bucket).to_vec();
        assert_eq!(before, [1, 7, 8, 9, 15, 15, 15]);
    }
}
