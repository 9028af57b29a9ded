//! Low-rank adapters (LoRA) on a model's network: the network is frozen, thin matrices beside some of its layers are
//! trained. Saved as PEFT saves them; the model itself is saved with the update added to its weights.
//!
//! Source: Hu et al., "LoRA: low-rank adaptation of large language models" (2021); rsLoRA's scale after Kalajdzievski
//! (2023); DoRA after Liu et al. (2024); names, defaults and files as in PEFT.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::module::{Adaptable, write_json};
use super::weights::{self, Weights};
use super::{SentenceTransformer, TransformerTask};
use crate::error::{Error, Result};
use crate::ops::adapter::{A, B, MAGNITUDE};
use crate::ops::{self, Adapter, Param};
use crate::util::files;
use crate::util::seed::Rng;

/// In a saved adapter every name begins with it.
const PREFIX: &str = "base_model.model.";
const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// Stands for all layers of the network.
pub const ALL_LINEAR: &str = "all-linear";

/// How a network is adapted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraOptions {
    /// The rank: how thin the matrices are. More learns more, and costs more.
    pub r: usize,
    /// The update is multiplied with `alpha / r`.
    pub alpha: f64,
    /// Of the adapters' inputs in training.
    pub dropout: f64,
    /// Which layers get one: ends of their names, as `["query", "value"]`, `"all-linear"`, or one regular expression that
    /// matches a whole name. Default: the queries' and values' layers, as PEFT has it.
    pub target_modules: Option<Targets>,
    /// Multiplies with `alpha / sqrt(r)` instead, so that high ranks learn as fast as low ones.
    pub use_rslora: bool,
    /// Trains the lengths of the layers' rows beside their directions (DoRA): nearer to training the whole model, about
    /// twice the time of a plain adapter.
    pub use_dora: bool,
    /// A saved adapter to go on with: its matrices in place of new ones; `r` and the layers have to be the same.
    pub adapter: Option<String>,
}

impl LoraOptions {
    /// In a line, for plans and cards.
    #[must_use]
    pub fn described(&self) -> String {
        let layers = match &self.target_modules {
            None => "queries and values".to_owned(),
            Some(Targets::Names(names)) => names.join(", "),
            Some(Targets::Pattern(pattern)) => pattern.clone(),
        };
        let kind = if self.use_dora { " with magnitudes (DoRA)" } else { "" };
        format!("rank {}, alpha {}, dropout {}, on {layers}{kind}", self.r, self.alpha, self.dropout)
    }
}

/// One pattern, or ends of names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Targets {
    Pattern(String),
    Names(Vec<String>),
}

impl Default for LoraOptions {
    fn default() -> Self {
        Self { r: 8, alpha: 8.0, dropout: 0.0, target_modules: None, use_rslora: false, use_dora: false, adapter: None }
    }
}

impl LoraOptions {
    /// What the update is multiplied with.
    #[must_use]
    pub fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Refuses a saved adapter that was trained with other settings, or with such as there are none of here; a folder
    /// without them says nothing.
    fn agree_with(&self, config: &Path) -> Result<()> {
        if !config.exists() {
            return Ok(());
        }
        let shown = config.display();
        let saved: Value = serde_json::from_str(&files::read_text(config)?)
            .map_err(|e| Error::model(format!("`{shown}` is no JSON: {e}")))?;
        let own = |key: &str, ours: String, theirs: String, way_out: String| {
            Err(Error::model(format!("`{shown}`: `{key}` is {theirs}, and `{ours}` in the recipe")).with_hint(way_out))
        };
        if let Some(r) = saved["r"].as_u64().filter(|r| *r != self.r as u64) {
            return own("r", format!("r = {}", self.r), r.to_string(), format!("write `r = {r}`"));
        }
        for (key, ours) in [("use_rslora", self.use_rslora), ("use_dora", self.use_dora)] {
            let theirs = saved[key].as_bool().unwrap_or(false);
            if theirs != ours {
                return own(key, format!("{key} = {ours}"), theirs.to_string(), format!("write `{key} = {theirs}`"));
            }
        }
        if let Some(alpha) = saved["lora_alpha"].as_f64().filter(|alpha| *alpha != self.alpha) {
            let (ours, way_out) = (format!("alpha = {}", self.alpha), format!("write `alpha = {alpha:?}`"));
            return own("lora_alpha", ours, alpha.to_string(), way_out);
        }
        let set = |key: &str| match &saved[key] {
            Value::Null => false,
            Value::Bool(yes) => *yes,
            Value::Object(map) => !map.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::String(text) => text != "none",
            Value::Number(_) => true,
        };
        let others = ["rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias", "lora_bias", "layer_replication"];
        if let Some(key) = others.into_iter().find(|key| set(key)) {
            return Err(Error::model(format!("`{shown}`: `{key}` is {}, which is not known here", saved[key]))
                .with_hint("merge that adapter into its base with PEFT, and train from the merged model"));
        }
        Ok(())
    }

