//! The few traits the stages meet in.

use candle_core::Tensor;

use super::card::Card;
use super::embeddings::Embeddings;
use super::labels::Labels;
use super::outputs::Outputs;
use crate::error::Result;

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

    /// As [`Preprocess::tokenize`], of texts of a data set's column: a model may treat columns differently.
    fn tokenize_column(&self, column: &str, texts: &[&str], prompt: Option<&str>) -> Result<Vec<Tokens>> {
        let _ = column;
        self.tokenize(texts, prompt)
    }

    /// Changes whenever the same text could give other tokens (vocabulary, rules, maximum length).
    fn fingerprint(&self) -> u64;

    /// Tokens kept of a text, special tokens included; `None` for no limit.
    fn max_seq_length(&self) -> Option<usize>;
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

    /// The prompt the model's configuration holds under `name` (`query`, `document`, ...), if it holds one.
    fn named_prompt(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }
}

/// A loss: a differentiable function of embeddings and labels, nothing else.
pub trait Loss: Send + Sync {
    /// Its catalogue entry.
    fn card(&self) -> &'static Card;

    /// The catalogue entry of the loss that reads columns and labels: a wrapper answers with what it wraps.
    fn base_card(&self) -> &'static Card {
        self.card()
    }

    /// The scalar loss of a batch, differentiable with respect to every embedding.
    ///
    /// # Errors
    /// When the number of columns, the labels or the shapes are not what it takes.
    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor>;

    /// Its settings, defaults filled in, for the plan and the model card.
    fn config(&self) -> serde_json::Value;

    /// Checks that depend on the model: `dim` is the width of its embeddings. Returns warnings.
    ///
    /// # Errors
    /// When the loss cannot be used with that model.
    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        let _ = dim;
        Ok(Vec::new())
    }
}
