//! What a recipe may say: the typed form of the file, before anything is resolved.
//!
//! Every `Option` here means "not written"; what that comes to is said in the field's comment and decided in
//! [`super::plan`]. The comments are the help text and the schema's descriptions.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::prompts::Prompts;
pub use super::shape::{EvaluatorConfig, LossConfig, OneOrMany, PcaDims};
use super::teacher::Teacher;
pub use crate::data::OnBadRow;
use crate::flow::{ActivationFn, ModelType};
use crate::model::QueryExpansion;
pub use crate::model::TokenizerAlgorithm;
pub use crate::model::distill::TeacherPooling;
use crate::model::lora::LoraOptions;
use crate::negatives::Settings;
pub use crate::ops::PoolingMode;
use crate::optim::schedule::SchedulerType;

/// How a saved model compares embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SimilarityFunction {
    Cosine,
    Dot,
    Euclidean,
    Manhattan,
    /// Of models with a vector for each token.
    MaxSim,
    /// As `maxsim`, divided by how many tokens the query has.
    MeanMaxSim,
}

impl SimilarityFunction {
    /// sentence-transformers' name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Manhattan => "manhattan",
            Self::MaxSim => "maxsim",
            Self::MeanMaxSim => "meanmaxsim",
        }
    }

    /// Whether it compares texts that have a vector for each token.
    #[must_use]
    pub const fn late(self) -> bool {
        matches!(self, Self::MaxSim | Self::MeanMaxSim)
    }
}

/// A recipe: everything about one training run.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the run, its log and its folder are called. Default: the recipe's file name without its ending.
    pub run_name: Option<String>,
    /// The kind of model: `SentenceTransformer`, `CrossEncoder`, `SparseEncoder` or `MultiVectorEncoder`. Default:
    /// `SentenceTransformer`.
    pub model_type: Option<ModelType>,
    /// Of all random numbers. Default: 42, as Hugging Face has it.
    pub seed: Option<u64>,
    /// The folder that gets a folder for the run, relative to the current directory. Default: `runs`.
    pub output_dir: Option<String>,
    /// The model to start from.
    pub model: ModelConfig,
    /// The training data: a `[[train_dataset]]` of one or more files, or several, mixed batch by batch.
    pub train_dataset: OneOrMany<DatasetConfig>,
    /// Data to compute the loss on while evaluating. Default: none.
    pub eval_dataset: Option<OneOrMany<DatasetConfig>>,
    /// The loss; may be left out when every training data set names its own.
    pub loss: Option<LossConfig>,
    /// What measures the model, before training and during it. Default: none.
    pub evaluator: Option<OneOrMany<EvaluatorConfig>>,
    /// How to train, by the names of Hugging Face's `TrainingArguments`.
    #[serde(default)]
    pub args: ArgsConfig,
    /// Publishing on the Hugging Face Hub.
    #[serde(default)]
    pub hub: HubConfig,
}

