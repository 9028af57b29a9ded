//! config.json of Llama's relatives, in the keys of transformers 4 and 5.

use serde::Deserialize;
use serde_json::Value;

use super::{Family, GEMMA3, QWEN2, QWEN3};
use crate::error::{Error, Result};
use crate::model::backbone::bert_like::config::check_heads;
use crate::ops::{Activation, Rotary};

/// What the network is like.
#[derive(Debug, Clone)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub activation: Activation,
    pub rms_norm_eps: f64,
    pub attention_bias: bool,
    pub output_bias: bool,
    pub mlp_bias: bool,
    pub attention_dropout: f64,
    /// Scores are divided by its root.
    pub query_scalar: f64,
    /// Whether tokens see those before them only.
    pub causal: bool,
    /// Whether each layer's tokens see their neighbours only.
    pub local: Vec<bool>,
    /// How far they see in such a layer.
    pub window: usize,
    /// By how much heads turn from place to place, in layers that see everything and in the others.
    pub speeds: [Vec<f32>; 2],
}

#[derive(Debug, Deserialize)]
struct Keys {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    #[serde(alias = "hidden_activation")]
    hidden_act: Option<String>,
    rms_norm_eps: f64,
    attention_bias: Option<bool>,
    #[serde(default)]
    mlp_bias: bool,
    attention_dropout: Option<f64>,
    query_pre_attn_scalar: Option<f64>,
    is_causal: Option<bool>,
    use_bidirectional_attention: Option<bool>,
    #[serde(default)]
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    max_window_layers: Option<usize>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    /// Since transformers 5.
    rope_parameters: Option<Value>,
    /// Before it.
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Value>,
    attn_logit_softcapping: Option<f64>,
}

/// Which layers see everything.
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

impl Keys {
    fn local(&self, family: &Family) -> Result<Vec<bool>> {
        let layers = self.num_hidden_layers;
        if let Some(types) = &self.layer_types {
            if types.len() != layers {
                return Err(Error::model(format!(
                    "`layer_types` has {} entries, `num_hidden_layers` is {layers}",
                    types.len()
                ))
                .with_hint("it names the attention of each layer"));
            }
            let local = |name: &String| match name.as_str() {
                FULL => Ok(false),
                SLIDING => Ok(true),
                other => Err(Error::model(format!("`layer_types` has `{other}`"))
                    .with_hint(format!("supported are `{FULL}` and `{SLIDING}`"))),
            };
            return types.iter().map(local).collect();
        }
        let last_full = self.max_window_layers.unwrap_or(28);
        Ok((0..layers)
            .map(|i| match family.window {
                Window::None => false,
                Window::Everywhere => self.sliding_window.is_some(),
                Window::Above => self.use_sliding_window && self.sliding_window.is_some() && i >= last_full,
                Window::Pattern => !(i + 1).is_multiple_of(self.sliding_window_pattern.unwrap_or(6).max(1)),
            })
            .collect())
    }

    /// The angles' speeds in layers of one kind.
    fn speeds(&self, kind: &str, family: &Family, head_dim: usize) -> Result<Vec<f32>> {
        let nested = self.rope_parameters.as_ref().and_then(|all| all.get(kind));
        // one set for all layers, or one for each kind
        let given = nested.or(self.rope_parameters.as_ref().filter(|all| all.get(FULL).is_none()));
        let local = kind == SLIDING && family.two_thetas;
        // scaling of old configurations is not for layers with a window of their own angles
        let scaling = given.or(self.rope_scaling.as_ref().filter(|_| !local)).unwrap_or(&Value::Null);
        let old = if local { self.rope_local_base_freq } else { self.rope_theta };
        let default = if local { 10_000.0 } else { family.theta };
        let theta = given.and_then(|all| all.get("rope_theta")).and_then(Value::as_f64).or(old).unwrap_or(default);
        if theta.is_nan() || theta <= 0.0 {
            return Err(Error::model(format!("`rope_theta` is {theta}")).with_hint("it has to be above 0"));
        }
        let number = |key: &str| {
            let value = scaling.get(key).and_then(Value::as_f64).filter(|value| *value > 0.0);
            value.ok_or_else(|| Error::model(format!("the scaling of angles has no `{key}` above 0")))
        };
        if scaling.get("partial_rotary_factor").and_then(Value::as_f64).is_some_and(|part| part != 1.0) {
            return Err(Error::model("`partial_rotary_factor` is not 1").with_hint("only whole heads are turned here"));
        }
        let speeds = Rotary::speeds(theta, head_dim);
        let name = scaling.get("rope_type").or(scaling.get("type")).and_then(Value::as_str).unwrap_or("default");
        Ok(match name {
            "default" => speeds,
            "linear" => {
                let factor = number("factor")? as f32;
                speeds.into_iter().map(|speed| speed / factor).collect()
            }
            "llama3" => {
                let (factor, low, high) = (number("factor")?, number("low_freq_factor")?, number("high_freq_factor")?);
                let old = number("original_max_position_embeddings")?;
                if high <= low {
                    return Err(Error::model("`high_freq_factor` is not above `low_freq_factor`"));
                }
                speeds.into_iter().map(|speed| llama3(f64::from(speed), factor, [low, high], old) as f32).collect()
            }
            other => {
                return Err(Error::model(format!("the `rope_type` is `{other}`"))
                    .with_hint("supported are `default`, `linear` and `llama3`"));
            }
        })
    }
}

