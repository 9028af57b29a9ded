//! Divides embeddings by their lengths.

use std::path::Path;

use serde_json::json;

use super::{Config, Features, Module, Slot, write_json};
use crate::error::Result;
use crate::ops::{self, Context};

/// `x / max(‖x‖₂, 1e-12)`.
pub struct Normalize {
    input: Slot,
    output: Slot,
}

impl Normalize {
    /// Of sentence embeddings.
    #[must_use]
    pub fn new() -> Self {
        Self { input: Slot::Sentence, output: Slot::Sentence }
    }

    /// Of every token's embedding.
    #[must_use]
    pub fn of_tokens() -> Self {
        Self { input: Slot::Tokens, output: Slot::Tokens }
    }

    /// Reads the folder's config.json, which versions before 5.5 did not write.
    ///
    /// # Errors
    /// When it names embeddings that there are not.
    pub fn load(directory: &Path) -> Result<Self> {
        let config = Config::read_if_there(directory, "config.json")?;
        let input = config.slot("module_input_name")?.unwrap_or(Slot::Sentence);
        Ok(Self { input, output: config.slot("module_output_name")?.unwrap_or(input) })
    }
}

impl Default for Normalize {
    fn default() -> Self {
        Self::new()
    }
}

impl Module for Normalize {
    fn name(&self) -> &'static str {
        "Normalize"
    }

    fn forward(&self, mut features: Features, _: &Context) -> Result<Features> {
        let y = ops::l2_normalize(self.input.of(&features, self.name())?, 1e-12)?;
        self.output.put(&mut features, y);
        Ok(features)
    }

    fn save(&self, directory: &Path) -> Result<()> {
        if (self.input, self.output) == (Slot::Sentence, Slot::Sentence) {
            return Ok(());
        }
        let config = json!({"module_input_name": self.input.name(), "module_output_name": self.output.name()});
        write_json(&directory.join("config.json"), &config)
    }
}
