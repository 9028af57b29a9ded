//! The few traits the stages meet in.

use super::activation::ActivationFn;
use super::embeddings::Embeddings;
use super::multi_vectors::MultiVectors;
use super::sparse::SparseEmbeddings;
use crate::error::{Error, Result};

/// One tokenised text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids, special tokens included, cut to the model's `max_seq_length`.
    pub ids: Vec<u32>,
    /// How many leading tokens come from the prompt (the leading special token counted in); 0 without one.
    pub prompt_length: u32,
    /// How many tokens the text had before it was cut; equal to `ids.len()` when nothing was.
    pub full_length: u32,
}

/// Turns texts into tokens; what `data` knows of a model.
pub trait Preprocess: Send + Sync {
    /// Tokenises in parallel, in order. `prompt` is put in front of every text.
    fn tokenize(&self, texts: &[&str], prompt: Option<&str>) -> Result<Vec<Tokens>>;

    /// As [`Preprocess::tokenize`], of texts of a data set's column, by number and name: a model may treat columns
    /// differently.
    fn tokenize_column(&self, column: (usize, &str), texts: &[&str], prompt: Option<&str>) -> Result<Vec<Tokens>> {
        let _ = column;
        self.tokenize(texts, prompt)
    }

    /// Changes whenever the same text could give other tokens (vocabulary, rules, maximum length).
    fn fingerprint(&self) -> u64;

    /// Tokens kept of a text, special tokens included; `None` for no limit.
    fn max_seq_length(&self) -> Option<usize>;

    /// What each token of the vocabulary is in a text, by its id; empty where that is not known, which makes a word of
    /// every token.
    fn pieces(&self) -> Vec<Piece> {
        Vec::new()
    }
}

/// What a token is in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// It begins a word.
    Start,
    /// It goes on with the word before it.
    Continuation,
    /// It is no part of the text, as `[CLS]`.
    Special,
}

/// How texts are encoded.
#[derive(Debug, Clone, Default)]
pub struct EncodeOptions {
    /// Put in front of every text.
    pub prompt: Option<String>,
    /// What the texts are, `query` or `document`, for models that treat these differently.
    pub task: Option<String>,
    /// Keep only the first values of each embedding.
    pub truncate_dim: Option<usize>,
    /// Keep only so many of the largest values of each sparse embedding; `None` for all.
    pub max_active_dims: Option<usize>,
    /// Divide each embedding by its length (after truncation).
    pub normalize: bool,
    /// Round the operands of matrix products to bfloat16 or nearer, where the machine is faster for it.
    pub bf16: bool,
    /// Show a progress bar on a terminal under this name.
    pub progress: Option<&'static str>,
}

/// Anything that turns texts into embeddings; what evaluators know of a model.
pub trait Encode {
    /// One row a text, in order.
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings>;

    /// The model's similarity function by sentence-transformers' name: `cosine`, `dot`, `euclidean`, `manhattan`.
    fn similarity_fn_name(&self) -> &str;

    /// The model as one that makes sparse embeddings, if it is one.
    fn sparse(&self) -> Option<&dyn EncodeSparse> {
        None
    }

    /// The model as one with a vector for each token, if it is one.
    fn multi_vector(&self) -> Option<&dyn EncodeMultiVector> {
        None
    }

    /// The model as one that scores pairs, if it is one.
    fn predictor(&self) -> Option<&dyn Predict> {
        None
    }

    /// The prompt the model's configuration holds under `name` (`query`, `document`, ...), if it holds one.
    fn named_prompt(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// The classifier that is being trained on its embeddings, in a run whose loss has one.
    fn classifier(&self) -> Option<&dyn Classify> {
        None
    }

    /// Whether an evaluator is to tell what people can look at behind its metrics: they are kept of one at most, and
    /// cost time.
    fn looked_at(&self) -> bool {
        false
    }
}

/// Tells classes from the embeddings of a row's columns: a layer that a loss trains on top of them.
pub trait Classify: Send + Sync {
    /// The width of the embeddings it takes.
    fn width(&self) -> usize;

    /// `[rows, classes]`: a value a class, the largest for the class it takes a row for. One [`Embeddings`] a column.
    ///
    /// # Errors
    /// When the columns are not as many, or not as wide, as it takes.
    fn logits(&self, columns: &[Embeddings]) -> Result<Embeddings>;
}

/// Anything that turns texts into sparse embeddings; what evaluators know of a SparseEncoder.
pub trait EncodeSparse {
    /// One row a text, in order; of each only the [`EncodeOptions::max_active_dims`] largest values.
    ///
    /// # Errors
    /// When a text does not fit the model.
    fn encode_sparse(&self, texts: &[&str], options: &EncodeOptions) -> Result<SparseEmbeddings>;

    /// The words of dimensions.
    fn words(&self, dimensions: &[u32]) -> Vec<String>;
}

/// Anything that turns texts into a vector for each token; what evaluators know of a MultiVectorEncoder.
pub trait EncodeMultiVector {
    /// The vectors of every text, in order.
    ///
    /// # Errors
    /// When a text does not fit the model.
    fn encode_multi_vector(&self, texts: &[&str], options: &EncodeOptions) -> Result<MultiVectors>;
}

/// What an embedding says that has values that are no numbers.
#[must_use]
pub fn embedding_not_finite(text: &str) -> Error {
    let start: String = text.chars().take(60).collect();
    Error::model(format!("the model's embedding of `{start}` has values that are not finite"))
        .with_hint("training has diverged, or the weights are damaged: lower `learning_rate`, set `max_grad_norm`")
}

/// What a score says that is no number.
#[must_use]
pub fn score_not_finite((query, passage): (&str, &str)) -> Error {
    let start = |text: &str| text.chars().take(40).collect::<String>();
    Error::model(format!("the model's score of (`{}`, `{}`) is not finite", start(query), start(passage)))
        .with_hint("training has diverged, or the weights are damaged: lower `learning_rate`, set `max_grad_norm`")
}

/// Anything that scores pairs of texts; what evaluators know of a reranker.
pub trait Predict {
    /// `[pairs, labels]`: the scores of every pair, in order, after `activation_fn` (the model's own for `None`).
    ///
    /// # Errors
    /// When a pair does not fit the model.
    fn predict(
        &self,
        pairs: &[(&str, &str)],
        activation_fn: Option<ActivationFn>,
        options: &EncodeOptions,
    ) -> Result<Embeddings>;

    /// Scores a pair has; 1 for rerankers, the number of classes for classifiers.
    fn num_labels(&self) -> usize;
}

/// How large the parts are that a loss asks for a batch to be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MicroBatch {
    /// So many sequences.
    Sequences(usize),
    /// So many tokens.
    Tokens(usize),
}

impl MicroBatch {
    /// The tokens of a part, where the longest sequence of a batch has `longest`: room for so many sequences even if
    /// all were as long.
    #[must_use]
    pub fn tokens(self, longest: usize) -> usize {
        match self {
            Self::Sequences(sequences) => sequences.saturating_mul(longest),
            Self::Tokens(tokens) => tokens,
        }
    }
}
