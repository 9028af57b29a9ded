//! The encoder: a backbone with its configuration as it was found.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use super::{Adaptable, Features, Module, Source, tensors, write_json};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::backbone::{self, Backbone};
use crate::model::head::{HeadOptions, SequenceClassification};
use crate::model::masked_lm::MaskedLm;
use crate::model::multi_vector::Sides;
use crate::model::options::TransformerTask;
use crate::model::tokenizer::TextTokenizer;
use crate::model::weights::{self, Weights};
use crate::ops::{Context, Param};
use crate::util::files;
use crate::util::seed::Rng;

/// A network and its config.json.
pub struct Transformer {
    backbone: Box<dyn Backbone>,
    /// What makes logits of the hidden states, of a model that classifies.
    head: Option<Head>,
    config: Value,
    max_seq_length: Option<usize>,
    lower_case: bool,
    /// The tokenizer's other files as they were: their folder may be gone when the model is saved.
    tokenizer_files: Vec<(&'static str, Vec<u8>)>,
    tokenizer: Arc<TextTokenizer>,
    /// Whether every layer's token embeddings are wanted, for WeightedLayerPooling.
    all_layers: bool,
    /// What it does to queries and to documents, of a model with a vector for each token.
    sides: Option<Sides>,
}

/// What stands on the network.
enum Head {
    Classify(SequenceClassification),
    FillMask(MaskedLm),
}

impl Head {
    fn network_prefix(&self) -> &'static str {
        match self {
            Self::Classify(head) => head.network_prefix(),
            Self::FillMask(head) => head.network_prefix(),
        }
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        match self {
            Self::Classify(head) => head.params(),
            Self::FillMask(head) => head.params(),
        }
    }

    fn new_layers(&self) -> Vec<String> {
        match self {
            Self::Classify(head) => head.new_layers().iter().map(|name| (*name).to_owned()).collect(),
            Self::FillMask(head) => head.new_layers(),
        }
    }

    fn describe(&self, config: &mut Value) {
        match self {
            Self::Classify(head) => head.describe(config),
            Self::FillMask(head) => head.describe(config),
        }
    }

    /// What sentence-transformers 6 wants to know of it.
    fn sentence_config(&self) -> Value {
        let (task, output) = match self {
            Self::Classify(_) => ("sequence-classification", "scores"),
            Self::FillMask(_) => ("fill-mask", "token_embeddings"),
        };
        json!({
            "transformer_task": task,
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": output,
        })
    }
}

/// Files beside tokenizer.json that belong to the tokenizer and are kept as they are.
const TOKENIZER_FILES: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"];

