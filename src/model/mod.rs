//! How does a text become a vector? Modules in a row, their weights, and the directory they live in.

pub mod backbone;
mod cross_encoder;
mod directory;
pub mod distill;
pub mod facts;
mod head;
mod load;
pub mod lora;
mod masked_lm;
pub mod module;
mod multi_vector;
mod options;
mod pairs;
pub mod roles;
mod sentence_transformer;
mod sparse_encoder;
mod sparse_modules;
mod tasks;
mod tokenizer;
pub mod weights;

pub use cross_encoder::Ranked;
pub use directory::Description;
pub use masked_lm::Vocabulary;
pub use multi_vector::{ExpansionStrategy, MultiVectorOptions, QueryExpansion, punctuation};
pub use options::{
    AutoencoderOptions, Counting, ModelOptions, NetworkTokenizer, StaticOptions, StaticQueries, StaticSource,
    StaticWeights, TransformerTask,
};
pub use pairs::Pairs;
pub use sentence_transformer::SentenceTransformer;
pub use tasks::RoutedPreprocess;
pub use tokenizer::TextTokenizer;
pub use tokenizer::train::{Corpus, SMALLEST as SMALLEST_VOCABULARY, TokenizerAlgorithm, TokenizerTraining};
