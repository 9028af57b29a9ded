//! Which texts look like an answer and are none? Hard negatives for pairs of an anchor and a positive.
//!
//! A [`Pool`] holds each anchor and each document once. Candidates come from embeddings ([`search`]) or from words
//! ([`words`]), some anchors at a time; a reranker may score them anew ([`rescore`]). A [`Selection`] takes negatives
//! among them, and [`rows`] makes rows of a data set of these.
//!
//! Source: `util.mine_hard_negatives` of sentence-transformers 6; margins and ranks after Moreira et al., "NV-Retriever:
//! Improving text embedding models with effective hard-negative mining" (2024).

pub mod cache;
mod candidates;
mod embedded;
mod limits;
mod pool;
mod rescore;
pub mod rows;
pub mod select;
mod settings;
pub mod statistics;
mod words;

pub use candidates::{Depth, Found, Take};
pub use embedded::{Prompts, search};
pub use limits::Limit;
pub use pool::Pool;
pub use rescore::{one_score, rescore};
pub use select::{Mined, Selection, Skipped};
pub use settings::{OutputFormat, SamplingStrategy, Settings};
pub use statistics::Statistics;
pub use words::words;