    /// Refuses what cannot be meant: the setting, what is wrong with it, the way out.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, String, &'static str)> {
        if self.r == 0 {
            return Some(("r", "is 0".to_owned(), "8 to 64 are usual"));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            let text = format!("must be above 0, found {}", self.alpha);
            return Some(("alpha", text, "`r` or twice `r` is usual"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Some(("dropout", format!("must be in [0, 1), found {}", self.dropout), "0.0 to 0.1 is usual"));
        }
        match &self.target_modules {
            Some(Targets::Names(names)) if names.is_empty() => {
                Some(("target_modules", "is an empty list".to_owned(), "leave it out for queries and values"))
            }
            Some(Targets::Pattern(pattern)) if pattern != ALL_LINEAR => match whole_name(pattern) {
                Ok(_) => None,
                Err(_) => Some((
                    "target_modules",
                    format!("`{pattern}` is no regular expression"),
                    "give ends of names as a list, or \"all-linear\"",
                )),
            },
            _ => None,
        }
    }
}

/// The adapters of a model.
#[derive(Debug)]
pub struct Lora {
    options: LoraOptions,
    /// `adapter_config.json`'s `base_model_name_or_path`.
    base: String,
    task: TransformerTask,
    /// Layers that have one, by their names in the network, with their weights.
    layers: Vec<(String, Arc<Param>)>,
    /// What is trained beside them in the same network: a classifier.
    whole: Vec<(String, Arc<Param>)>,
}

impl Lora {
    /// The names of the layers that have an adapter.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|(name, _)| name.as_str())
    }

    /// All parameters of the adapters.
    #[must_use]
    pub fn params(&self) -> Vec<Arc<Param>> {
        let adapters = self.layers.iter().filter_map(|(_, weight)| weight.adapter());
        adapters.flat_map(|adapter| adapter.params()).map(Arc::clone).collect()
    }

    /// Every tensor of the adapter's file by its name there.
    fn tensors(&self) -> Vec<(String, Arc<Param>)> {
        let mut all = Vec::new();
        for (name, weight) in &self.layers {
            if let Some(adapter) = weight.adapter() {
                all.push((format!("{PREFIX}{name}.{A}"), Arc::clone(&adapter.a)));
                all.push((format!("{PREFIX}{name}.{B}"), Arc::clone(&adapter.b)));
                let magnitude = adapter.magnitude.iter().map(Arc::clone);
                all.extend(magnitude.map(|magnitude| (format!("{PREFIX}{name}.{MAGNITUDE}"), magnitude)));
            }
        }
        all.extend(self.whole.iter().map(|(name, param)| (format!("{PREFIX}{name}"), Arc::clone(param))));
        all
    }

