//! What a run will do, as far as that can be told without reading the model and the data; saved with the run, so that
//! it can be continued from anywhere.
//!
//! `None` means that there is none, or that what is not read yet decides, which the field's comment then says: in
//! [`ModelPlan`] the base model, for columns and labels the data, and for [`ArgsPlan::metric_for_best_model`] the first
//! evaluator together with the model's similarity function.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::prompts::Prompts;
use super::schema::{HubStrategy, OnBadRow, PoolingMode, SimilarityFunction};
use crate::data::MultiDatasetBatchSampler;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, ModelType};
use crate::model::distill::Distillation;
use crate::model::{MultiVectorOptions, TokenizerTraining};
use crate::optim::interval::{Every, Interval};
use crate::optim::schedule::SchedulerType;
use crate::util::files;

/// A resolved recipe. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The form of this file; 1.
    pub plan_version: u32,
    /// What the run, its log and its folder are called.
    pub run_name: String,
    /// The kind of model.
    pub model_type: ModelType,
    /// Of all random numbers.
    pub seed: u64,
    /// The folder that gets a folder for the run.
    pub output_dir: PathBuf,
    /// The recipe this came from.
    pub recipe: PathBuf,
    /// Keys the recipe left out, as `args.seed`; for the summary only.
    pub defaulted: Vec<String>,
    /// The model to start from.
    pub model: ModelPlan,
    /// How to train.
    pub args: ArgsPlan,
    /// Publishing.
    pub hub: HubPlan,
    /// The training data, at least one, each with its loss.
    pub train_dataset: Vec<DatasetPlan>,
    /// Data to compute the loss on while evaluating.
    pub eval_dataset: Vec<DatasetPlan>,
    /// What measures the model.
    pub evaluator: Vec<EvaluatorPlan>,
}

/// Something local or on the Hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// A file or directory.
    Path(PathBuf),
    /// A repository's id.
    Hub(String),
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Hub(id) => write!(f, "{id} (Hub)"),
        }
    }
}

/// Where the model comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelSource {
    /// A trained model.
    Base(Location),
    /// A new static embedding.
    StaticEmbedding { embedding_dim: usize, tokenizer: Location },
    /// A new static embedding, and a tokenizer that is learnt from the training data.
    StaticEmbeddingAndTokenizer { embedding_dim: usize, training: TokenizerTraining },
    /// A static embedding out of a transformer.
    Distilled { teacher: Location, how: Distillation },
    /// A new network.
    Config { config: Map<String, Value>, tokenizer: Location },
    /// A new network, and a tokenizer that is learnt from the training data.
    ConfigAndTokenizer { config: Map<String, Value>, training: TokenizerTraining },
}

/// The model; `None` leaves a setting to the base model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPlan {
    /// Where it comes from.
    pub source: ModelSource,
    /// The branch, tag or commit of a base on the Hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Queries without a network (SparseEncoder).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse_static_embedding: Option<SparseStaticEmbeddingPlan>,
    /// An autoencoder behind the embeddings (SparseEncoder).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse_auto_encoder: Option<SparseAutoEncoderPlan>,
    /// The layers that are kept of a base model's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_layers: Option<Vec<usize>>,
    /// Adapters on its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<crate::model::lora::LoraOptions>,
    /// Tokens kept of a text.
    pub max_seq_length: Option<usize>,
    /// How token embeddings become one vector; several are concatenated; empty leaves it to the base model.
    pub pooling_mode: Vec<PoolingMode>,
    /// Whether embeddings are divided by their length.
    pub normalize: Option<bool>,
    /// Dimensions kept of each embedding when the model is used.
    pub truncate_dim: Option<usize>,
    /// Named prompts saved with the model.
    pub prompts: Option<BTreeMap<String, String>>,
    /// The prompt used when none is asked for.
    pub default_prompt_name: Option<String>,
    /// Dropout probability everywhere in the network.
    pub dropout: Option<f64>,
    /// How the saved model compares embeddings.
    pub similarity_fn_name: Option<SimilarityFunction>,
    /// Scores a pair gets (CrossEncoder).
    pub num_labels: Option<usize>,
    /// What the score goes through (CrossEncoder).
    pub activation_fn: Option<ActivationFn>,
    /// Of models with a vector for each token.
    #[serde(default)]
    pub multi_vector: MultiVectorOptions,
}