/// The model: where it comes from (`base` or `static_embedding`) and how it is set up.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A model directory, or a model's id on the Hub, to fine-tune.
    pub base: Option<String>,
    /// The branch, tag or commit of a base on the Hub. Default: the main branch.
    pub revision: Option<String>,
    /// A new static embedding: one trainable vector a token, no network.
    pub static_embedding: Option<StaticEmbeddingConfig>,
    /// A new network with random weights: the keys of a Hugging Face `config.json`, such as `model_type = "bert"`,
    /// `hidden_size`, `num_hidden_layers`; `vocab_size` is the tokenizer's unless given.
    pub config: Option<Map<String, Value>>,
    /// The tokenizer of a model made from `config`: a `tokenizer.json`, a directory with one, or an id on the Hub. Default:
    /// one that is learnt from the texts of the training data, with `vocab_size` tokens at most.
    pub tokenizer: Option<String>,
    /// Of a SparseEncoder: queries get one weight a word and no network, documents go through SPLADE (a Router).
    pub sparse_static_embedding: Option<SparseStaticEmbeddingConfig>,
    /// Of a SparseEncoder: an autoencoder behind a bi-encoder's embeddings (CSR) in place of weights of words.
    pub sparse_auto_encoder: Option<SparseAutoEncoderConfig>,
    /// A student: the layers of the base model's network that are kept, by their numbers from 0 on, as `[0, 3, 6, 9]`; the
    /// others are dropped. Default: all.
    pub keep_layers: Option<Vec<usize>>,
    /// Low-rank adapters: the network is frozen, thin matrices beside some of its layers are trained. The run saves the
    /// adapter as PEFT does (`adapter`), and the model with it merged in (`model`). Default: the whole model is trained.
    pub lora: Option<LoraOptions>,
    /// Tokens kept of a text, special tokens included. Default: as the base model has it.
    pub max_seq_length: Option<usize>,
    /// How token embeddings become one vector; several are concatenated. Default: as the base model has it, else
    /// `mean`.
    pub pooling_mode: Option<OneOrMany<PoolingMode>>,
    /// Whether embeddings are divided by their length. Default: as the base model has it.
    pub normalize: Option<bool>,
    /// How many values `encode` and evaluations keep of each embedding; training uses all, see `[loss.matryoshka]`.
    /// Saved with the model. Default: what the base model says, else all.
    pub truncate_dim: Option<usize>,
    /// Named prompts that are saved with the model; before those that `args.prompts` comes to. Default: as the base
    /// model has them.
    pub prompts: Option<BTreeMap<String, String>>,
    /// The prompt used when none is asked for. Default: as the base model has it.
    pub default_prompt_name: Option<String>,
    /// Dropout probability everywhere in the network; 0.0 for runs to compare. Default: as the base model has it.
    pub dropout: Option<f64>,
    /// How the saved model compares embeddings. Default: as the base model has it, else `cosine`; `dot` of a
    /// SparseEncoder, `maxsim` of a MultiVectorEncoder.
    pub similarity_fn_name: Option<SimilarityFunction>,
    /// Scores a pair gets, 1 for a reranker, else the number of classes (CrossEncoder only). Default: as the base model
    /// has it, else 1.
    pub num_labels: Option<usize>,
    /// What `predict` applies to the logits, `Sigmoid` or `Identity` (CrossEncoder only). Default: `Identity` under losses
    /// that train logits; under BinaryCrossEntropyLoss what the base model has, else `Sigmoid` for one label.
    pub activation_fn: Option<ActivationFn>,
    /// Width of the vectors of a base without projection (MultiVectorEncoder only). Default: 128.
    pub embedding_dim: Option<usize>,
    /// Tokens kept of a query (MultiVectorEncoder only). Default: as the base model has it, else `max_seq_length`.
    pub query_length: Option<usize>,
    /// Tokens kept of a document (MultiVectorEncoder only). Default: as the base model has it, else `max_seq_length`.
    pub document_length: Option<usize>,
    /// Mask tokens put at the end of queries, as ColBERT does: `{ length = 32 }` (MultiVectorEncoder only). Default: as
    /// the base model has it, else none.
    pub query_expansion: Option<QueryExpansion>,
    /// Words whose vectors documents are not compared by, or `"punctuation"` (MultiVectorEncoder only). Default: as the
    /// base model has it, else none.
    pub skiplist_words: Option<OneOrMany<String>>,
}

/// A new static embedding: random vectors of `embedding_dim` for the tokens of a tokenizer that is given (`tokenizer`)
/// or learnt from the training data (`vocab_size`), or vectors distilled from a transformer (`distill_from`).
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticEmbeddingConfig {
    /// The width of random vectors, at most 65536; of distilled ones `pca_dims` decides.
    pub embedding_dim: Option<usize>,
    /// A `tokenizer.json`, a directory with one, or a model's id on the Hub. Default: one that is learnt from the texts
    /// of the training data.
    pub tokenizer: Option<String>,
    /// Most tokens of a tokenizer that is learnt. Default: 30000.
    pub vocab_size: Option<usize>,
    /// How such a tokenizer puts words together: `wordpiece` or `bpe`. Default: `wordpiece`.
    pub tokenizer_algorithm: Option<TokenizerAlgorithm>,
    /// Whether such a tokenizer takes upper and lower case for one. Default: true.
    pub lowercase: Option<bool>,
    /// A transformer's directory or id on the Hub: every token of its vocabulary goes through it and gives a vector, as
    /// model2vec's `distill` does. Default: none.
    pub distill_from: Option<String>,
    /// Principal components kept of the teacher's vectors: a number, a part of the variance as 0.9, `auto` for all, or
    /// `none` for the teacher's own dimensions. Default: 256, or as many as the teacher has.
    pub pca_dims: Option<PcaDims>,
    /// `a` in the weight `a / (a + p)` of a token, where `p` is its frequency by Zipf's law; 0 for no weights.
    /// Default: 1e-4.
    pub sif_coefficient: Option<f64>,
    /// Tokens of the teacher that begin with a match of this regular expression are left out; empty for none. Default:
    /// `\[unused\d+\]`.
    pub token_remove_pattern: Option<String>,
    /// Which of the teacher's hidden states of a token between the special tokens: `mean` of all, `first` or `last`.
    /// Default: `mean`.
    pub pooling: Option<TeacherPooling>,
}

