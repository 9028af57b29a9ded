//! The directory of a sentence-transformers model: modules.json and config_sentence_transformers.json.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::module::{self, Module, write_json};
use super::multi_vector::MultiVectorOptions;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, ModelType};
use crate::util::{files, suggest};

/// One line of modules.json.
#[derive(Debug, Clone, Deserialize)]
pub struct Entry {
    /// Folder below the model's, empty for the model's own.
    #[serde(default)]
    pub path: String,
    /// Python path of the class.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Entry {
    /// The class name.
    pub fn class(&self) -> &str {
        module::class(&self.kind)
    }
}

/// A JSON file of a directory; null where there is none.
///
/// # Errors
/// When it is not JSON.
pub fn read_json(directory: &Path, name: &str) -> Result<Value> {
    let file = directory.join(name);
    if !file.exists() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&files::read_text(&file)?)
        .map_err(|e| Error::model(format!("`{}` is not JSON: {e}", file.display())))
}

/// config_sentence_transformers.json, as far as it changes what a model does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Prompts by name; never empty strings.
    pub prompts: BTreeMap<String, String>,
    /// The prompt used when none is named.
    pub default_prompt_name: Option<String>,
    /// `cosine` unless the model says otherwise.
    pub similarity_fn_name: Option<String>,
    /// Values that `encode` keeps of each embedding; `None` for all.
    pub truncate_dim: Option<usize>,
    /// Values that stay active of each sparse embedding, the largest; `None` for all.
    pub max_active_dims: Option<usize>,
    /// What the model is.
    pub kind: ModelType,
    /// What `predict` applies to logits; `None` for what the number of labels suggests.
    pub activation_fn: Option<ActivationFn>,
    /// The Python path of an activation that is not known here.
    pub unknown_activation: Option<String>,
    /// What PyLate or Stanford's ColBERT kept beside a model, which its modules do not say.
    pub multi_vector: MultiVectorOptions,
}

impl Description {
    /// Reads the file; a directory without it has no prompts and the default similarity.
    ///
    /// # Errors
    /// When a file is not JSON, or says the model is of a type that is not known.
    pub fn load(directory: &Path) -> Result<Self> {
        let read = |name: &str| read_json(directory, name);
        let config = read("config_sentence_transformers.json")?;
        // before 6.0 rerankers were plain transformers models
        let network = if directory.join("modules.json").exists() && !config.is_null() {
            Value::Null
        } else {
            read("config.json")?
        };
        let stanford = network["architectures"][0] == "HF_ColBERT";
        let classifies = network["architectures"][0].as_str().is_some_and(|a| a.ends_with("ForSequenceClassification"));
        let kind = match config.get("model_type").and_then(Value::as_str) {
            None if classifies => ModelType::CrossEncoder,
            None if stanford => ModelType::MultiVectorEncoder,
            // PyLate's name for it
            Some("ColBERT") => ModelType::MultiVectorEncoder,
            // older models of PyLate do not say what they are
            None if MultiVectorOptions::is_pylate(&config) => ModelType::MultiVectorEncoder,
            None => ModelType::SentenceTransformer,
            Some(name) => serde_json::from_value(name.into()).map_err(|_| {
                Error::model(format!("`{}` is a {name}, which is no type of model known here", directory.display()))
            })?,
        };
        let activation = [
            &config["activation_fn"],
            &network["sentence_transformers"]["activation_fn"],
            &network["sbert_ce_default_activation_function"],
        ];
        let activation = activation.into_iter().find_map(Value::as_str);
        let activation_fn = activation.and_then(ActivationFn::of_path);
        let mut prompts: BTreeMap<String, String> = config
            .get("prompts")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())))
            .filter(|(_, text)| !text.is_empty())
            .collect();
        let mut multi_vector = MultiVectorOptions::default();
        if kind == ModelType::MultiVectorEncoder {
            multi_vector = MultiVectorOptions::of_pylate(&config);
            let mut marked = |name: &str, marker: &str| {
                let prompt = prompts.get(name).map_or("", String::as_str);
                let prompt = format!("{marker}{}", prompt.strip_prefix(marker).unwrap_or(prompt));
                prompts.insert(name.to_owned(), prompt);
            };
            for (key, name) in [("query_prefix", "query"), ("document_prefix", "document")] {
                if let Some(marker) = config[key].as_str().filter(|marker| !marker.is_empty()) {
                    marked(name, marker);
                }
            }
            if stanford {
                let (settings, [query, document]) = MultiVectorOptions::of_stanford(directory)?;
                multi_vector = settings;
                marked("query", &query);
                marked("document", &document);
            }
        }
        let max_active_dims = match config.get("max_active_dims") {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_u64().filter(|most| *most > 0) {
                Some(most) => Some(most as usize),
                None => {
                    let file = directory.join("config_sentence_transformers.json");
                    let text = format!("`{}`: `max_active_dims` is {value}", file.display());
                    return Err(Error::model(text).with_hint("it is a number above 0, or null for all"));
                }
            },
        };
        Ok(Self {
            prompts,
            multi_vector,
            default_prompt_name: config.get("default_prompt_name").and_then(Value::as_str).map(str::to_owned),
            similarity_fn_name: config
                .get("similarity_fn_name")
                .and_then(Value::as_str)
                // PyLate writes other names, and means this one
                .filter(|name| kind != ModelType::MultiVectorEncoder || ["maxsim", "meanmaxsim"].contains(name))
                .map(str::to_owned),
            truncate_dim: config.get("truncate_dim").and_then(Value::as_u64).map(|n| n as usize),
            max_active_dims,
            kind,
            activation_fn,
            unknown_activation: activation.filter(|_| activation_fn.is_none()).map(str::to_owned),
        })
    }

    /// How embeddings are compared where nothing says so.
    #[must_use]
    pub fn default_similarity(&self) -> &'static str {
        match self.kind {
            ModelType::SparseEncoder => "dot",
            ModelType::MultiVectorEncoder => "maxsim",
            _ => "cosine",
        }
    }

    fn to_json(&self) -> Value {
        if self.kind == ModelType::CrossEncoder {
            return json!({
                "__version__": {"sentence_transformers": "6.0.0", "tallow": env!("CARGO_PKG_VERSION")},
                "model_type": self.kind.name(),
                "prompts": self.prompts,
                "default_prompt_name": self.default_prompt_name,
                "activation_fn": self.activation_fn.map(ActivationFn::path),
            });
        }
        let version = if self.kind == ModelType::MultiVectorEncoder { "6.0.0" } else { "5.0.0" };
        let mut config = json!({
            "__version__": {"sentence_transformers": version, "tallow": env!("CARGO_PKG_VERSION")},
            "model_type": self.kind.name(),
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
            "similarity_fn_name": self.similarity_fn_name.as_deref().unwrap_or(self.default_similarity()),
        });
        if let Some(dim) = self.truncate_dim {
            config["truncate_dim"] = dim.into();
        }
        if let Some(most) = self.max_active_dims {
            config["max_active_dims"] = most.into();
        }
        config
    }
}

