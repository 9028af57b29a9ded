//! The four kinds of model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kind of model a recipe trains, by sentence-transformers' class name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ModelType {
    /// A bi-encoder: one dense vector a text.
    #[default]
    SentenceTransformer,
    /// A reranker: one score a pair of texts.
    CrossEncoder,
    /// SPLADE: one sparse vector over the vocabulary a text.
    SparseEncoder,
    /// ColBERT: one vector a token.
    MultiVectorEncoder,
}

impl ModelType {
    /// sentence-transformers' class name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SentenceTransformer => "SentenceTransformer",
            Self::CrossEncoder => "CrossEncoder",
            Self::SparseEncoder => "SparseEncoder",
            Self::MultiVectorEncoder => "MultiVectorEncoder",
        }
    }
}

impl std::fmt::Display for ModelType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
