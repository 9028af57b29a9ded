//! Which rows form which batch? An epoch's batches are a function of the seed and the epoch alone.
//!
//! An epoch is planned whole before its first batch (one u32 a row), so the number of its batches is exact and a
//! resumed run goes straight to the batch it stopped at.

pub mod batch;
mod filling;
pub mod group_by_label;
mod memo;
pub mod mixed;
pub mod no_duplicates;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::store::Store;
use crate::error::{Error, Result};
use crate::flow::Card;
use crate::util::seed::Rng;
use crate::util::suggest;

pub use mixed::{Mixed, MixedPlan, MultiDatasetBatchSampler};

/// How rows are put into batches, by sentence-transformers' names (`BatchSamplers`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchSampler {
    /// A new random order each epoch.
    #[default]
    BatchSampler,
    /// No text twice in a batch.
    NoDuplicates,
    /// The same: here texts always are compared by their hashes.
    NoDuplicatesHashed,
    /// At least two classes with at least two rows each in a batch.
    GroupByLabel,
}

const CARDS: &[Card] = &[batch::CARD, no_duplicates::CARD, group_by_label::CARD];

/// Every sampler's catalogue entry: those of one data set, then those that mix several.
pub fn cards() -> impl Iterator<Item = &'static Card> + Clone {
    CARDS.iter().chain(mixed::CARDS)
}

/// What every sampler is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerSettings {
    /// Most rows of a batch.
    pub batch_size: usize,
    /// Most tokens of a batch over all columns (`max_tokens_per_batch`); a row that alone is longer is a batch of its
    /// own. `None` for any number.
    pub max_tokens: Option<usize>,
    /// Leave out batches with fewer rows (`dataloader_drop_last`), unless the next row was too much for their tokens.
    pub drop_last: bool,
    /// Otherwise rows come in the data's order.
    pub shuffle: bool,
    pub seed: u64,
}

/// What samplers know of the rows.
pub trait RowFacts: Send + Sync {
    /// How many rows.
    fn rows(&self) -> usize;

    /// A hash of each of a row's texts, over all input columns (labels do not count).
    fn ids(&self, row: u32) -> &[u64];

    /// A row's tokens over all input columns.
    fn tokens(&self, row: u32) -> usize;

    /// A row's class, where rows have one.
    fn class(&self, row: u32) -> Option<i64> {
        let _ = row;
        None
    }
}

impl RowFacts for Store {
    fn rows(&self) -> usize {
        self.len()
    }

    fn ids(&self, row: u32) -> &[u64] {
        self.raw_text_ids(row)
    }

    fn tokens(&self, row: u32) -> usize {
        self.row_tokens(row).unwrap_or(0)
    }

    fn class(&self, row: u32) -> Option<i64> {
        self.row_class(row)
    }
}

/// Puts rows into batches.
pub trait Sampler: Send + Sync {
    /// Exactly how many batches that epoch has. It can differ from epoch to epoch, because which rows exclude each
    /// other depends on the order they come in; samplers for which it does plan the epoch to tell.
    fn batches_per_epoch(&self, epoch: u64) -> usize;

    /// The epoch's batches.
    fn epoch(&self, epoch: u64) -> Arc<EpochPlan>;
}

/// The batches of one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochPlan {
    order: Vec<u32>,
    /// `[batches + 1]`, into `order`.
    bounds: Vec<u32>,
    /// Batches of one row that the budget of tokens closed.
    single: usize,
}

impl EpochPlan {
    /// How many batches.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of batch `k`; `None` after the last.
    #[must_use]
    pub fn batch(&self, k: usize) -> Option<&[u32]> {
        let (from, to) = (*self.bounds.get(k)?, *self.bounds.get(k + 1)?);
        self.order.get(from as usize..to as usize)
    }