/// Reads modules.json; `None` for a plain transformers directory.
///
/// # Errors
/// When it is not what sentence-transformers writes, or names a class that is not supported.
pub fn read_modules(directory: &Path) -> Result<Option<Vec<Entry>>> {
    let file = directory.join("modules.json");
    if !file.exists() {
        return Ok(None);
    }
    let entries: Vec<Entry> = serde_json::from_str(&files::read_text(&file)?)
        .map_err(|e| Error::model(format!("`{}`: {e}", file.display())))?;
    for entry in &entries {
        let supported = module::supported();
        if !supported.contains(&entry.class()) {
            let names = supported.iter().map(|m| format!("`{m}`")).collect::<Vec<_>>().join(", ");
            let near = suggest::nearest(entry.class(), supported.iter().copied());
            return Err(Error::model(format!(
                "`{}`: modules of type `{}` are not supported",
                file.display(),
                entry.kind
            ))
            .with_hint(match near {
                Some(near) => format!("did you mean `{near}`? Supported are {names}"),
                None => format!("supported are {names}"),
            }));
        }
    }
    if entries.is_empty() {
        return Err(Error::model(format!("`{}` lists no modules", file.display())));
    }
    Ok(Some(entries))
}

/// Where Python finds the class of a multi-vector model's module.
fn multi_vector_path(module: &str) -> String {
    match module {
        "MultiVectorMask" => {
            "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask".to_owned()
        }
        other => format!("sentence_transformers.base.modules.{}.{other}", other.to_lowercase()),
    }
}

/// Writes every module and the two configuration files into `directory`, which exists.
///
/// The Python paths written are the ones that every version since 2.0 understands.
///
/// # Errors
/// When a file cannot be written.
pub fn save(directory: &Path, modules: &[Box<dyn Module>], description: &Description) -> Result<()> {
    let mut entries = Vec::with_capacity(modules.len());
    for (i, module) in modules.iter().enumerate() {
        let path = if i == 0 && module.saves_in_root() { String::new() } else { format!("{i}_{}", module.name()) };
        let folder = directory.join(&path);
        files::create_dir(&folder)?;
        module.save(&folder)?;
        entries.push(json!({
            "idx": i,
            "name": i.to_string(),
            "path": path,
            "type": match description.kind {
                // of no version before 6
                ModelType::MultiVectorEncoder => multi_vector_path(module.name()),
                _ => module.class_path(),
            },
        }));
    }
    write_json(&directory.join("modules.json"), &Value::Array(entries))?;
    write_json(&directory.join("config_sentence_transformers.json"), &description.to_json())
}