    /// Writes `adapter_config.json` and `adapter_model.safetensors`, which PEFT loads over the base network.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        files::create_dir(directory)?;
        let tensors: Vec<(String, Tensor)> = self
            .tensors()
            .into_iter()
            .map(|(name, param)| Ok((name, param.value().to_device(&Device::Cpu)?)))
            .collect::<Result<_>>()?;
        weights::save(&directory.join(TENSORS), &tensors)?;
        // a classifier goes by its first name; of the network itself layers that are trained whole by all of theirs
        let module = |name: &str| -> String {
            let own = name.rsplit_once('.').map_or(name, |(module, _)| module);
            let network = self.layers().next().and_then(|layer| layer.split_once('.')).map_or("", |(first, _)| first);
            let (first, _) = name.split_once('.').unwrap_or((name, ""));
            if first == network { own.to_owned() } else { first.to_owned() }
        };
        let mut saved: Vec<String> = self.whole.iter().map(|(name, _)| module(name)).collect();
        saved.sort();
        saved.dedup();
        let mut targets: Vec<&str> = self.layers().collect();
        targets.sort_unstable();
        write_json(
            &directory.join(CONFIG),
            &json!({
                "peft_type": "LORA",
                "task_type": match self.task {
                    TransformerTask::SequenceClassification => Value::from("SEQ_CLS"),
                    TransformerTask::FillMask => Value::Null,
                    _ => Value::from("FEATURE_EXTRACTION"),
                },
                "base_model_name_or_path": self.base,
                "r": self.options.r,
                "lora_alpha": number(self.options.alpha),
                "lora_dropout": self.options.dropout,
                "use_rslora": self.options.use_rslora,
                // the layers themselves: patterns could mean others in another version
                "target_modules": targets,
                "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
                "bias": "none",
                "fan_in_fan_out": false,
                "inference_mode": true,
                "init_lora_weights": true,
                "use_dora": self.options.use_dora,
            }),
        )
    }

    /// Takes the values of a saved adapter.
    ///
    /// # Errors
    /// When it is missing, damaged, or of other layers or another rank.
    pub fn load(&self, directory: &Path) -> Result<()> {
        let file = directory.join(TENSORS);
        if !file.exists() {
            return Err(Error::model(format!("no {TENSORS} in `{}`", directory.display()))
                .with_hint("name a folder that PEFT or tallow saved an adapter in"));
        }
        self.options.agree_with(&directory.join(CONFIG))?;
        let mut saved = Weights::load_file(&file, &Device::Cpu)?;
        for (name, param) in self.tensors() {
            let value = saved.take("", &name, param.dims()).map_err(|e| {
                e.with_hint("`r` and `target_modules` have to be those that the adapter was trained with")
            })?;
            param.assign(&value.value().to_device(param.value().device())?)?;
        }
        // PEFT adapts the pooler, too, where all layers are asked for; without a classifier nothing reads it
        let idle = |name: &str| self.task != TransformerTask::SequenceClassification && name.contains(".pooler.");
        if let Some((name, _)) = saved.rest().iter().find(|(name, _)| !idle(name)) {
            return Err(Error::model(format!(
                "`{}` has a tensor `{name}` that the model has no place for",
                file.display()
            ))
            .with_hint("`target_modules` has to be what the adapter was trained with"));
        }
        Ok(())
    }
}

/// A whole number where it is one, as PEFT writes `lora_alpha`.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value < 1e15 { Value::from(value as i64) } else { Value::from(value) }
}

/// Layers that get an adapter by default, by ends of their names in the architectures.
const QUERIES_AND_VALUES: [&str; 14] = [
    "query",
    "value",
    "query_proj",
    "value_proj",
    "q_lin",
    "v_lin",
    "q_proj",
    "v_proj",
    "qkv_proj",
    "Wqkv",
    "attn.q",
    "attn.v",
    "SelfAttention.q",
    "SelfAttention.v",
];

fn whole_name(pattern: &str) -> std::result::Result<regex::Regex, regex::Error> {
    regex::Regex::new(&format!("^(?:{pattern})$"))
}