/// The weights that words have in queries; all are 1 unless `idf` or `corpus` says otherwise. `args.router_mapping` says
/// which columns are queries and documents.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SparseStaticEmbeddingConfig {
    /// A JSON file of words and weights, as `{"bees": 4.2}`: words that it does not have weigh 0. Default: none.
    pub idf: Option<String>,
    /// Files whose texts are counted: a word weighs more the fewer of them have it (its idf, as BM25 has it). Default: none.
    pub corpus: Option<OneOrMany<String>>,
    /// Whether the weights stay as they are in training. Default: false.
    pub frozen: Option<bool>,
}

/// A sparse autoencoder. Widths follow that of the base model's embeddings.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SparseAutoEncoderConfig {
    /// Dimensions of the sparse embeddings. Default: four times as many as the dense ones have.
    pub hidden_dim: Option<usize>,
    /// Active dimensions, a quarter of `hidden_dim` at most. Default: a quarter of the dense ones.
    pub k: Option<usize>,
    /// Values of idle units that CSRLoss looks at; 0 for none. Default: half the dense dimensions.
    pub k_aux: Option<usize>,
    /// Whether dense embeddings are centred and scaled first. Default: false.
    pub normalize: Option<bool>,
    /// After so many passes without a use a unit counts as idle; a step has two passes a column. Default: 30.
    pub dead_threshold: Option<usize>,
}

/// One data set.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    /// A file (jsonl, csv, tsv, parquet, arrow, or txt with one text a line, as column `text`), a glob or a directory, or
    /// a list of them; relative to the recipe, or to the current directory.
    pub path: Option<OneOrMany<String>>,
    /// A data set's id on the Hub, in place of `path`: `owner/name`, or a name alone as `imdb`. Its own files, or those the Hub
    /// has converted to Parquet.
    pub id: Option<String>,
    /// A branch, tag or commit of a data set on the Hub. Default: the main branch.
    pub revision: Option<String>,
    /// The subset of a data set on the Hub.
    pub subset: Option<String>,
    /// The split of a data set on the Hub, some of its rows (`train[:1000]`, `train[-500:]`, `train[10%:20%]`) or several of
    /// these (`train+validation[:50%]`), with the rows that `datasets` takes. Default: `train`.
    pub split: Option<String>,
    /// The columns with the texts, in the loss's order. Default: all but the label, in the file's order.
    pub columns: Option<Vec<String>>,
    /// The column with the label. Default: `label`, `labels`, `score` or `scores`, if there is one.
    pub label: Option<String>,
    /// Only the first rows. Default: all.
    pub limit: Option<u64>,
    /// The loss for this data set. Default: `[loss]`.
    pub loss: Option<LossConfig>,
    /// What it is called in messages and metrics. Default: after its file.
    pub name: Option<String>,
    /// What to do with a row that can't be used. Default: `refuse`.
    pub on_bad_row: Option<OnBadRow>,
    /// Put in front of every text of a column while training: column name to prompt; before those of `args.prompts`.
    /// Default: none.
    pub prompts: Option<BTreeMap<String, String>>,
    /// Looks for hard negatives before the first step, and trains on rows with them in place of the pairs. What was found
    /// once for the same data and model is kept. Default: none.
    pub hard_negatives: Option<Settings>,
    /// Asks a teacher about the rows before the first step (those with hard negatives, where both are given), and trains on
    /// its answers as labels: `{ model = "FOLDER", labels = "margin" }`. What it said once of the same rows is kept.
    /// Default: none.
    pub teacher: Option<Teacher>,
}

/// Trains prefixes of the embedding as well, so that it can be cut short afterwards (MatryoshkaLoss).
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatryoshkaConfig {
    /// The widths to train, as `[384, 256, 128, 64]`.
    pub dims: Vec<usize>,
    /// The weight of each width's loss. Default: 1 each.
    pub weights: Option<Vec<f64>>,
    /// Widths drawn at random each step; -1 for all. Default: -1.
    pub n_dims_per_step: Option<i64>,
}