    /// The batches from number `k` on: what is left of the epoch after a resume.
    pub fn from(&self, k: usize) -> impl Iterator<Item = &[u32]> {
        (k..self.len()).filter_map(|k| self.batch(k))
    }

    /// Rows in all batches.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.order.len()
    }

    /// Batches of a single row that would have more but for the budget of tokens.
    #[must_use]
    pub fn single_by_tokens(&self) -> usize {
        self.single
    }

    /// Batches that are not full.
    #[must_use]
    pub fn short_batches(&self, batch_size: usize) -> usize {
        self.from(0).filter(|b| b.len() < batch_size).count()
    }
}

impl BatchSampler {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::BatchSampler, Self::NoDuplicates, Self::NoDuplicatesHashed, Self::GroupByLabel];

    /// Every name a recipe may use.
    pub const NAMES: [&str; 4] = ["batch_sampler", "no_duplicates", "no_duplicates_hashed", "group_by_label"];

    /// By its name in recipes.
    ///
    /// # Errors
    /// When there is no such sampler.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| {
            Error::usage(format!("no batch sampler `{name}`")).with_hint(suggest::hint(name, Self::NAMES))
        })
    }

    /// The name in recipes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BatchSampler => "batch_sampler",
            Self::NoDuplicates => "no_duplicates",
            Self::NoDuplicatesHashed => "no_duplicates_hashed",
            Self::GroupByLabel => "group_by_label",
        }
    }

    /// The sampler over these rows.
    ///
    /// # Errors
    /// When the batch size is not one the sampler can make, when rows lack what it goes by, or when `drop_last` leaves no
    /// batch in the first epoch.
    pub fn build(self, rows: Arc<dyn RowFacts>, settings: SamplerSettings) -> Result<Box<dyn Sampler>> {
        Ok(match self {
            Self::BatchSampler => Box::new(batch::DefaultBatchSampler::new(rows, settings)?),
            Self::NoDuplicates | Self::NoDuplicatesHashed => {
                Box::new(no_duplicates::NoDuplicatesBatchSampler::new(rows, settings)?)
            }
            Self::GroupByLabel => Box::new(group_by_label::GroupByLabelBatchSampler::new(rows, settings)?),
        })
    }
}

/// The order rows are taken in.
fn order(rows: usize, settings: &SamplerSettings, epoch: u64) -> Vec<u32> {
    if settings.shuffle {
        /// Keeps the sampler's numbers apart from those that others draw from the same seed.
        const STREAM: u64 = 0x5A3B_1E00;
        Rng::new(settings.seed).fork(STREAM).fork(epoch).permutation(rows)
    } else {
        (0..rows as u32).collect()
    }
}

/// The errors common to all samplers.
fn check(rows: usize, settings: &SamplerSettings, first_epoch: impl FnOnce() -> usize) -> Result<()> {
    if settings.batch_size == 0 {
        return Err(Error::usage("`per_device_train_batch_size` is 0"));
    }
    if u32::try_from(rows).is_err() {
        return Err(Error::data(format!("{rows} rows are more than a sampler can number")));
    }
    if first_epoch() == 0 {
        let text = format!("no batch is left of {rows} rows at a batch size of {}", settings.batch_size);
        return Err(Error::data(text).with_hint(if settings.drop_last {
            "incomplete batches are dropped: set `dataloader_drop_last = false` or a smaller `per_device_train_batch_size`"
        } else {
            "the data set has no rows"
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn names_lead_to_samplers() {
        assert_eq!(BatchSampler::ALL.map(BatchSampler::name), BatchSampler::NAMES);
        for name in BatchSampler::NAMES {
            let sampler = BatchSampler::from_name(name).unwrap();
            // The recipe's spelling is serde's.
            assert_eq!(serde_json::to_value(sampler).unwrap(), name);
        }
        let error = BatchSampler::from_name("no_duplicate").unwrap_err();
        assert_eq!(error.hint(), Some("did you mean `no_duplicates`?"));
    }
}
