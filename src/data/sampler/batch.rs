//! The default: rows in a new random order each epoch, cut into batches.

use std::sync::Arc;

use super::filling::Filling;
use super::memo::Memo;
use super::{EpochPlan, RowFacts, Sampler, SamplerSettings, check, order};
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
pub struct DefaultBatchSampler {
    rows: Arc<dyn RowFacts>,
    settings: SamplerSettings,
    memo: Memo,
}

impl DefaultBatchSampler {
    /// A sampler over these rows.
    ///
    /// # Errors
    /// When the batch size is 0 or no batch is left.
    pub fn new(rows: Arc<dyn RowFacts>, settings: SamplerSettings) -> Result<Self> {
        let sampler = Self { rows, settings, memo: Memo::default() };
        check(sampler.rows.rows(), &settings, || sampler.batches_per_epoch(0))?;
        Ok(sampler)
    }

    fn plan(&self, epoch: u64) -> EpochPlan {
        let order = order(self.rows.rows(), &self.settings, epoch);
        let mut filling = Filling::new(self.rows.as_ref(), &self.settings, order.len());
        for row in order {
            let fits = filling.fits(&[row]);
            if filling.is_full() || !fits {
                filling.end(!fits);
            }
            filling.push(row);
        }
        filling.end(false);
        filling.finish()
    }
}

impl Sampler for DefaultBatchSampler {
    fn batches_per_epoch(&self, epoch: u64) -> usize {
        let (rows, size) = (self.rows.rows(), self.settings.batch_size);
        if self.settings.max_tokens.is_none() {
            return if self.settings.drop_last { rows / size } else { rows.div_ceil(size) };
        }
        self.memo.count(epoch).unwrap_or_else(|| self.epoch(epoch).len())
    }

    fn epoch(&self, epoch: u64) -> Arc<EpochPlan> {
        self.memo.epoch(epoch, || self.plan(epoch))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::data::sampler::testing::Facts;
    use crate::util::seed::Rng;

    fn of(tokens: Vec<usize>, settings: SamplerSettings) -> DefaultBatchSampler {
        DefaultBatchSampler::new(Arc::new(Facts::distinct(tokens)), settings).unwrap()
    }

    fn sampler(rows: usize, batch_size: usize, drop_last: bool, shuffle: bool) -> DefaultBatchSampler {
        of(vec![1; rows], SamplerSettings { batch_size, max_tokens: None, drop_last, shuffle, seed: 12 })
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
        let settings = SamplerSettings { batch_size: 8, max_tokens: None, drop_last: true, shuffle: true, seed: 0 };
        let new = |settings| DefaultBatchSampler::new(Arc::new(Facts::distinct(vec![1; 7])), settings);
        let error = new(settings).err().unwrap();
        assert_eq!(error.to_string(), "no batch is left of 7 rows at a batch size of 8");
        assert!(new(SamplerSettings { batch_size: 0, ..settings }).is_err());
    }

    #[test]
    fn the_next_row_past_the_budget_begins_a_batch() {
        let tokens = vec![3, 4, 3, 1, 12, 1, 1, 1, 1, 2];
        let batches = |max_tokens, drop_last| {
            let settings = SamplerSettings { batch_size: 4, max_tokens, drop_last, shuffle: false, seed: 0 };
            let plan = of(tokens.clone(), settings).epoch(0);
            (plan.from(0).map(<[u32]>::to_vec).collect::<Vec<_>>(), plan.single_by_tokens())
        };
        // 3 + 4 + 3 is the budget; row 4 alone is beyond it; four rows are enough; the last is what is left
        let all = [vec![0, 1, 2], vec![3], vec![4], vec![5, 6, 7, 8], vec![9]];
        assert_eq!(batches(Some(10), false), (all.to_vec(), 2));
        assert_eq!(batches(Some(10), true), (all[..4].to_vec(), 2), "only what is left is incomplete");
        assert_eq!(batches(Some(2), true).0.last(), Some(&vec![9]), "two tokens are the budget");
        assert_eq!(batches(Some(1000), true).0, batches(None, true).0);
        assert_eq!(batches(None, false).1, 0);
    }

    #[test]
    fn budgets_hold_and_counts_stay_exact() {
        let mut rng = Rng::new(3);
        let tokens: Vec<usize> = (0..700).map(|_| 1 + rng.below(60) as usize).collect();
        for drop_last in [false, true] {
            let settings = SamplerSettings { batch_size: 16, max_tokens: Some(300), drop_last, shuffle: true, seed: 9 };
            let sampler = of(tokens.clone(), settings);
            let counts: Vec<usize> = (0..5).map(|epoch| sampler.batches_per_epoch(epoch)).collect();
            assert!(counts.iter().any(|count| *count != counts[0]), "orders differ, so do counts: {counts:?}");
            for epoch in [4, 0, 2] {
                let plan = sampler.epoch(epoch);
                assert_eq!(plan.len(), counts[epoch as usize]);
                assert_eq!(plan, of(tokens.clone(), settings).epoch(epoch));
                let mut seen: Vec<u32> = plan.from(0).flatten().copied().collect();
                for (k, batch) in plan.from(0).enumerate() {
                    let sum: usize = batch.iter().map(|row| tokens[*row as usize]).sum();
                    assert!(batch.len() <= 16 && sum <= 300);
                    let next = plan.batch(k + 1).and_then(|b| b.first()).map(|row| tokens[*row as usize]);
                    assert!(batch.len() == 16 || next.is_none_or(|next| sum + next > 300), "batch {k} ends too soon");
                }
                assert!(seen.len() > 700 - 16 && (drop_last || seen.len() == 700));
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), plan.rows());
            }
        }
    }
}