impl Transformer {
    /// Reads a transformers directory.
    ///
    /// # Errors
    /// When the architecture is not supported, or files are missing or broken.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let directory = source.directory;
        let keep = source.options.keep_layers.as_deref();
        let prefix = format!("{}auto_model.", source.prefix);
        let (backbone, config) = backbone::load_layers(directory, &prefix, source.device, keep)?;
        Self::around(backbone, config, TextTokenizer::load(directory, true)?, source)
    }

    /// A new network of the architecture that `config` describes, for a tokenizer: random weights, normal with the
    /// configuration's `initializer_range`. `vocab_size` and `pad_token_id` are the tokenizer's where the configuration
    /// says none.
    ///
    /// # Errors
    /// When the architecture is not supported, or its vocabulary is smaller than the tokenizer's.
    pub fn fresh(config: &Map<String, Value>, tokenizer: TextTokenizer, source: &Source<'_>) -> Result<Self> {
        /// Keeps the network's weights apart from other things drawn from the same seed.
        const STREAM: u64 = 0xF2E5;
        let mut config = config.clone();
        let words = config.entry("vocab_size").or_insert_with(|| tokenizer.vocabulary().into()).as_u64().unwrap_or(0);
        if words < tokenizer.vocabulary() as u64 {
            let needed = tokenizer.vocabulary();
            return Err(Error::usage(format!(
                "`model.config.vocab_size` is {words}, the tokenizer has {needed} tokens"
            ))
            .with_hint("leave it out, or raise it"));
        }
        if let (None, Some(padding)) = (config.get("pad_token_id"), tokenizer.padding()) {
            // networks may count positions from it, and each has another default
            config.insert("pad_token_id".to_owned(), padding.into());
        }
        let mut config = Value::Object(config);
        backbone::complete(&mut config);
        let range = config.get("initializer_range").and_then(Value::as_f64).unwrap_or(0.02);
        let rng = Rng::new(source.options.seed).fork(STREAM);
        let prefix = format!("{}auto_model.", source.prefix);
        let backbone =
            backbone::build(&config, "model.config", &prefix, || Ok(Weights::fresh(rng, range, source.device)))?;
        Self::around(backbone, config, tokenizer, source)
    }

    /// The network's config.json, as it was found.
    pub fn network_config(&self) -> &Value {
        &self.config
    }

    /// Takes a tensor of the checkpoint that the network does not use.
    pub fn take_unused(&mut self, name: &str) -> Option<Tensor> {
        let at = self.backbone.unused().iter().position(|(known, _)| known == name)?;
        let mut unused = self.backbone.take_unused();
        let (_, tensor) = unused.swap_remove(at);
        self.backbone.put_unused(unused);
        Some(tensor)
    }

    fn around(
        mut backbone: Box<dyn Backbone>,
        config: Value,
        mut tokenizer: TextTokenizer,
        source: &Source<'_>,
    ) -> Result<Self> {
        // of a new network the tokenizer may be a file by itself
        let directory = match source.directory.is_dir() {
            true => source.directory,
            // that of a tokenizer in memory is no file: what lies in the current folder is not its own
            false if !source.directory.exists() => source.directory,
            false => source.directory.parent().unwrap_or(source.directory),
        };
        if let Some(dropout) = source.options.dropout {
            backbone.set_dropout(dropout);
        }
        if source.options.gradient_checkpointing {
            backbone.set_checkpointing()?;
        }
        let left = |backbone: &mut Box<dyn Backbone>| {
            Weights::left_over(backbone.take_unused(), &directory.join("model.safetensors"), source.device)
        };
        let head = match source.options.task {
            TransformerTask::FeatureExtraction | TransformerTask::TokenEmbeddings => None,
            TransformerTask::SequenceClassification => {
                /// Keeps the head's weights apart from other things drawn from the same seed.
                const STREAM: u64 = 0x4EAD;
                let options = HeadOptions {
                    num_labels: source.options.num_labels,
                    dropout: source.options.dropout,
                    rng: Rng::new(source.options.seed).fork(STREAM),
                };
                let mut left = left(&mut backbone);
                let width = backbone.hidden_size();
                let head =
                    SequenceClassification::load(&config, width, &mut left, source.prefix, options, source.device)?;
                Some(Head::Classify(head))
            }
            TransformerTask::FillMask => {
                /// As above.
                const STREAM: u64 = 0x3A5C;
                let mut left = left(&mut backbone);
                let rng = Rng::new(source.options.seed).fork(STREAM);
                let network = backbone.as_ref();
                let head = MaskedLm::load(&config, network, &mut left, source.prefix, rng, source.device)?;
                Some(Head::FillMask(head))
            }
        };
        let read = |name: &str| -> Result<Value> {
            let file = directory.join(name);
            if !file.exists() {
                return Ok(Value::Null);
            }
            serde_json::from_str(&files::read_text(&file)?)
                .map_err(|e| Error::model(format!("`{}` is not JSON: {e}", file.display())))
        };
        let sentence = read("sentence_bert_config.json")?;
        let settings = read("tokenizer_config.json")?;
        let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_f64);
        // transformers writes 1e30 for "no limit"
        let limit = number(&sentence, "max_seq_length")
            .or_else(|| number(&settings, "model_max_length"))
            .filter(|n| *n >= 1.0 && *n < 1e9)
            .map(|n| n as usize);
        let mut max_seq_length = match (limit, backbone.max_positions()) {
            (Some(limit), Some(positions)) => Some(limit.min(positions)),
            (limit, positions) => limit.or(positions),
        };
        if let Some(limit) = source.options.max_seq_length {
            check_length(limit, backbone.max_positions())?;
            max_seq_length = Some(limit);
        }
        let lower_case = sentence.get("do_lower_case").and_then(Value::as_bool).unwrap_or(false);
        tokenizer.set_max_seq_length(max_seq_length);
        tokenizer.set_lower_case(lower_case);
        let sides = match source.options.task {
            TransformerTask::TokenEmbeddings => {
                let settings = &source.options.multi_vector;
                for marker in &settings.markers {
                    tokenizer.keep_whole(marker)?;
                }
                Some(Sides::new(&sentence, settings, &tokenizer, backbone.max_positions())?)
            }
            _ => None,
        };
        Ok(Self {
            backbone,
            head,
            all_layers: config.get("output_hidden_states").and_then(Value::as_bool).unwrap_or(false),
            config,
            sides,
            max_seq_length,
            lower_case,
            tokenizer: Arc::new(tokenizer),
            tokenizer_files: TOKENIZER_FILES
                .iter()
                .filter(|name| directory.join(name).exists())
                .map(|name| Ok((*name, files::read(&directory.join(name))?)))
                .collect::<Result<_>>()?,
        })
    }
}