/// How to train: names and meanings of Hugging Face's `TrainingArguments`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArgsConfig {
    /// Passes over the data; may be fractional, at most 100000. Default: 3.0.
    pub num_train_epochs: Option<f64>,
    /// Optimizer steps in all, instead of epochs; -1 for epochs. Default: -1.
    #[schemars(range(min = -1))]
    pub max_steps: Option<i64>,
    /// Rows in a batch. Default: 8.
    pub per_device_train_batch_size: Option<usize>,
    /// Most tokens in a batch over all its columns, of training and of `[eval_dataset]`: a batch ends at its number of
    /// rows, or before the row that would take it past this. A row that alone has more is a batch of its own. Default:
    /// any number.
    pub max_tokens_per_batch: Option<usize>,
    /// Rows in a batch while evaluating. Default: 8.
    pub per_device_eval_batch_size: Option<usize>,
    /// Batches whose gradients make one optimizer step. Default: 1.
    pub gradient_accumulation_steps: Option<u64>,
    /// The highest learning rate. Default: 5e-5.
    pub learning_rate: Option<f64>,
    /// Decoupled weight decay; not applied to biases and norms. Default: 0.0.
    pub weight_decay: Option<f64>,
    /// AdamW's first decay rate. Default: 0.9.
    pub adam_beta1: Option<f64>,
    /// AdamW's second decay rate. Default: 0.999.
    pub adam_beta2: Option<f64>,
    /// AdamW's epsilon. Default: 1e-8.
    pub adam_epsilon: Option<f64>,
    /// Gradients are scaled down to this norm; 0 for no limit. Default: 1.0.
    pub max_grad_norm: Option<f64>,
    /// How the learning rate changes. Default: `linear`.
    pub lr_scheduler_type: Option<SchedulerType>,
    /// Steps in which the learning rate climbs from 0: a whole number, or below 1 a fraction of all steps. Default: 0.
    pub warmup_steps: Option<f64>,
    /// The older way to give `warmup_steps` as a fraction.
    pub warmup_ratio: Option<f64>,
    /// Steps between lines in metrics.jsonl, or a fraction of all steps. Default: 0.05 (Hugging Face: 500).
    pub logging_steps: Option<f64>,
    /// When to evaluate. Default: `steps` if `eval_steps` is given, else `epoch` if there is something to evaluate
    /// with, else `no` (Hugging Face: `no`). The end of the run is evaluated in any case.
    pub eval_strategy: Option<IntervalStrategy>,
    /// Steps between evaluations, or a fraction of all steps. Default: 0.1 (Hugging Face: `logging_steps`).
    pub eval_steps: Option<f64>,
    /// When to save a checkpoint. Default: `steps` if `save_steps` is given, else as `eval_strategy` with
    /// `load_best_model_at_end`, else `epoch` (Hugging Face: `steps`).
    pub save_strategy: Option<IntervalStrategy>,
    /// Steps between checkpoints, or a fraction of all steps. Default: as `eval_steps` (Hugging Face: 500).
    pub save_steps: Option<f64>,
    /// Checkpoints kept; the best and the last are always among them. Default: all.
    pub save_total_limit: Option<usize>,
    /// Whether the saved model is the best checkpoint rather than the last. Default: false.
    pub load_best_model_at_end: Option<bool>,
    /// The metric that decides what is best and stands in the verdict; `eval_` in front may be left out. Default: the
    /// primary metric of the first evaluator, else `eval_loss` (Hugging Face: `loss`).
    pub metric_for_best_model: Option<String>,
    /// Whether more of it is better. Default: unless its name ends in `loss`.
    pub greater_is_better: Option<bool>,
    /// Evaluations without improvement after which to stop. Default: never.
    pub early_stopping_patience: Option<u64>,
    /// By how much the metric must improve to count. Default: 0.0.
    pub early_stopping_threshold: Option<f64>,
    /// How batches are put together: `batch_sampler`, `no_duplicates` for losses with in-batch negatives, or
    /// `group_by_label` for losses that compare classes. Default: `batch_sampler`.
    pub batch_sampler: Option<String>,
    /// How batches of several training data sets follow each other: `proportional`, every batch of each in random
    /// order, or `round_robin`, one of each in turn until one has no more. Default: `proportional`.
    pub multi_dataset_batch_sampler: Option<String>,
    /// Whether rows are drawn in random order. Default: true.
    pub shuffle: Option<bool>,
    /// Whether a last, smaller batch is left out; batches that `max_tokens_per_batch` ended are not smaller in this
    /// sense. Default: false.
    pub dataloader_drop_last: Option<bool>,
    /// Whether the operands of matrix products are rounded in training, for speed: to bfloat16 on machines with
    /// AVX512-BF16, to 13-bit block fixed point, which is nearer, on those with AVX2 and no AVX-512;
    /// otherwise computed in f32 with a warning. Sums, weights and optimizer stay in f32. Default: false.
    pub bf16: Option<bool>,
    /// Whether the CPU computes even where the program is built for a GPU (`--features cuda` or `metal`). Default: false.
    pub use_cpu: Option<bool>,
    /// Not available: a CPU has no fast half-precision arithmetic of this kind.
    pub fp16: Option<bool>,
    /// Tokens of a micro-batch: batches with more go through the network in parts of about equally many, twice, with
    /// the loss of the whole batch (gradient caching), so that memory is that of a part. Default: each batch at once;
    /// where that needs more memory than is free, parts that fit, with a warning. Losses named `Cached...` and
    /// MegaBatchMarginLoss ask for parts themselves; of several data sets the least that is asked for holds for all.
    pub gradient_cache_tokens: Option<usize>,
    /// Whether layers keep their inputs alone until the backward pass and are computed again there: less memory for a
    /// batch, about a third more time, the same bits. Not with losses named `Cached...`, whose parts are computed again
    /// already. Default: false.
    pub gradient_checkpointing: Option<bool>,
    /// Accepted, and nothing changes: every run has the same bits for the same seed and `num_threads`. When `true` and
    /// `num_threads` is left out, a note says which number the plan fixes. Default: false.
    pub full_determinism: Option<bool>,
    /// Put in front of texts while training: one prompt for all (`"query: "`), or by column (`{question = "query: ",
    /// answer = "passage: "}`), or by data set, or by data set and column. Where it is clear which texts are queries
    /// and which documents, the saved model and the evaluators have them, too, unless `[model.prompts]` says
    /// otherwise. Default: none; `""` says so where the base model has prompts of its own.
    pub prompts: Option<Prompts>,
    /// For a model with a Router: which route the texts of a column take, as `{question = "query", answer =
    /// "document"}`. Default: the Router's default route for all.
    pub router_mapping: Option<BTreeMap<String, String>>,
    /// Learning rates of some parameters: a regular expression found in their names to the rate, as
    /// `{"sub_modules.query" = 1e-3}`. Of several that are found in a name the last in the alphabet holds; the schedule is
    /// that of `learning_rate`. Default: one rate for all.
    pub learning_rate_mapping: Option<BTreeMap<String, f64>>,
    /// Where metrics go besides the run's own files: `tensorboard`, `trackio`, `wandb`, `mlflow`, one or several; `all` that
    /// can be had on this machine, `none` or `jsonl` for none. Default: `none`.
    pub report_to: Option<OneOrMany<String>>,
    /// The project that trackers put runs together in; before it of `wandb` is `WANDB_PROJECT`. Default: `TRACKIO_PROJECT`,
    /// else `huggingface`.
    pub project: Option<String>,
    /// The Space on the Hub that `trackio` shows runs on, as `user/name`. Default: `TRACKIO_SPACE_ID`, else none: they stay
    /// on this machine.
    pub trackio_space_id: Option<String>,
    /// Threads to compute with; results are the same bits for the same number. Default: all cores.
    pub num_threads: Option<usize>,
}

