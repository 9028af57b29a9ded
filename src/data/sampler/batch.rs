//! The default: rows in a new random order each epoch, cut into batches.

use std::sync::Arc;

use super::{EpochPlan, Sampler, SamplerSettings, check, order};
use crate::error::Result;
use crate::flow::{Card, LabelKind};

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["any rows"],
    labels: LabelKind::Any,
    gotchas: &["A text can occur twice in a batch: losses with in-batch negatives then learn from false negatives."],
    ..Card::new("batch_sampler", "Rows in a new random order each epoch, or in the data's order without shuffling.")
};

/// sentence-transformers' `DefaultBatchSampler`.
#[derive(Debug, Clone)]
pub struct DefaultBatchSampler {
    rows: usize,
    settings: SamplerSettings,
}

impl DefaultBatchSampler {
    /// A sampler over `rows` rows.
    ///
    /// # Errors
    /// When the batch size is 0 or no batch is left.
    pub fn new(rows: usize, settings: SamplerSettings) -> Result<Self> {
        let sampler = Self { rows, settings };
        check(rows, &settings, || sampler.batches_per_epoch(0))?;
        Ok(sampler)
    }
}

impl Sampler for DefaultBatchSampler {
    fn batches_per_epoch(&self, _epoch: u64) -> usize {
        if self.settings.drop_last {
            self.rows / self.settings.batch_size
        } else {
            self.rows.div_ceil(self.settings.batch_size)
        }
    }

    fn epoch(&self, epoch: u64) -> Arc<EpochPlan> {
        let mut order = order(self.rows, &self.settings, epoch);
        let batches = self.batches_per_epoch(epoch);
        order.truncate(batches * self.settings.batch_size);
        let bounds = (0..=batches).map(|k| (k * self.settings.batch_size).min(order.len()) as u32).collect();
        Arc::new(EpochPlan { order, bounds })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn sampler(rows: usize, batch_size: usize, drop_last: bool, shuffle: bool) -> DefaultBatchSampler {
        let settings = SamplerSettings { batch_size, drop_last, shuffle, seed: 12 };
        DefaultBatchSampler::new(rows, settings).unwrap()
    }

    #[test]
    fn every_row_once_and_counts_exact() {
        for (rows, size, drop_last) in [(10, 3, false), (10, 3, true), (9, 3, true), (1, 8, false)] {
            let sampler = sampler(rows, size, drop_last, true);
            let plan = sampler.epoch(3);
            assert_eq!(plan.len(), sampler.batches_per_epoch(3));
            let mut seen: Vec<u32> = plan.from(0).flatten().copied().collect();
            assert_eq!(seen.len(), if drop_last { rows / size * size } else { rows });
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), plan.rows());
            assert!(plan.batch(plan.len()).is_none());
        }
    }

    #[test]
    fn epochs_differ_repeat_and_can_be_entered_anywhere() {
        let sampler = sampler(100, 7, false, true);
        assert_eq!(sampler.epoch(1), sampler.epoch(1));
        assert_ne!(sampler.epoch(0), sampler.epoch(1));
        let plan = sampler.epoch(0);
        assert!(plan.from(5).eq(plan.from(0).skip(5)));
    }

    #[test]
    fn in_order_without_shuffling() {
        let plan = sampler(5, 2, false, false).epoch(4);
        assert_eq!(plan.from(0).collect::<Vec<_>>(), [&[0, 1][..], &[2, 3], &[4]]);
        assert_eq!(plan.short_batches(2), 1);
    }

    #[test]
    fn no_batch_at_all_is_an_error() {
        let settings = SamplerSettings { batch_size: 8, drop_last: true, shuffle: true, seed: 0 };
        let error = DefaultBatchSampler::new(7, settings).unwrap_err();
        assert_eq!(error.to_string(), "no batch is left of 7 rows at a batch size of 8");
        assert!(DefaultBatchSampler::new(7, SamplerSettings { batch_size: 0, ..settings }).is_err());
    }
}