/// The weights of words in queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseStaticEmbeddingPlan {
    /// A JSON file with them.
    pub idf: Option<PathBuf>,
    /// Files whose texts are counted; may be empty.
    pub corpus: Vec<PathBuf>,
    /// Whether training leaves them alone.
    pub frozen: bool,
}

/// An autoencoder; `None` goes by the width of the embeddings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseAutoEncoderPlan {
    pub hidden_dim: Option<usize>,
    pub k: Option<usize>,
    pub k_aux: Option<usize>,
    pub normalize: Option<bool>,
    pub dead_threshold: Option<usize>,
}

/// One data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetPlan {
    /// What it is called in messages and metrics; unique among its like.
    pub name: String,
    /// Files, directories and globs; none where it is on the Hub.
    pub path: Vec<PathBuf>,
    /// Where it is on the Hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<crate::hub::HubDataset>,
    /// The columns with the texts, in order; empty for all but the label.
    pub columns: Vec<String>,
    /// The column with the label; `None` for the first of `label`, `labels`, `score`, `scores` that is there.
    pub label: Option<String>,
    /// Only so many rows; `None` for all.
    pub limit: Option<u64>,
    /// What to do with a row that can't be used.
    pub on_bad_row: OnBadRow,
    /// Column name to what is put in front of its texts.
    pub prompts: BTreeMap<String, String>,
    /// How rows with hard negatives are made of its pairs; `None` where rows are trained on as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard_negatives: Option<crate::negatives::Settings>,
    /// The teacher that is asked for the labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<crate::recipe::teacher::Teacher>,
    /// The loss for it.
    pub loss: LossPlan,
}

/// A loss with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossPlan {
    /// Its name.
    pub name: String,
    /// Its own settings.
    pub settings: Map<String, Value>,
    /// The wrapper around it, if there is one.
    pub matryoshka: Option<MatryoshkaPlan>,
}

impl LossPlan {
    /// The loss inside all wrappers that are written by their names: its name and settings.
    #[must_use]
    pub fn innermost(&self) -> (&str, &Map<String, Value>) {
        let (mut name, mut settings) = (self.name.as_str(), &self.settings);
        while let Some(Value::Object(inner)) = settings.get("loss")
            && let Some(Value::String(inner_name)) = inner.get("name")
        {
            (name, settings) = (inner_name, inner);
        }
        (name, settings)
    }

    /// Its settings with the wrapper's table among them, as the loss's builder takes them.
    #[must_use]
    pub fn table(&self) -> Map<String, Value> {
        let mut table = self.settings.clone();
        if let Some(m) = &self.matryoshka {
            let wrapper = json!({ "dims": m.dims, "weights": m.weights, "n_dims_per_step": m.n_dims_per_step });
            table.insert("matryoshka".to_owned(), wrapper);
        }
        table
    }
}

/// Prefixes of the embedding that are trained as well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatryoshkaPlan {
    /// The widths.
    pub dims: Vec<usize>,
    /// One weight a width.
    pub weights: Vec<f64>,
    /// Widths drawn at random each step; -1 for all.
    pub n_dims_per_step: i64,
}

/// An evaluator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluatorPlan {
    /// What it is, by sentence-transformers' class name.
    #[serde(rename = "type")]
    pub kind: String,
    /// What its metrics are called after; may be empty.
    pub name: String,
    /// The file or directory it reads.
    pub path: PathBuf,
    /// The columns with its texts; empty for the names it expects.
    pub columns: Vec<String>,
    /// The column with its labels; `None` for the name it expects.
    pub label: Option<String>,
    /// Only so many rows; `None` for all.
    pub limit: Option<u64>,
    /// Its own settings.
    pub settings: Map<String, Value>,
}

impl EvaluatorPlan {
    /// Its settings with its name among them, as the evaluator's builder takes them.
    #[must_use]
    pub fn table(&self) -> Map<String, Value> {
        let mut table = self.settings.clone();
        if !self.name.is_empty() {
            table.insert("name".to_owned(), self.name.clone().into());
        }
        table
    }
}

