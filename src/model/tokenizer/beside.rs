//! What lies beside a tokenizer.json and belongs to it, kept as it was: its folder may be gone when the model is saved.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::TextTokenizer;
use crate::error::{Error, Result};
use crate::util::files;

/// The files that are kept.
const NAMES: [&str; 4] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"];
/// The one with the limit.
const CONFIG: &str = NAMES[0];

/// A tokenizer's other files.
#[derive(Debug, Clone, Default)]
pub struct TokenizerFiles(Vec<(&'static str, Vec<u8>)>);

impl TokenizerFiles {
    /// Those there are in a directory.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(directory: &Path) -> Result<Self> {
        let there = NAMES.iter().filter(|name| directory.join(name).exists());
        Ok(Self(there.map(|name| Ok((*name, files::read(&directory.join(name))?))).collect::<Result<_>>()?))
    }

    fn config(&self) -> Result<Option<Value>> {
        let Some((_, bytes)) = self.0.iter().find(|(name, _)| *name == CONFIG) else { return Ok(None) };
        serde_json::from_slice(bytes).map(Some).map_err(|e| Error::model(format!("`{CONFIG}` is not JSON: {e}")))
    }

    /// The tokens kept of a text; `None` for no limit.
    ///
    /// # Errors
    /// When the configuration is not JSON.
    pub fn limit(&self) -> Result<Option<usize>> {
        let config = self.config()?.unwrap_or_default();
        let limit = config.get("model_max_length").and_then(Value::as_f64);
        // transformers writes 1e30 for "no limit"
        Ok(limit.filter(|n| *n >= 1.0 && *n < 1e9).map(|n| n as usize))
    }

    /// Writes them with `limit` in the configuration; one that is missing is made, so that transformers finds the limit
    /// and the class.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, directory: &Path, tokenizer: &TextTokenizer, limit: Option<usize>) -> Result<()> {
        for (name, bytes) in self.0.iter().filter(|(name, _)| *name != CONFIG) {
            files::write_atomic(&directory.join(name), bytes)?;
        }
        let own = self.config()?;
        if own.is_some() && self.limit()? == limit {
            let bytes = self.0.iter().find(|(name, _)| *name == CONFIG).map_or(&[][..], |(_, bytes)| bytes);
            return files::write_atomic(&directory.join(CONFIG), bytes);
        }
        let mut config = own.unwrap_or_else(|| generic(tokenizer));
        config["model_max_length"] = limit.map_or_else(|| json!(1e30), Value::from);
        let text = serde_json::to_string_pretty(&config)
            .map_err(|e| Error::Internal(format!("the tokenizer's configuration cannot be written: {e}")))?;
        files::write_atomic(&directory.join(CONFIG), format!("{text}\n").as_bytes())
    }
}

/// A configuration for any tokenizer.json: the special tokens are those of BERT that it has.
fn generic(tokenizer: &TextTokenizer) -> Value {
    let mut config = Map::new();
    config.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    let tokens = [
        ("pad_token", ["[PAD]", "<pad>"]),
        ("unk_token", ["[UNK]", "<unk>"]),
        ("cls_token", ["[CLS]", "<s>"]),
        ("sep_token", ["[SEP]", "</s>"]),
        ("mask_token", ["[MASK]", "<mask>"]),
    ];
    for (key, names) in tokens {
        if let Some(name) = names.iter().find(|name| tokenizer.has(name)) {
            config.insert(key.to_owned(), (*name).into());
        }
    }
    Value::Object(config)
}
