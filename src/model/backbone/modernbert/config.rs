//! ModernBERT's config.json, in the keys of transformers 4 and 5.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::backbone::activation;
use crate::model::backbone::bert_like::config::{check_heads, gelu};
use crate::ops::Activation;

/// What the network is like.
#[derive(Debug, Clone)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_activation: Activation,
    pub norm_eps: f64,
    pub norm_bias: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub embedding_dropout: f64,
    pub attention_dropout: f64,
    pub mlp_dropout: f64,
    /// Whether each layer's tokens see their neighbours only.
    pub local: Vec<bool>,
    /// How many tokens a token sees in such a layer, half of them on either side.
    pub local_attention: usize,
    pub global_rope_theta: f64,
    pub local_rope_theta: f64,
}

#[derive(Debug, Deserialize)]
struct Keys {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    #[serde(default = "gelu")]
    hidden_activation: String,
    #[serde(default = "norm_eps")]
    norm_eps: f64,
    #[serde(default)]
    norm_bias: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    embedding_dropout: f64,
    #[serde(default)]
    attention_dropout: f64,
    #[serde(default)]
    mlp_dropout: f64,
    /// Since transformers 5.
    layer_types: Option<Vec<String>>,
    /// Before it.
    #[serde(default = "three")]
    global_attn_every_n_layers: usize,
    #[serde(default = "window")]
    local_attention: usize,
    /// Since transformers 5.
    rope_parameters: Option<Value>,
    /// Before it.
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    #[serde(default)]
    rope_scaling: Value,
}

fn norm_eps() -> f64 {
    1e-5
}
fn three() -> usize {
    3
}
fn window() -> usize {
    128
}

impl Keys {
    fn local(&self) -> Result<Vec<bool>> {
        let Some(types) = &self.layer_types else {
            let every = self.global_attn_every_n_layers;
            if every == 0 {
                return Err(Error::model("`global_attn_every_n_layers` is 0")
                    .with_hint("3 is usual; 1 lets every layer see all tokens"));
            }
            return Ok((0..self.num_hidden_layers).map(|i| !i.is_multiple_of(every)).collect());
        };
        if types.len() != self.num_hidden_layers {
            return Err(Error::model(format!(
                "`layer_types` has {} entries, `num_hidden_layers` is {}",
                types.len(),
                self.num_hidden_layers
            ))
            .with_hint("it names the attention of each layer"));
        }
        let local = |name: &String| match name.as_str() {
            "full_attention" => Ok(false),
            "sliding_attention" => Ok(true),
            other => Err(Error::model(format!("`layer_types` has `{other}`"))
                .with_hint("supported are `full_attention` and `sliding_attention`")),
        };
        types.iter().map(local).collect()
    }

    /// The base of the angles in layers of one kind: the new key's, else the old key's.
    fn theta(&self, kind: &str, old: Option<f64>) -> Result<f64> {
        let given = self.rope_parameters.as_ref().and_then(|all| all.get(kind)).unwrap_or(&Value::Null);
        let of = |all: &Value| all.get("rope_type").or(all.get("type")).and_then(Value::as_str).map(str::to_owned);
        if let Some(other) = [given, &self.rope_scaling].into_iter().filter_map(of).find(|name| name != "default") {
            return Err(Error::model(format!("the `rope_type` of `{kind}` is `{other}`"))
                .with_hint("only `default` is supported: angles without scaling"));
        }
        let theta = given.get("rope_theta").and_then(Value::as_f64).or(old);
        let theta = theta.unwrap_or(if kind == "full_attention" { 160_000.0 } else { 10_000.0 });
        if theta > 0.0 {
            return Ok(theta);
        }
        Err(Error::model(format!("the `rope_theta` of `{kind}` is {theta}")).with_hint("it has to be above 0"))
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
        if !head_dim.is_multiple_of(2) {
            return Err(Error::model(format!("heads have {head_dim} values, an odd number"))
                .with_hint("rotary positions turn pairs of them: change `hidden_size` or `num_attention_heads`"));
        }
        Ok(Self {
            local: keys.local()?,
            global_rope_theta: keys.theta("full_attention", keys.global_rope_theta)?,
            // once, no base of their own meant the others'
            local_rope_theta: keys.theta(
                "sliding_attention",
                match config.get("local_rope_theta") {
                    Some(Value::Null) => keys.global_rope_theta,
                    _ => keys.local_rope_theta,
                },
            )?,
            vocab_size: keys.vocab_size,
            hidden_size: keys.hidden_size,
            intermediate_size: keys.intermediate_size,
            num_attention_heads: keys.num_attention_heads,
            max_position_embeddings: keys.max_position_embeddings,
            hidden_activation: activation("hidden_activation", &keys.hidden_activation)?,
            norm_eps: keys.norm_eps,
            norm_bias: keys.norm_bias,
            attention_bias: keys.attention_bias,
            mlp_bias: keys.mlp_bias,
            embedding_dropout: keys.embedding_dropout,
            attention_dropout: keys.attention_dropout,
            mlp_dropout: keys.mlp_dropout,
            local_attention: keys.local_attention,
        })
    }
}

/// Says of every layer what it sees, in place of a rule by layers' numbers, and gives the rule that those to `keep` follow
/// among themselves, if there is one: transformers before 5 knows rules only.
///
/// # Errors
/// When config.json is broken.
pub fn keep_layer_types(config: &mut Value, keep: &[usize]) -> Result<()> {
    let keys: Keys = serde_json::from_value(config.clone()).map_err(|e| Error::model(e.to_string()))?;
    let local = keys.local()?;
    let name = |local: &bool| if *local { "sliding_attention" } else { "full_attention" };
    config["layer_types"] = local.iter().map(name).collect();
    let kept: Vec<bool> = keep.iter().filter_map(|layer| local.get(*layer).copied()).collect();
    let follows = |every: &usize| kept.iter().enumerate().all(|(i, local)| *local != i.is_multiple_of(*every));
    let rule = (1..=kept.len()).find(follows);
    if let Some(keys) = config.as_object_mut() {
        keys.shift_remove("global_attn_every_n_layers");
        keys.extend(rule.map(|every| ("global_attn_every_n_layers".to_owned(), every.into())));
    }
    Ok(())
}
