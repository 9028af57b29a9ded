//! The encoder: a backbone with its configuration as it was found.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use serde_json::{Value, json};

use super::{Features, Module, tensors, write_json};
use crate::error::Result;
use crate::flow::PackedBatch;
use crate::model::backbone::{self, Backbone};
use crate::model::weights;
use crate::ops::{Context, Param};
use crate::util::files;

/// A network and its config.json.
pub struct Transformer {
    backbone: Box<dyn Backbone>,
    config: Value,
    max_seq_length: Option<usize>,
    lower_case: bool,
    /// The tokenizer's other files as they were: their folder may be gone when the model is saved.
    tokenizer_files: Vec<(&'static str, Vec<u8>)>,
}

/// Files beside tokenizer.json that belong to the tokenizer and are kept as they are.
const TOKENIZER_FILES: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"];

impl Transformer {
    /// Reads a transformers directory, the network onto `device`.
    ///
    /// # Errors
    /// When the architecture is not supported, or files are missing or broken.
    pub fn load(directory: &Path, prefix: &str, device: &Device) -> Result<Self> {
        let (backbone, config) = backbone::load(directory, prefix, device)?;
        let read = |name: &str| -> Result<Value> {
            let file = directory.join(name);
            if !file.exists() {
                return Ok(Value::Null);
            }
            serde_json::from_str(&files::read_text(&file)?)
                .map_err(|e| crate::Error::model(format!("`{}` is not JSON: {e}", file.display())))
        };
        let sentence = read("sentence_bert_config.json")?;
        let tokenizer = read("tokenizer_config.json")?;
        let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_f64);
        // transformers writes 1e30 for "no limit"
        let limit = number(&sentence, "max_seq_length")
            .or_else(|| number(&tokenizer, "model_max_length"))
            .filter(|n| *n >= 1.0 && *n < 1e9)
            .map(|n| n as usize);
        let max_seq_length = match (limit, backbone.max_positions()) {
            (Some(limit), Some(positions)) => Some(limit.min(positions)),
            (limit, positions) => limit.or(positions),
        };
        Ok(Self {
            backbone,
            config,
            max_seq_length,
            lower_case: sentence.get("do_lower_case").and_then(Value::as_bool).unwrap_or(false),
            tokenizer_files: TOKENIZER_FILES
                .iter()
                .filter(|name| directory.join(name).exists())
                .map(|name| Ok((*name, files::read(&directory.join(name))?)))
                .collect::<Result<_>>()?,
        })
    }

    /// The network.
    #[must_use]
    pub fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    /// The network, to be changed.
    pub fn backbone_mut(&mut self) -> &mut dyn Backbone {
        self.backbone.as_mut()
    }

    /// Tokens kept of a text.
    #[must_use]
    pub fn max_seq_length(&self) -> Option<usize> {
        self.max_seq_length
    }

    /// Changes how many tokens are kept.
    pub fn set_max_seq_length(&mut self, limit: usize) {
        self.max_seq_length = Some(limit);
    }

    /// Whether texts are lower-cased before the tokenizer.
    #[must_use]
    pub fn lower_case(&self) -> bool {
        self.lower_case
    }
}

impl Module for Transformer {
    fn name(&self) -> &'static str {
        "Transformer"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let batch: &PackedBatch = &features.batch;
        features.token_embeddings = Some(self.backbone.forward(batch, context)?);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        self.backbone.params()
    }

    fn rows(&self, batch: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)> {
        self.backbone.rows(batch)
    }

    fn activation_floats(&self) -> usize {
        self.backbone.activation_floats()
    }

    fn output_dimension(&self, _: usize) -> usize {
        self.backbone.hidden_size()
    }

    fn saves_in_root(&self) -> bool {
        true
    }

    fn save(&self, directory: &Path) -> Result<()> {
        // The weights are saved in f32, and transformers loads what the configuration says.
        let mut config = self.config.clone();
        for key in ["dtype", "torch_dtype"] {
            if config.get(key).is_some() {
                config[key] = "float32".into();
            }
        }
        write_json(&directory.join("config.json"), &config)?;
        write_json(
            &directory.join("sentence_bert_config.json"),
            &json!({"max_seq_length": self.max_seq_length, "do_lower_case": self.lower_case}),
        )?;
        for (name, bytes) in &self.tokenizer_files {
            files::write_atomic(&directory.join(name), bytes)?;
        }
        let mut all = tensors(&self.params())?;
        all.extend(self.backbone.unused().iter().cloned());
        weights::save(&directory.join("model.safetensors"), &all)
    }
}