/// How to train, by the names of `TrainingArguments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArgsPlan {
    /// Passes over the data; not looked at where `max_steps` is given.
    pub num_train_epochs: f64,
    /// Optimizer steps in all; `None` for epochs.
    pub max_steps: Option<u64>,
    pub per_device_train_batch_size: usize,
    /// Tokens of a batch over all columns; `None` for any number.
    pub max_tokens_per_batch: Option<usize>,
    pub per_device_eval_batch_size: usize,
    pub gradient_accumulation_steps: u64,
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    /// 0 for no clipping.
    pub max_grad_norm: f64,
    pub lr_scheduler_type: SchedulerType,
    pub warmup_steps: Interval,
    pub logging_steps: Interval,
    /// When to evaluate; the end of the run is evaluated in any case.
    pub eval: Every,
    /// When to save a checkpoint.
    pub save: Every,
    /// Checkpoints kept; `None` for all.
    pub save_total_limit: Option<usize>,
    pub load_best_model_at_end: bool,
    /// With `eval_` in front; `None` for the primary metric of the first evaluator, which depends on the similarity
    /// function of the model.
    pub metric_for_best_model: Option<String>,
    pub greater_is_better: bool,
    /// `None` for never.
    pub early_stopping: Option<EarlyStoppingPlan>,
    pub batch_sampler: String,
    /// How batches of several data sets follow each other.
    #[serde(default = "proportional")]
    pub multi_dataset_batch_sampler: String,
    pub shuffle: bool,
    pub dataloader_drop_last: bool,
    pub bf16: bool,
    /// Tokens of a micro-batch; `None` for a batch at once where the memory that is free allows it.
    pub gradient_cache_tokens: Option<usize>,
    #[serde(default)]
    pub gradient_checkpointing: bool,
    #[serde(default)]
    pub use_cpu: bool,
    pub full_determinism: bool,
    /// Column to route; may be empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub router_mapping: BTreeMap<String, String>,
    /// Regular expression to the learning rate of the parameters it is found in; may be empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub learning_rate_mapping: BTreeMap<String, f64>,
    /// What is put in front of texts in training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Prompts>,
    /// Besides the run's own files; may be empty.
    pub report_to: Vec<String>,
    /// What trackers put runs together in; `None` leaves it to the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Where Trackio shows runs; `None` leaves it to the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trackio_space_id: Option<String>,
    pub num_threads: usize,
}

/// When to give up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStoppingPlan {
    /// Evaluations without improvement.
    pub patience: u64,
    /// By how much the metric must improve to count.
    pub threshold: f64,
}

/// Publishing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubPlan {
    pub push_to_hub: bool,
    /// `user/name`, or a name on the token's own account.
    pub hub_model_id: String,
    pub hub_private_repo: bool,
    #[serde(default)]
    pub hub_strategy: HubStrategy,
    /// Whether a checkpoint's model waits while the one before is on its way, rather than being left out.
    #[serde(default)]
    pub hub_always_push: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_revision: Option<String>,
}

/// Of plans that were written before there was a choice.
fn proportional() -> String {
    MultiDatasetBatchSampler::default().name().to_owned()
}

impl Plan {
    /// As TOML, readable and complete.
    ///
    /// # Errors
    /// When a setting has no form in TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Internal(format!("the plan can't be written as TOML: {e}")))
    }

    /// As JSON.
    ///
    /// # Errors
    /// When a setting has no form in JSON.
    pub fn to_json(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| Error::Internal(format!("the plan can't be written as JSON: {e}")))
    }

    /// Writes it, as TOML or, where the name ends so, as JSON.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = if path.extension().is_some_and(|e| e == "json") {
            format!("{:#}\n", self.to_json()?)
        } else {
            self.to_toml()?
        };
        files::write_atomic(path, text.as_bytes())
    }

    /// Reads what [`Plan::save`] wrote.
    ///
    /// # Errors
    /// When it can't be read or is no plan.
    pub fn load(path: &Path) -> Result<Self> {
        let text = files::read_text(path)?;
        let plan = if path.extension().is_some_and(|e| e == "json") {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str(&text).map_err(|e| e.to_string())
        };
        plan.map_err(|e| {
            Error::data(format!("`{}` is not the plan of a run: {}", path.display(), e.trim()))
                .with_hint("start the run again from its recipe")
        })
    }
}
