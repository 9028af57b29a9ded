//! What are the rows, and in which order does training see them? Files, column roles, the tokenised store, samplers.

pub mod beir;
pub mod columns;
pub mod corpus;
mod feed;
pub mod inspect;
pub mod nano;
pub mod paraphrases;
pub mod probe;
pub mod report;
pub mod reranking;
mod rows;
pub mod sampler;
pub mod slices;
pub mod source;
pub mod store;
pub mod texts;

pub use columns::{CommonPrompts, DatasetSpec, OnBadRow};
pub use feed::Feed;
pub use report::DataReport;
pub use sampler::{
    BatchSampler, EpochPlan, Mixed, MixedPlan, MultiDatasetBatchSampler, RowFacts, Sampler, SamplerSettings,
};
pub use store::Store;
