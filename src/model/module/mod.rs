//! Which steps can stand in a model's modules.json?
//!
//! A module is chosen by the last part of its `type`, so that the old and the new Python paths both work.

pub mod dense;
pub mod normalize;
pub mod pooling;
pub mod static_embedding;
pub mod transformer;

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::ops::{Context, Param};
use crate::util::files;

/// What flows from module to module.
pub struct Features {
    /// The input.
    pub batch: PackedBatch,
    /// `[tokens, hidden]`, once a Transformer has run.
    pub token_embeddings: Option<Tensor>,
    /// `[sequences, dim]`, once something has pooled.
    pub sentence_embedding: Option<Tensor>,
}

impl Features {
    /// The sentence embedding.
    ///
    /// # Errors
    /// When no module before `module` made one.
    pub fn sentence(&self, module: &str) -> Result<&Tensor> {
        self.sentence_embedding.as_ref().ok_or_else(|| {
            Error::model(format!("the {module} module comes before anything that pools"))
                .with_hint("modules.json wants Transformer, Pooling, then the rest")
        })
    }
}

/// One step of a model.
pub trait Module: Send + Sync {
    /// The class name of sentence-transformers.
    fn name(&self) -> &'static str;

    /// Runs it.
    ///
    /// # Errors
    /// When what it needs is missing, or a tensor operation fails.
    fn forward(&self, features: Features, context: &Context) -> Result<Features>;

    /// Every parameter, with its name inside the module's weights file.
    fn params(&self) -> Vec<(String, Arc<Param>)> {
        Vec::new()
    }

    /// The rows of its tables that a pass over `batch` reads.
    fn rows(&self, batch: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)> {
        let _ = batch;
        Vec::new()
    }

    /// Values a token leaves behind in a forward pass that is to be differentiated.
    fn activation_floats(&self) -> usize {
        0
    }

    /// Width of what it takes, where only one will do.
    fn input_dimension(&self) -> Option<usize> {
        None
    }

    /// Width of what it puts out, given the width of what goes in.
    fn output_dimension(&self, input: usize) -> usize {
        input
    }

    /// The folder it is saved in is the model's own, not a numbered one.
    fn saves_in_root(&self) -> bool {
        false
    }

    /// Writes configuration and weights into `directory`.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn save(&self, directory: &Path) -> Result<()>;
}

/// The modules that can be loaded.
pub const SUPPORTED: &[&str] = &["Transformer", "Pooling", "Normalize", "Dense", "StaticEmbedding"];

/// config.json of a module's folder.
pub(super) fn read_config(directory: &Path) -> Result<Value> {
    let file = directory.join("config.json");
    let text = files::read_text(&file)?;
    serde_json::from_str(&text).map_err(|e| Error::model(format!("`{}` is not JSON: {e}", file.display())))
}

/// Writes a JSON file as sentence-transformers does, indented.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|e| Error::Internal(format!("cannot write JSON: {e}")))?;
    text.push('\n');
    files::write_atomic(path, text.as_bytes())
}

/// The values of parameters under their names, on the host, for saving.
pub(super) fn tensors(params: &[(String, Arc<Param>)]) -> Result<Vec<(String, Tensor)>> {
    params.iter().map(|(name, param)| Ok((name.clone(), param.value().to_device(&Device::Cpu)?))).collect()
}
