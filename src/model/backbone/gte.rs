//! GTE (Zhang et al., 2024, <https://arxiv.org/abs/2407.19669>), as transformers' `GteModel` without its pooler, and as
//! the code beside its checkpoints has it (`model_type` `new`), with other names and keys.

use serde::Deserialize;
use serde_json::Value;

use super::activation;
use super::bert_like::config::{check_heads, gelu, tenth};
use super::nomic::{eps, theta};
use super::rotary_bert::{Config, Family, Names, check_head_dim};
use crate::error::{Error, Result};

const OLD: Names = Names {
    norm: "embeddings.LayerNorm",
    layer: "encoder.layer",
    qkv: &["attention.qkv_proj"],
    attention_output: "attention.o_proj",
    attention_norm: "attn_ln",
    inner: &["mlp.up_gate_proj"],
    outer: "mlp.down_proj",
    output_norm: "mlp_ln",
};

/// Of checkpoints whose `pack_qkv` is false.
const OLD_APART: Names = Names { qkv: &["attention.q_proj", "attention.k_proj", "attention.v_proj"], ..OLD };

pub const FAMILY: Family = Family { prefixes: &["new."], names: &[Names::NATIVE, OLD_APART, OLD] };

/// The keys of both.
#[derive(Debug, Deserialize)]
struct Keys {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    head_dim: Option<usize>,
    #[serde(default = "one")]
    type_vocab_size: usize,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "tenth")]
    hidden_dropout_prob: f64,
    #[serde(default)]
    attention_probs_dropout_prob: f64,
    #[serde(default)]
    rope_parameters: Value,
    rope_theta: Option<f64>,
}

fn one() -> usize {
    1
}

fn read(config: &Value, rope: impl FnOnce(&Keys, usize) -> Result<(f64, f64)>, old_names: bool) -> Result<Config> {
    let keys: Keys = serde_json::from_value(config.clone()).map_err(|e| Error::model(e.to_string()))?;
    check_heads(("num_attention_heads", keys.num_attention_heads), ("hidden_size", keys.hidden_size))?;
    let head_dim = keys.hidden_size / keys.num_attention_heads;
    check_head_dim(keys.head_dim, head_dim)?;
    let (rope_theta, rope_slowed) = rope(&keys, head_dim)?;
    Ok(Config {
        vocab_size: keys.vocab_size,
        hidden_size: keys.hidden_size,
        num_hidden_layers: keys.num_hidden_layers,
        num_attention_heads: keys.num_attention_heads,
        intermediate_size: keys.intermediate_size,
        max_position_embeddings: keys.max_position_embeddings,
        type_vocab_size: keys.type_vocab_size,
        layer_norm_eps: keys.layer_norm_eps,
        hidden_act: activation("hidden_act", &keys.hidden_act)?,
        embedding_dropout: keys.hidden_dropout_prob,
        hidden_dropout_prob: keys.hidden_dropout_prob,
        attention_probs_dropout_prob: keys.attention_probs_dropout_prob,
        inner_dropout: Some(keys.hidden_dropout_prob),
        attention_bias: true,
        inner_bias: false,
        outer_bias: true,
        rope_theta,
        rope_slowed,
        old_names,
    })
}

/// # Errors
/// When a key is missing or of another type, or says what would be computed otherwise.
pub fn config(config: &Value) -> Result<Config> {
    read(config, |keys, _| Ok((theta(&keys.rope_parameters, keys.rope_theta, 160_000.0)?, 1.0)), false)
}

/// Of the code beside the checkpoints.
///
/// # Errors
/// As [`config`].
pub fn new_config(config: &Value) -> Result<Config> {
    let text = |key: &str, usual: &'static str| config.get(key).and_then(Value::as_str).unwrap_or(usual).to_owned();
    for (key, only) in [("position_embedding_type", "rope"), ("layer_norm_type", "layer_norm")] {
        let found = text(key, only);
        if found != only {
            return Err(Error::model(format!("`{key}` is `{found}`"))
                .with_hint(format!("only `{only}` is supported, as GTE's published models have it")));
        }
    }
    if super::flag(config, ("logn_attention_scale", false)) {
        return Err(Error::model("`logn_attention_scale` is true")
            .with_hint("only false is supported, as GTE's published models have it"));
    }
    read(config, |keys, head_dim| scaled(config, keys.rope_theta.unwrap_or(10_000.0), head_dim), true)
}

/// The base of the angles, and what they are divided by: after <https://kexue.fm/archives/9706>.
fn scaled(config: &Value, base: f64, head_dim: usize) -> Result<(f64, f64)> {
    let base = theta(&Value::Null, Some(base), base)?;
    let Some(scaling) = config.get("rope_scaling").filter(|scaling| !scaling.is_null()) else {
        return Ok((base, 1.0));
    };
    let kind = scaling.get("type").or(scaling.get("rope_type")).and_then(Value::as_str).unwrap_or("");
    let factor = scaling.get("factor").and_then(Value::as_f64).unwrap_or(0.0);
    if kind != "ntk" || factor <= 0.0 || scaling.get("mixed_b").is_some_and(|value| !value.is_null()) {
        return Err(Error::model(format!("`rope_scaling` is {scaling}"))
            .with_hint("only `ntk` with a `factor`, and no `mixed_b`, is supported"));
    }
    // it leaves angles as they are unless there are to be more places
    Ok(if factor > 1.0 { (base * factor, factor.powf(2.0 / head_dim as f64)) } else { (base, 1.0) })
}
