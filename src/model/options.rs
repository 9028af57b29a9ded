//! What a recipe may change about a model when it is loaded or made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::distill::Distillation;
use super::multi_vector::MultiVectorOptions;
use super::tokenizer::TextTokenizer;
use crate::error::Result;
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
    /// The layers that its network keeps, by their numbers from 0 on.
    pub keep_layers: Option<Vec<usize>>,
    /// Tokens kept of a text.
    pub max_seq_length: Option<usize>,
    /// Replaces the pooling; several modes are concatenated.
    pub pooling_mode: Vec<PoolingMode>,
    /// Whether the model ends with a Normalize module.
    pub normalize: Option<bool>,
    /// Replaces every dropout probability of the encoder.
    pub dropout: Option<f64>,
    /// Whether layers keep their inputs alone in training, and are computed again for their gradients.
    pub gradient_checkpointing: bool,
    /// Prompts by name.
    pub prompts: BTreeMap<String, String>,
    /// The prompt used when none is named.
    pub default_prompt_name: Option<String>,
    /// Values that `encode` keeps of each embedding.
    pub truncate_dim: Option<usize>,
    /// `cosine`, `dot`, `euclidean` or `manhattan`.
    pub similarity_fn_name: Option<String>,
    /// Of a sparse model: queries by weights of their words, and no network.
    pub static_queries: Option<StaticQueries>,
    /// Of a sparse model: an autoencoder behind the embeddings in place of weights of words.
    pub autoencoder: Option<AutoencoderOptions>,
    /// Stands before the names of its parameters, to tell them from another model's.
    pub name_prefix: String,
    /// Where it computes; `None` for the CPU.
    pub device: Option<candle_core::Device>,
}

/// The weights of words in queries.
#[derive(Debug, Clone)]
pub struct StaticQueries {
    /// Where they come from.
    pub weights: StaticWeights,
    /// Whether training leaves them as they are.
    pub frozen: bool,
}

/// Where the weights of words come from.
#[derive(Debug, Clone)]
pub enum StaticWeights {
    /// All are 1.
    Ones,
    /// A JSON file of words and weights.
    File(PathBuf),
    /// Counted in texts: their idf.
    Counted(Counting),
}

/// Says how many texts there are, and how many of them have each word of a tokenizer.
#[derive(Clone)]
#[allow(clippy::type_complexity)]
pub struct Counting(pub Arc<dyn Fn(&TextTokenizer) -> Result<(u64, Vec<u64>)> + Send + Sync>);

impl std::fmt::Debug for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counting")
    }
}

/// An autoencoder of embeddings; `None` is what fits the width of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AutoencoderOptions {
    /// Width of the sparse embeddings.
    pub hidden_dim: Option<usize>,
    /// Values that stay of each.
    pub k: Option<usize>,
    /// Values that the auxiliary loss looks at.
    pub k_aux: Option<usize>,
    /// Whether dense embeddings are centred and scaled.
    pub normalize: Option<bool>,
    /// After so many passes without a use a unit counts as dead.
    pub dead_threshold: Option<usize>,
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