fn wanted(name: &str, targets: Option<&Targets>) -> Result<bool> {
    let ends = |end: &str| name == end || name.ends_with(&format!(".{end}"));
    Ok(match targets {
        None => QUERIES_AND_VALUES.into_iter().any(ends),
        Some(Targets::Names(names)) => names.iter().any(|end| ends(end)),
        Some(Targets::Pattern(all)) if all == ALL_LINEAR => true,
        Some(Targets::Pattern(pattern)) => {
            whole_name(pattern).map_err(|e| Error::usage(format!("`model.lora.target_modules`: {e}")))?.is_match(name)
        }
    })
}

impl SentenceTransformer {
    /// Freezes the network, and gives the layers that are asked for adapters: A uniform in `±1 / sqrt(in)`, B zeros,
    /// magnitudes the lengths of the layer's rows, so that the model starts as it was. Everything outside the network, and
    /// a classifier on it, is trained as before. `base` is what the saved adapter says it belongs to.
    ///
    /// # Errors
    /// When the model has no network, several, or none of the layers.
    pub fn add_adapter(&mut self, options: &LoraOptions, base: &str, rng: Rng) -> Result<()> {
        let mut networks = Vec::new();
        for module in self.modules() {
            networks.extend(module.adaptable()?);
        }
        let one = (networks.len() == 1).then(|| networks.pop()).flatten();
        let Some(Adaptable { network, frozen, trained, task }) = one else {
            return Err(Error::usage("`model.lora` needs a model with one network, and this has none or several")
                .with_hint("static embeddings and models with a Router are trained whole: leave it out"));
        };
        let mut layers = Vec::new();
        let mut linear: Vec<&str> = Vec::new();
        for (name, param) in &network {
            let Some(layer) = name.strip_suffix(".weight").filter(|_| param.dims().len() == 2) else { continue };
            // tables are no layers
            if layer.ends_with("embeddings") || layer.ends_with("relative_attention_bias") {
                continue;
            }
            linear.push(layer);
            if wanted(layer, options.target_modules.as_ref())? {
                layers.push((layer.to_owned(), Arc::clone(param)));
            }
        }
        if layers.is_empty() {
            let mut ends: Vec<&str> = linear.iter().filter_map(|name| name.rsplit('.').next()).collect();
            ends.sort_unstable();
            ends.dedup();
            return Err(Error::usage("`model.lora.target_modules` is the name of no layer")
                .with_hint(format!("the network's layers are called {}; \"all-linear\" takes all", ends.join(", "))));
        }
        network.iter().chain(&frozen).for_each(|(_, param)| param.freeze());
        for (name, weight) in &layers {
            let &[out, input] = weight.dims() else { continue };
            if options.r > out.min(input) {
                return Err(Error::usage(format!(
                    "`model.lora.r` is {}, and the layer `{name}` is {out} by {input}: no update of it has a higher rank \
                     than {}",
                    options.r,
                    out.min(input)
                ))
                .with_hint("8 to 64 are usual"));
            }
            let mut rng = rng.fork(xxh3_64(name.as_bytes()));
            let bound = 1.0 / (input as f64).sqrt();
            let values: Vec<f32> =
                (0..options.r * input).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
            let device = weight.value().device();
            let a = Tensor::from_vec(values, (options.r, input), &Device::Cpu)?.to_device(device)?;
            let b = Tensor::zeros((out, options.r), DType::F32, device)?;
            let stem = weight.name().strip_suffix("weight").unwrap_or(weight.name());
            let magnitude = match options.use_dora {
                true => Some(Param::new(format!("{stem}{MAGNITUDE}"), &ops::row_lengths(weight.value())?)?),
                false => None,
            };
            weight.adapt(Adapter {
                a: Param::new(format!("{stem}{A}"), &a)?,
                b: Param::new(format!("{stem}{B}"), &b)?,
                scale: options.scale(),
                dropout: options.dropout,
                magnitude,
            })?;
        }
        let lora = Lora { options: options.clone(), base: base.to_owned(), task, layers, whole: trained };
        if let Some(saved) = &options.adapter {
            lora.load(Path::new(saved)).map_err(|e| e.within("`model.lora.adapter`"))?;
        }
        self.set_lora(lora);
        Ok(())
    }
}
