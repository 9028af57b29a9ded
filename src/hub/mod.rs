//! How do models and data sets get from the Hugging Face Hub, and models onto it?
//!
//! Downloads speak HTTP themselves, so that they go on where they were cut and wait as long as the Hub asks to; uploads
//! are the `hf-hub` crate's, which knows of large files.

mod cache;
mod collection;
mod dataset;
mod download;
mod environment;
mod failure;
mod fetch;
mod parts;
mod push;
mod repository;
mod session;
pub mod slices;
mod verify;

pub use cache::Kind;
pub use collection::Collection;
pub use dataset::{HubDataset, Rows};
pub use environment::cache_folder;
pub use fetch::{Pulled, cached, fetch, model, pull};
pub use push::{Push, Pushed, check as check_push, push};
pub use session::Tell;

/// Owner and name.
fn split(id: &str) -> Option<(&str, &str)> {
    id.split_once('/').filter(|(o, n)| !o.is_empty() && !n.is_empty() && !n.contains('/'))
}

/// Whether `text` is an id in the Hub's alphabet: `owner/name`, or a name alone, as the oldest models and data sets have
/// it (`gpt2`, `imdb`).
#[must_use]
pub fn is_id(text: &str) -> bool {
    let legal = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let (owner, name) = split(text).unwrap_or(("owner", text));
    legal(owner) && legal(name)
}
