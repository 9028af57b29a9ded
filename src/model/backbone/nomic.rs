//! NomicBERT (Nussbaum et al., 2024, <https://arxiv.org/abs/2402.01613>), as transformers' `NomicBertModel` without its
//! pooler, and as the code beside the first checkpoints has it: those have other names and keys, and may have biases.

use serde::Deserialize;
use serde_json::{Value, json};

use super::activation;
use super::bert_like::config::check_heads;
use super::rotary_bert::{Config, Family, Names, check_head_dim};
use crate::error::{Error, Result};
use crate::ops::Activation;

pub const FAMILY: Family = Family {
    prefixes: &["bert."],
    names: &[
        Names::NATIVE,
        Names {
            norm: "emb_ln",
            layer: "encoder.layers",
            qkv: &["attn.Wqkv"],
            attention_output: "attn.out_proj",
            attention_norm: "norm1",
            inner: &["mlp.fc12", "mlp.fc11"],
            outer: "mlp.fc2",
            output_norm: "norm2",
        },
    ],
};

/// The keys of transformers.
#[derive(Debug, Deserialize)]
struct Keys {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    head_dim: Option<usize>,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    hidden_dropout_prob: f64,
    #[serde(default)]
    attention_probs_dropout_prob: f64,
    embd_pdrop: Option<f64>,
    #[serde(default)]
    rope_parameters: Value,
    #[serde(default)]
    rope_theta: Option<f64>,
}

fn two() -> usize {
    2
}
pub(super) fn eps() -> f64 {
    1e-12
}
fn silu() -> String {
    "silu".to_owned()
}

/// The keys of the code beside the first checkpoints that stand for what is computed otherwise.
const FIXED: [&str; 6] =
    ["prenorm", "parallel_block", "causal", "use_rms_norm", "rotary_emb_interleaved", "rotary_emb_scale_base"];

/// Whether config.json has the keys of the code beside the first checkpoints.
fn is_old(config: &Value) -> bool {
    config.get("n_embd").is_some()
}

fn said(config: &Value, key: &str) -> bool {
    !matches!(config.get(key), None | Some(Value::Null | Value::Bool(false)))
}

/// Refuses what is computed otherwise.
fn check_old(config: &Value) -> Result<()> {
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    if number("num_experts").is_some_and(|n| n > 0.0) && number("moe_every_n_layers").is_some_and(|n| n > 0.0) {
        return Err(Error::model("`num_experts` says that it is a mixture of experts")
            .with_hint("those are not supported; `nomic-ai/nomic-embed-text-v1.5` is no such"));
    }
    if let Some(key) = FIXED.into_iter().find(|key| said(config, key)) {
        return Err(Error::model(format!("`{key}` is {}", config[key]))
            .with_hint("only what NomicBERT's published models have is supported: false, or none"));
    }
    let fraction = number("rotary_emb_fraction").unwrap_or(0.0);
    if fraction != 1.0 {
        return Err(Error::model(format!("`rotary_emb_fraction` is {fraction}"))
            .with_hint("only 1 is supported, as NomicBERT's published models have it"));
    }
    Ok(())
}

/// The keys of the code beside the first checkpoints that say whether layers have biases, which transformers' have not.
const BIASES: [&str; 3] = ["qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"];

/// Inserts transformers' keys beside those of the code that came with the first checkpoints: heads read them, and where
/// transformers has all of the network, it reads what is saved.
pub fn complete(config: &mut Value) {
    if !is_old(config) || check_old(config).is_err() {
        return;
    }
    let shape = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"];
    let whole = BIASES.into_iter().all(|key| !super::flag(config, (key, true)));
    insert(config, |key| whole || !shape.contains(&key));
}

