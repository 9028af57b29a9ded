//! How does a model on the Hugging Face Hub become a directory?

mod fetch;

pub use fetch::{cached_dataset, fetch};