/// When something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntervalStrategy {
    /// Never.
    No,
    /// Every so many steps.
    Steps,
    /// At the end of each epoch.
    Epoch,
}

impl IntervalStrategy {
    /// Its name in recipes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Steps => "steps",
            Self::Epoch => "epoch",
        }
    }
}

/// Publishing on the Hugging Face Hub.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubConfig {
    /// Whether to publish the model. Default: false.
    pub push_to_hub: Option<bool>,
    /// Where to, as `user/name`. Default: the run's name, on the token's own account.
    pub hub_model_id: Option<String>,
    /// The branch. Default: the main one.
    pub hub_revision: Option<String>,
    /// Whether the repository is private. Default: false.
    pub hub_private_repo: Option<bool>,
    /// When to publish. Default: `end`, for what is half trained is not for everybody (Hugging Face: `every_save`).
    pub hub_strategy: Option<HubStrategy>,
    /// Of `every_save`: whether a checkpoint's model waits while the one before is on its way. Default: false, it is left
    /// out.
    pub hub_always_push: Option<bool>,
}

/// When a model is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HubStrategy {
    /// When the run is over.
    #[default]
    End,
    /// With each checkpoint, too, while training goes on.
    EverySave,
    /// Not available: the state of training stays in the run's folder.
    Checkpoint,
    /// Not available: the state of training stays in the run's folder.
    AllCheckpoints,
}