fn insert(config: &mut Value, wanted: impl Fn(&str) -> bool) {
    let of = |key: &str| config.get(key).cloned().unwrap_or(Value::Null);
    let gate = match config.get("activation_function").and_then(Value::as_str) {
        Some("swiglu") => json!("silu"),
        Some("geglu") => json!("gelu"),
        _ => Value::Null,
    };
    let inner = match config.get("n_inner").and_then(Value::as_u64) {
        Some(inner) => json!(inner),
        None => json!(4 * config.get("n_embd").and_then(Value::as_u64).unwrap_or(0)),
    };
    // its angles change where texts are longer than those it was trained on
    let trained = config.get("max_trained_positions").and_then(Value::as_u64).unwrap_or(2048);
    let positions = match config.get("rotary_scaling_factor") {
        None | Some(Value::Null) => of("n_positions"),
        Some(_) => json!(config.get("n_positions").and_then(Value::as_u64).unwrap_or(trained).min(trained)),
    };
    let theta = config.get("rotary_emb_base").and_then(Value::as_f64).unwrap_or(10_000.0);
    let keys = [
        ("hidden_size", of("n_embd")),
        ("num_hidden_layers", of("n_layer")),
        ("num_attention_heads", of("n_head")),
        ("intermediate_size", inner),
        ("max_position_embeddings", positions),
        ("hidden_act", gate),
        ("layer_norm_eps", of("layer_norm_epsilon")),
        ("hidden_dropout_prob", of("resid_pdrop")),
        ("attention_probs_dropout_prob", of("attn_pdrop")),
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": theta})),
    ];
    let Some(all) = config.as_object_mut() else { return };
    for (key, value) in keys.into_iter().filter(|(key, value)| wanted(key) && !value.is_null()) {
        all.entry(key).or_insert(value);
    }
}

/// The base of the angles that `rope_parameters` tells; `usual` where it does not.
///
/// # Errors
/// When angles are scaled.
pub(super) fn theta(parameters: &Value, old: Option<f64>, usual: f64) -> Result<f64> {
    let kind = parameters.get("rope_type").and_then(Value::as_str).unwrap_or("default");
    let theta = parameters.get("rope_theta").and_then(Value::as_f64).or(old).unwrap_or(usual);
    if kind != "default" {
        return Err(Error::model(format!("the `rope_type` of `rope_parameters` is `{kind}`"))
            .with_hint("only `default` is supported: angles without scaling"));
    }
    if theta > 0.0 {
        return Ok(theta);
    }
    Err(Error::model(format!("`rope_theta` is {theta}")).with_hint("it has to be above 0"))
}

/// # Errors
/// When a key is missing or of another type, or says what would be computed otherwise.
pub fn config(config: &Value) -> Result<Config> {
    let (old, mut config) = (is_old(config), config.clone());
    if old {
        check_old(&config)?;
    }
    let gated = ["swiglu", "geglu"];
    if let Some(name) = config.get("activation_function").and_then(Value::as_str)
        && old
        && !gated.contains(&name)
    {
        return Err(Error::model(format!("`activation_function` is `{name}`"))
            .with_hint("only layers with a gate are supported: `swiglu` and `geglu`"));
    }
    if old {
        insert(&mut config, |_| true);
    }
    let bias = |key: &str| old && super::flag(&config, (key, true));
    let biases = BIASES.map(bias);
    let keys: Keys = serde_json::from_value(config).map_err(|e| Error::model(e.to_string()))?;
    check_heads(("num_attention_heads", keys.num_attention_heads), ("hidden_size", keys.hidden_size))?;
    let head_dim = keys.hidden_size / keys.num_attention_heads;
    check_head_dim(keys.head_dim, head_dim)?;
    Ok(Config {
        vocab_size: keys.vocab_size,
        hidden_size: keys.hidden_size,
        num_hidden_layers: keys.num_hidden_layers,
        num_attention_heads: keys.num_attention_heads,
        intermediate_size: keys.intermediate_size,
        max_position_embeddings: keys.max_position_embeddings,
        type_vocab_size: keys.type_vocab_size,
        layer_norm_eps: keys.layer_norm_eps,
        hidden_act: match keys.hidden_act.as_str() {
            "silu" => Activation::Silu,
            name => activation("hidden_act", name)?,
        },
        embedding_dropout: keys.embd_pdrop.filter(|_| old).unwrap_or(keys.hidden_dropout_prob),
        hidden_dropout_prob: keys.hidden_dropout_prob,
        attention_probs_dropout_prob: keys.attention_probs_dropout_prob,
        inner_dropout: None,
        attention_bias: biases[0],
        inner_bias: biases[1],
        outer_bias: biases[2],
        rope_theta: theta(&keys.rope_parameters, keys.rope_theta, 1000.0)?,
        rope_slowed: 1.0,
        old_names: old,
    })
}
