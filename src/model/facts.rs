//! What is a saved model, told from its small files alone? Its type, size, limits and prompts; no weight is read.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::directory::{self, Description, read_json};
use super::tokenizer::TextTokenizer;
use crate::error::Result;
use crate::flow::ModelType;
use crate::util::files;

/// A saved model, as far as advice needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The type it was saved as; `None` of a network that nothing but a language was taught.
    pub model_type: Option<ModelType>,
    /// Whether it is a table of vectors without a network.
    pub is_static: bool,
    /// `model_type` of config.json; empty of a model without a network.
    pub architecture: String,
    pub layers: usize,
    pub hidden: usize,
    pub inner: usize,
    pub vocabulary: usize,
    /// Numbers in its weights.
    pub parameters: u64,
    /// Tokens it keeps of a text.
    pub max_seq_length: Option<usize>,
    pub similarity_fn_name: Option<String>,
    pub prompts: BTreeMap<String, String>,
}

impl Facts {
    /// Reads them.
    ///
    /// # Errors
    /// When a file is not JSON, or the model is of a type that is not known.
    pub fn read(directory: &Path) -> Result<Self> {
        let description = Description::load(directory)?;
        let entries = directory::read_modules(directory)?;
        let classes: Vec<&str> = entries.iter().flatten().map(directory::Entry::class).collect();
        let first = first_folder(directory)?;
        let config = read_json(&first, "config.json")?;
        let limits = read_json(&first, "sentence_bert_config.json")?;
        let number = |names: &[&str]| names.iter().find_map(|name| config[*name].as_u64()).unwrap_or(0) as usize;
        let positions = match number(&["max_position_embeddings"]) {
            0 => None,
            // two positions are for what is in front of them
            n if n % 8 == 2 => Some(n - 2),
            n => Some(n),
        };
        let model_type = if classes.contains(&"SpladePooling") {
            Some(ModelType::SparseEncoder)
        } else if !classes.is_empty() || description.kind != ModelType::SentenceTransformer {
            Some(description.kind)
        } else {
            None
        };
        Ok(Self {
            model_type,
            is_static: classes.first() == Some(&"StaticEmbedding"),
            architecture: config["model_type"].as_str().unwrap_or_default().to_owned(),
            layers: number(&["num_hidden_layers", "n_layers"]),
            hidden: number(&["hidden_size", "dim"]),
            inner: number(&["intermediate_size", "hidden_dim"]),
            vocabulary: number(&["vocab_size"]),
            parameters: parameters(directory)?,
            max_seq_length: limits["max_seq_length"].as_u64().map(|n| n as usize).or(positions),
            similarity_fn_name: description.similarity_fn_name,
            prompts: description.prompts,
        })
    }
}

/// The tokenizer of a saved model, without its limit.
///
/// # Errors
/// When there is none.
pub fn tokenizer_of(directory: &Path) -> Result<TextTokenizer> {
    let entries = directory::read_modules(directory)?;
    let is_static = entries.iter().flatten().next().is_some_and(|entry| entry.class() == "StaticEmbedding");
    let mut tokenizer = TextTokenizer::load(&first_folder(directory)?, !is_static)?;
    tokenizer.set_max_seq_length(None);
    Ok(tokenizer)
}

/// The folder of a model's first module.
fn first_folder(directory: &Path) -> Result<PathBuf> {
    let entries = directory::read_modules(directory)?;
    let first = entries.iter().flatten().next().map(|entry| directory.join(&entry.path));
    Ok(first.unwrap_or_else(|| directory.to_owned()))
}

/// Numbers in all weights of a folder and those below it, by the headers of the files.
fn parameters(directory: &Path) -> Result<u64> {
    let mut total = 0;
    for path in files::list(directory)? {
        if path.is_dir() {
            // other forms of the same weights
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if !["onnx", "openvino"].contains(&name.as_str()) && !name.starts_with('.') {
                total += parameters(&path)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "safetensors") {
            total += header(&path)?.map_or(0, |header| elements(&header));
        }
    }
    Ok(total)
}

/// Longest header that is read; those of large models have some hundred kilobytes.
const LONGEST: u64 = 64 << 20;

/// The header of a safetensors file; `None` of one that is cut off, which loading will say.
fn header(path: &Path) -> Result<Option<Value>> {
    let mut file = files::open(path)?;
    let mut length = [0; 8];
    if file.read_exact(&mut length).is_err() {
        return Ok(None);
    }
    let mut json = Vec::new();
    let read = file.take(u64::from_le_bytes(length).min(LONGEST)).read_to_end(&mut json);
    Ok(read.ok().and_then(|_| serde_json::from_slice(&json).ok()))
}

fn elements(header: &Value) -> u64 {
    let tensors = header.as_object().into_iter().flatten().filter(|(name, _)| *name != "__metadata__");
    let sizes = tensors.map(|(_, tensor)| {
        let shape = tensor["shape"].as_array().map_or(&[][..], Vec::as_slice);
        shape.iter().map(|n| n.as_u64().unwrap_or(0)).product::<u64>()
    });
    sizes.sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(name: &str) -> Facts {
        Facts::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
    }

    #[test]
    fn saved_models_are_told_apart() {
        for (name, model_type) in [
            ("tiny-bert", ModelType::SentenceTransformer),
            ("tiny-cross-encoder", ModelType::CrossEncoder),
            ("tiny-splade", ModelType::SparseEncoder),
            ("tiny-colbert", ModelType::MultiVectorEncoder),
        ] {
            let facts = read(name);
            assert_eq!(facts.model_type, Some(model_type), "{name}");
            assert!(facts.layers > 0 && facts.hidden > 0 && facts.parameters > 1000, "{facts:?}");
            assert!(tokenizer_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).is_ok());
        }
        let facts = read("tiny-static");
        assert!(facts.is_static && facts.layers == 0 && facts.parameters > 0, "{facts:?}");
    }
}