fn check_length(limit: usize, positions: Option<usize>) -> Result<()> {
    match positions {
        Some(positions) if limit > positions => {
            Err(Error::usage(format!("`model.max_seq_length` is {limit}, the model has {positions} positions"))
                .with_hint(format!("set it to {positions} or less")))
        }
        _ if limit < 3 => Err(Error::usage(format!("`model.max_seq_length` is {limit}"))
            .with_hint("it counts special tokens, so at least 3 are needed; 128 to 512 are usual")),
        _ => Ok(()),
    }
}

impl Module for Transformer {
    fn name(&self) -> &'static str {
        "Transformer"
    }

    fn class_path(&self) -> String {
        match &self.head {
            // the name of 5.x, which later versions know, too
            Some(Head::FillMask(_)) => super::sparse_path("MLMTransformer"),
            _ => "sentence_transformers.models.Transformer".to_owned(),
        }
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        if let Some(expanded) = self.expand(&features.batch, features.task.as_deref()) {
            features.batch = expanded;
        }
        let batch: &PackedBatch = &features.batch;
        if self.all_layers {
            let all = self.backbone.forward_layers(batch, context)?;
            features.token_embeddings = all.last().cloned();
            features.all_layers = Some(all);
        } else {
            features.token_embeddings = Some(self.backbone.forward(batch, context)?);
        }
        match (&self.head, &features.token_embeddings) {
            (Some(Head::Classify(head)), Some(tokens)) => {
                features.sentence_embedding = Some(head.forward(tokens, &features.batch, context)?);
            }
            (Some(Head::FillMask(head)), Some(tokens)) => {
                features.token_embeddings = Some(head.forward(tokens, context)?);
                features.vocabulary = Some(head.vocabulary().clone());
            }
            _ => {}
        }
        Ok(features)
    }

    fn forward_layers(&self, batch: &PackedBatch, layers: &[usize], context: &Context) -> Result<Vec<Tensor>> {
        self.backbone.forward_some(batch, layers, context)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        let network = self.backbone.params();
        let Some(head) = &self.head else { return network };
        let prefix = head.network_prefix();
        let network = network.into_iter().map(|(name, param)| (format!("{prefix}{name}"), param));
        network.chain(head.params()).collect()
    }

    fn expand(&self, batch: &PackedBatch, task: Option<&str>) -> Option<PackedBatch> {
        self.sides.as_ref()?.expand(batch, task)
    }

    fn least_length(&self, task: Option<&str>) -> usize {
        self.sides.as_ref().map_or(0, |sides| sides.least_length(task))
    }

    fn tasks(&self) -> Vec<String> {
        match &self.sides {
            Some(_) => vec!["query".to_owned(), "document".to_owned()],
            None => Vec::new(),
        }
    }

    fn rows(&self, batch: &PackedBatch, task: Option<&str>) -> Vec<(Arc<Param>, Vec<u32>)> {
        let expanded = self.expand(batch, task);
        let mut rows = self.backbone.rows(expanded.as_ref().unwrap_or(batch));
        if let Some(Head::FillMask(head)) = &self.head {
            // every word is scored
            rows.push((Arc::clone(&head.vocabulary().weight), (0..head.words() as u32).collect()));
        }
        rows
    }

    fn activation_floats(&self) -> usize {
        self.backbone.activation_floats()
    }

    fn output_dimension(&self, _: usize) -> usize {
        match &self.head {
            None => self.backbone.hidden_size(),
            Some(Head::Classify(head)) => head.num_labels(),
            Some(Head::FillMask(head)) => head.words(),
        }
    }

    fn new_layers(&self) -> Vec<String> {
        self.head.as_ref().map(Head::new_layers).unwrap_or_default()
    }

    fn tokenizer(&self, task: Option<&str>) -> Result<Option<&Arc<TextTokenizer>>> {
        let side = self.sides.as_ref().and_then(|sides| sides.tokenizer(task));
        Ok(Some(side.unwrap_or(&self.tokenizer)))
    }

    fn encoder_shape(&self) -> Option<(usize, usize)> {
        Some((self.backbone.layers(), self.backbone.hidden_size()))
    }

    fn backbone(&self) -> Option<&dyn Backbone> {
        Some(self.backbone.as_ref())
    }

    fn name_classes(&mut self, names: &[String]) {
        if let Some(Head::Classify(head)) = &mut self.head {
            head.name_classes(names);
        }
    }

    fn adaptable(&self) -> Result<Option<Adaptable>> {
        let mut adaptable = Adaptable {
            network: self.backbone.params(),
            frozen: Vec::new(),
            trained: Vec::new(),
            task: match (&self.head, &self.sides) {
                (Some(Head::Classify(_)), _) => TransformerTask::SequenceClassification,
                (Some(Head::FillMask(_)), _) => TransformerTask::FillMask,
                (None, Some(_)) => TransformerTask::TokenEmbeddings,
                (None, None) => TransformerTask::FeatureExtraction,
            },
        };
        let Some(head) = &self.head else { return Ok(Some(adaptable)) };
        let prefix = head.network_prefix();
        adaptable.network.iter_mut().for_each(|(name, _)| *name = format!("{prefix}{name}"));
        match head {
            Head::Classify(_) => {
                // a layer of the network that the classifier reads, as BERT's pooler, is frozen if it was trained before
                let new = head.new_layers();
                let inside =
                    |name: &str| name.starts_with(prefix) && !new.iter().any(|layer| name.contains(layer.as_str()));
                (adaptable.frozen, adaptable.trained) = head.params().into_iter().partition(|(name, _)| inside(name));
            }
            Head::FillMask(_) if !head.new_layers().is_empty() => {
                return Err(Error::usage(format!(
                    "`model.lora` would leave {} as they are, and they are new: their weights are random",
                    head.new_layers().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                ))
                .with_hint("start from a model with a trained masked-LM head, or train it whole"));
            }
            Head::FillMask(_) => adaptable.frozen = head.params(),
        }
        Ok(Some(adaptable))
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
        let mut sentence = json!({"max_seq_length": self.max_seq_length, "do_lower_case": self.lower_case});
        if let Some(head) = &self.head {
            head.describe(&mut config);
            sentence = head.sentence_config();
            if self.lower_case {
                sentence["do_lower_case"] = true.into();
            }
        }
        if let Some(sides) = &self.sides {
            sentence = json!({
                "transformer_task": "feature-extraction",
                "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
                "module_output_name": "token_embeddings",
            });
            if let Some(keys) = sentence.as_object_mut() {
                keys.extend(sides.describe());
                // a new tokenizer has no configuration of its own to keep them
                keys.insert("max_seq_length".to_owned(), json!(self.max_seq_length));
                keys.insert("do_lower_case".to_owned(), self.lower_case.into());
            }
        }
        // versions before 6 kept the limit and lower-casing elsewhere
        let limit_beside = self.head.is_some() || self.sides.is_some();
        write_json(&directory.join("config.json"), &config)?;
        write_json(&directory.join("sentence_bert_config.json"), &sentence)?;
        for (name, bytes) in &self.tokenizer_files {
            match (*name, limit_beside, self.max_seq_length) {
                // the only place for the limit where there is none in sentence_bert_config.json
                ("tokenizer_config.json", true, Some(limit)) => {
                    let mut config: Value = serde_json::from_slice(bytes)
                        .map_err(|e| Error::model(format!("`tokenizer_config.json` is not JSON: {e}")))?;
                    config["model_max_length"] = limit.into();
                    write_json(&directory.join(name), &config)?;
                }
                _ => files::write_atomic(&directory.join(name), bytes)?,
            }
        }
        let without = self.tokenizer_files.iter().all(|(name, _)| *name != "tokenizer_config.json");
        if let (true, Some(_), Some(limit)) = (without, &self.head, self.max_seq_length) {
            // made of a bare tokenizer.json: the limit has no other place, and the class is the network's
            write_json(&directory.join("tokenizer_config.json"), &json!({"model_max_length": limit}))?;
        }
        self.tokenizer.save(directory)?;
        let mut all = tensors(&self.params())?;
        all.extend(self.backbone.unused().iter().cloned());
        weights::save(&directory.join("model.safetensors"), &all)
    }
}
