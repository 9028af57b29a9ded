//! How does a text become a vector? Modules in a row, their weights, and the directory they live in.

pub mod backbone;
mod directory;
pub mod module;
mod options;
mod sentence_transformer;
mod tokenizer;
pub mod weights;

pub use directory::Description;
pub use options::{ModelOptions, StaticOptions};
pub use sentence_transformer::SentenceTransformer;
pub use tokenizer::TextTokenizer;
