//! How do models and data sets get from the Hugging Face Hub, and models onto it?

mod dataset;
mod failure;
mod fetch;
mod push;
mod verify;

pub use dataset::HubDataset;
pub use fetch::{fetch, fetch_dataset};
pub use push::{Push, Pushed, check as check_push, push};

/// Owner and name.
fn split(id: &str) -> Option<(&str, &str)> {
    id.split_once('/').filter(|(o, n)| !o.is_empty() && !n.is_empty() && !n.contains('/'))
}

/// Whether `text` is an id, `owner/name`, in the Hub's alphabet.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let legal = |part: &str| {
        !part.starts_with(['.', '-']) && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    split(text).is_some_and(|(owner, name)| legal(owner) && legal(name))
}

/// Whether the network is forbidden, as `huggingface_hub` reads it.
fn offline() -> bool {
    std::env::var("HF_HUB_OFFLINE")
        .is_ok_and(|value| !matches!(value.to_lowercase().as_str(), "" | "0" | "off" | "no" | "false"))
}
