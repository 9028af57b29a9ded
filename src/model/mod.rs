//! How does a text become a vector? Modules in a row, their weights, and the directory they live in.

pub mod backbone;
mod directory;
pub mod distill;
mod load;
pub mod module;
mod options;
mod sentence_transformer;
mod tasks;
mod tokenizer;
pub mod weights;

pub use directory::Description;
pub use options::{ModelOptions, StaticOptions, StaticSource};
pub use sentence_transformer::SentenceTransformer;
pub use tasks::RoutedPreprocess;
pub use tokenizer::TextTokenizer;
pub use tokenizer::train::{Corpus, SMALLEST as SMALLEST_VOCABULARY, TokenizerAlgorithm, TokenizerTraining};