/// A speed as Llama 3.1 changes it: slow turns `factor` times slower, fast ones as they are, between them by degrees.
///
/// Source: `_compute_llama3_parameters` of transformers.
fn llama3(speed: f64, factor: f64, [low, high]: [f64; 2], old: f64) -> f64 {
    let length = 2.0 * std::f64::consts::PI / speed;
    if length > old / low {
        return speed / factor;
    }
    if length < old / high {
        return speed;
    }
    let smooth = (old / length - low) / (high - low);
    (1.0 - smooth) * speed / factor + smooth * speed
}

/// Which layers have a window, where config.json does not name each.
#[derive(Debug, Clone, Copy)]
pub enum Window {
    None,
    /// All, if there is a window.
    Everywhere,
    /// Those from `max_window_layers` on, if asked for.
    Above,
    /// All but every so-manieth.
    Pattern,
}

impl Config {
    /// Reads config.json.
    ///
    /// # Errors
    /// When a key is missing or of another type, or says what would be computed otherwise.
    pub fn read(config: &Value, family: &Family) -> Result<Self> {
        let keys: Keys = serde_json::from_value(config.clone()).map_err(|e| Error::model(e.to_string()))?;
        let heads = keys.num_attention_heads;
        let head_dim = match keys.head_dim.or(family.head_dim) {
            Some(head_dim) => head_dim,
            None => {
                check_heads(("num_attention_heads", heads), ("hidden_size", keys.hidden_size))?;
                keys.hidden_size / heads
            }
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(Error::model(format!("heads have {head_dim} values, an odd number"))
                .with_hint("rotary positions turn pairs of them: change `head_dim`"));
        }
        let pairs = keys.num_key_value_heads.unwrap_or(heads);
        check_heads(("num_key_value_heads", pairs), ("num_attention_heads", heads))?;
        if keys.attn_logit_softcapping.is_some() {
            return Err(Error::model("`attn_logit_softcapping` is set").with_hint("scores are not capped here"));
        }
        let bidirectional = keys.use_bidirectional_attention.unwrap_or(false);
        let causal = keys.is_causal.unwrap_or(true) && !bidirectional;
        let local = keys.local(family)?;
        let window = match keys.sliding_window {
            Some(0) => return Err(Error::model("`sliding_window` is 0").with_hint("a token sees itself at least")),
            None if local.contains(&true) => {
                return Err(Error::model("layers have a window, and `sliding_window` is missing"));
            }
            // so many tokens with itself; to both sides, as many to each, or half
            Some(window) if bidirectional => window / 2,
            Some(window) if !causal => window,
            Some(window) => window - 1,
            None => 0,
        };
        let bias = family.attention_bias.or(keys.attention_bias).unwrap_or(false);
        Ok(Self {
            speeds: [keys.speeds(FULL, family, head_dim)?, keys.speeds(SLIDING, family, head_dim)?],
            vocab_size: keys.vocab_size,
            hidden_size: keys.hidden_size,
            intermediate_size: keys.intermediate_size,
            num_attention_heads: heads,
            num_key_value_heads: pairs,
            head_dim,
            max_position_embeddings: keys.max_position_embeddings,
            activation: activation(keys.hidden_act.as_deref().unwrap_or(family.activation))?,
            rms_norm_eps: keys.rms_norm_eps,
            attention_bias: bias,
            output_bias: bias && family.attention_bias.is_none(),
            mlp_bias: keys.mlp_bias && family.mlp_bias,
            attention_dropout: keys.attention_dropout.unwrap_or(0.0),
            query_scalar: keys.query_pre_attn_scalar.filter(|_| family.gemma).unwrap_or(head_dim as f64),
            causal,
            local,
            window,
        })
    }
}

/// Names the attention of each layer where only a rule did, before some of them are dropped.
///
/// # Errors
/// When a key is missing or of another type.
pub fn keep_layer_types(config: &mut Value, _: &[usize]) -> Result<()> {
    let family = match config.get("model_type").and_then(Value::as_str) {
        Some("qwen2") => &QWEN2,
        Some("qwen3") => &QWEN3,
        Some("gemma3_text") => &GEMMA3,
        // all their layers are alike
        _ => return Ok(()),
    };
    let keys: Keys = serde_json::from_value(config.clone()).map_err(|e| Error::model(e.to_string()))?;
    let name = |local: &bool| if *local { SLIDING } else { FULL };
    config["layer_types"] = keys.local(family)?.iter().map(name).collect();
    Ok(())
}

fn activation(name: &str) -> Result<Activation> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(Error::model(format!("the activation is `{other}`"))
            .with_hint("supported are `silu`, `gelu`, `gelu_pytorch_tanh` and `relu`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_slows_slow_turns_down() {
        let at = |speed| llama3(speed, 8.0, [1.0, 4.0], 8192.0);
        assert_eq!(at(1.0), 1.0);
        assert_eq!(at(1e-5), 1e-5 / 8.0);
        let between = at(2.0 * std::f64::consts::PI / 4096.0);
        // a third of the way
        let speed = 2.0 * std::f64::consts::PI / 4096.0;
        assert!((between - (2.0 / 3.0 * speed / 8.0 + speed / 3.0)).abs() < 1e-12);
    }
}
