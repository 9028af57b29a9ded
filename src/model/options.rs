//! What a recipe may change about a model when it is loaded or made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::distill::Distillation;
use super::multi_vector::MultiVectorOptions;
use crate::flow::{ActivationFn, ModelType};
use crate::ops::PoolingMode;

/// The tokenizer of a new network.
#[derive(Debug, Clone)]
pub enum NetworkTokenizer {
    /// A `tokenizer.json`, or a directory that has one.
    File(PathBuf),
    /// One that was learnt.
    Bytes(Vec<u8>),
}

/// What a Transformer module is to make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TransformerTask {
    /// Hidden states.
    #[default]
    FeatureExtraction,
    /// Logits of a text or a pair.
    SequenceClassification,
    /// What scores of every word are made of.
    FillMask,
    /// Hidden states that are compared token by token, with queries and documents treated apart.
    TokenEmbeddings,
}

/// Where a model computes, and changes to a loaded one. `None` and empty leave things as the model has them.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// The type of model it is to be; `None` for what its directory says.
    pub model_type: Option<ModelType>,
    /// What its Transformer makes; loading settles it.
    pub task: TransformerTask,
    /// Logits of a pair; `None` for as many as the checkpoint has, or 1.
    pub num_labels: Option<usize>,
    /// What `predict` applies to logits.
    pub activation_fn: Option<ActivationFn>,
    /// Of a model with a vector for each token.
    pub multi_vector: MultiVectorOptions,
    /// For layers that the checkpoint does not have.
    pub seed: u64,
    /// Tokens kept of a text.
    pub max_seq_length: Option<usize>,
    /// Replaces the pooling; several modes are concatenated.
    pub pooling_mode: Vec<PoolingMode>,
    /// Whether the model ends with a Normalize module.
    pub normalize: Option<bool>,
    /// Replaces every dropout probability of the encoder.
    pub dropout: Option<f64>,
    /// Prompts by name.
    pub prompts: BTreeMap<String, String>,
    /// The prompt used when none is named.
    pub default_prompt_name: Option<String>,
    /// Values that `encode` keeps of each embedding.
    pub truncate_dim: Option<usize>,
    /// `cosine`, `dot`, `euclidean` or `manhattan`.
    pub similarity_fn_name: Option<String>,
    /// Stands before the names of its parameters, to tell them from another model's.
    pub name_prefix: String,
    /// Where it computes; `None` for the CPU.
    pub device: Option<candle_core::Device>,
}

/// A static embedding made from scratch.
#[derive(Debug, Clone)]
pub struct StaticOptions {
    /// A `tokenizer.json`, or a directory that has one.
    pub tokenizer: PathBuf,
    /// Width of the embeddings.
    pub embedding_dim: usize,
}

/// Where the table of a new static embedding comes from.
#[derive(Debug, Clone)]
pub enum StaticSource {
    /// Random rows.
    Random(StaticOptions),
    /// Random rows for a tokenizer that is in memory: the `tokenizer.json`, and the width.
    RandomFor(Vec<u8>, usize),
    /// A transformer's directory.
    Teacher(PathBuf, Distillation),
}
