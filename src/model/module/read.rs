//! A module's configuration file, read key by key with messages that name file and key.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde_json::Value;

use super::Features;
use crate::error::{Error, Result};
use crate::util::files;

/// A JSON file and where it stands.
pub struct Config {
    file: PathBuf,
    value: Value,
}

impl Config {
    /// Reads `name` in `directory`.
    ///
    /// # Errors
    /// When the file is missing or not JSON.
    pub fn read(directory: &Path, name: &str) -> Result<Self> {
        let file = directory.join(name);
        let value = serde_json::from_str(&files::read_text(&file)?)
            .map_err(|e| Error::model(format!("`{}` is not JSON: {e}", file.display())))?;
        Ok(Self { file, value })
    }

    /// As [`Config::read`]; a file that is not there is an empty one.
    ///
    /// # Errors
    /// When the file is not JSON.
    pub fn read_if_there(directory: &Path, name: &str) -> Result<Self> {
        if directory.join(name).exists() {
            return Self::read(directory, name);
        }
        Ok(Self { file: directory.join(name), value: Value::Object(serde_json::Map::new()) })
    }

    /// An error about this file.
    pub fn bad(&self, what: impl std::fmt::Display) -> Error {
        Error::model(format!("`{}`: {what}", self.file.display()))
    }

    /// The value under the first of several names of a key that is there; null counts as absent.
    pub fn get(&self, names: &[&str]) -> Option<&Value> {
        names.iter().find_map(|name| self.value.get(*name)).filter(|value| !value.is_null())
    }

    /// A whole number above 0.
    ///
    /// # Errors
    /// When it is missing or something else.
    pub fn size(&self, names: &[&str]) -> Result<usize> {
        match self.get(names).and_then(Value::as_u64).filter(|n| *n > 0) {
            Some(n) => Ok(n as usize),
            None => Err(self.bad(format!("`{}` is not a whole number above 0", names.first().unwrap_or(&"")))),
        }
    }

    /// A number, or what it is when left out.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&self, name: &str, default: f64) -> Result<f64> {
        match self.get(&[name]) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.bad(format!("`{name}` is not a number"))),
        }
    }

    /// `true` or `false`, or what it is when left out.
    ///
    /// # Errors
    /// When it is something else.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(&[name]) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.bad(format!("`{name}` is not true or false"))),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.get(&[name]) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.bad(format!("`{name}` is not a text"))),
        }
    }

    /// A list of texts; `None` when it is left out.
    ///
    /// # Errors
    /// When it is something else.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.get(&[name]) else { return Ok(None) };
        serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|_| self.bad(format!("`{name}` is not a list of texts")))
    }

    /// A list of whole numbers above 0; `None` when it is left out.
    ///
    /// # Errors
    /// When it is something else.
    pub fn sizes(&self, name: &str) -> Result<Option<Vec<usize>>> {
        let Some(value) = self.get(&[name]) else { return Ok(None) };
        let sizes: Option<Vec<usize>> = serde_json::from_value(value.clone()).ok();
        match sizes.filter(|sizes| !sizes.is_empty() && !sizes.contains(&0)) {
            Some(sizes) => Ok(Some(sizes)),
            None => Err(self.bad(format!("`{name}` is not a list of whole numbers above 0"))),
        }
    }

    /// Which embeddings `module_input_name` or `module_output_name` means.
    ///
    /// # Errors
    /// When it is neither the sentence's nor the tokens'.
    pub fn slot(&self, name: &str) -> Result<Option<Slot>> {
        match self.text(name)? {
            None => Ok(None),
            Some("sentence_embedding") => Ok(Some(Slot::Sentence)),
            Some("token_embeddings") => Ok(Some(Slot::Tokens)),
            Some(other) => Err(self
                .bad(format!("`{name}` is `{other}`"))
                .with_hint("it can be `sentence_embedding` or `token_embeddings`")),
        }
    }
}

/// Embeddings that a module reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Sentence,
    Tokens,
}

impl Slot {
    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sentence => "sentence_embedding",
            Self::Tokens => "token_embeddings",
        }
    }

    /// The embeddings.
    ///
    /// # Errors
    /// When no module before `module` made any.
    pub fn of<'a>(self, features: &'a Features, module: &str) -> Result<&'a Tensor> {
        match self {
            Self::Sentence => features.sentence(module),
            Self::Tokens => features.tokens(module),
        }
    }

    /// Replaces them.
    pub fn put(self, features: &mut Features, value: Tensor) {
        match self {
            Self::Sentence => features.sentence_embedding = Some(value),
            Self::Tokens => features.token_embeddings = Some(value),
        }
    }
}
