//! Two rows of a class at a time, so that every batch has classes to compare.
//!
//! The rule is the reference's: the classes take turns, two rows each, in a new order every round, until fewer than two
//! are left; the stream is cut into batches. What the largest class has beyond all others, an odd row of a class and
//! classes of a single row stay out of an epoch; which rows those are is drawn anew each epoch.

use std::collections::HashMap;
use std::sync::Arc;

use super::filling::Filling;
use super::memo::Memo;
use super::{EpochPlan, RowFacts, Sampler, SamplerSettings, check, order};
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind};
use crate::util::seed::Rng;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["rows with a class each"],
    labels: LabelKind::Int,
    gotchas: &[
        "`per_device_train_batch_size` has to be an even number of 4 or more.",
        "Classes of one row never occur, an odd row of a class is left out of an epoch, and so is what the largest class \
         has more than the others: the epoch is shorter than the data.",
        "`max_tokens_per_batch` ends a batch between two pairs; a batch of two pairs may be past it.",
    ],
    ..Card::new(
        "group_by_label",
        "Every batch has at least two classes with at least two rows each: for losses that compare classes.",
    )
};

/// Fewer rows than two pairs are no batch.
const LEAST: usize = 4;

/// sentence-transformers' `GroupByLabelBatchSampler`.
pub struct GroupByLabelBatchSampler {
    rows: Arc<dyn RowFacts>,
    settings: SamplerSettings,
    /// `[rows]`: the number of its class, in the order in which they are met; none for a class of one row.
    groups: Vec<Option<u32>>,
    /// How many classes have two rows or more.
    classes: usize,
    memo: Memo,
}

impl GroupByLabelBatchSampler {
    /// A sampler over these rows.
    ///
    /// # Errors
    /// When the batch size is odd or below 4, a row has no class, fewer than two classes have two rows, or no batch is
    /// left.
    pub fn new(rows: Arc<dyn RowFacts>, settings: SamplerSettings) -> Result<Self> {
        if settings.batch_size != 0 && (settings.batch_size < LEAST || !settings.batch_size.is_multiple_of(2)) {
            return Err(Error::usage(format!(
                "`group_by_label` needs an even batch size of 4 or more, got {}",
                settings.batch_size
            ))
            .with_hint("a batch is made of pairs of at least two classes: 32 or 64 is usual"));
        }
        let (groups, classes) = groups(rows.as_ref())?;
        let sampler = Self { rows, settings, groups, classes, memo: Memo::default() };
        check(sampler.rows.rows(), &settings, || sampler.batches_per_epoch(0))?;
        Ok(sampler)
    }

    fn plan(&self, epoch: u64) -> EpochPlan {
        let order = order(self.rows.rows(), &self.settings, epoch);
        let mut queues: Vec<Vec<u32>> = vec![Vec::new(); self.classes];
        for row in order {
            let group = self.groups.get(row as usize).copied().flatten();
            if let Some(queue) = group.and_then(|group| queues.get_mut(group as usize)) {
                queue.push(row);
            }
        }
        /// Keeps the turns' numbers apart from the rows'.
        const STREAM: u64 = 0x6C0B_1A5E;
        let mut rng = Rng::new(self.settings.seed).fork(STREAM).fork(epoch);
        let mut filling = Filling::new(self.rows.as_ref(), &self.settings, self.groups.len());
        // Classes that still have a pair.
        let mut left: Vec<u32> = (0..self.classes as u32).collect();
        let mut last = None;
        for round in 0.. {
            if left.len() < 2 {
                break;
            }
            if self.settings.shuffle {
                let turns = rng.permutation(left.len());
                left = turns.into_iter().filter_map(|i| left.get(i as usize).copied()).collect();
                // Two pairs of one class in a row would go into one batch.
                if last == left.first().copied() {
                    left.swap(0, 1);
                }
            }
            for class in &left {
                if let Some(pair) = queues.get(*class as usize).and_then(|queue| queue.get(2 * round..2 * round + 2)) {
                    push(&mut filling, pair);
                }
            }
            last = left.last().copied();
            left.retain(|class| queues.get(*class as usize).is_some_and(|queue| queue.len() >= 2 * round + 4));
        }
        if filling.len() < LEAST {
            filling.discard();
        }
        filling.end(false);
        filling.finish()
    }
}

/// Puts a pair into the batch, or into the next where it has no place.
fn push(filling: &mut Filling<'_>, pair: &[u32]) {
    let fits = filling.len() < LEAST || filling.fits(pair);
    if filling.is_full() || !fits {
        filling.end(!fits);
    }
    pair.iter().for_each(|row| filling.push(*row));
}

/// The number of each row's class, and how many classes have two rows or more.
fn groups(rows: &dyn RowFacts) -> Result<(Vec<Option<u32>>, usize)> {
    let labels: Option<Vec<i64>> = (0..rows.rows() as u32).map(|row| rows.class(row)).collect();
    let Some(labels) = labels else {
        return Err(Error::usage("`group_by_label` needs a class a row, and the rows have none").with_hint(
            "use it with a loss on classes, BatchAllTripletLoss for one, and name the column that holds them with `label`",
        ));
    };
    let mut counts: HashMap<i64, usize> = HashMap::new();
    for label in &labels {
        *counts.entry(*label).or_default() += 1;
    }
    let mut numbers: HashMap<i64, u32> = HashMap::new();
    let groups = labels.iter().map(|label| {
        let enough = counts.get(label).is_some_and(|count| *count >= 2);
        let next = numbers.len() as u32;
        enough.then(|| *numbers.entry(*label).or_insert(next))
    });
    let groups = groups.collect();
    if numbers.len() < 2 {
        return Err(Error::data(format!(
            "`group_by_label` needs two classes with two rows each, and {} of {} classes have two rows",
            numbers.len(),
            counts.len()
        ))
        .with_hint("name the column that holds the classes with `label`, or add rows"));
    }
    Ok((groups, numbers.len()))
}

impl Sampler for GroupByLabelBatchSampler {
    fn batches_per_epoch(&self, epoch: u64) -> usize {
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

    fn facts(classes: Vec<i64>) -> Facts {
        Facts { classes, ..Facts::distinct(Vec::new()) }
    }

    fn settings(batch_size: usize, drop_last: bool) -> SamplerSettings {
        SamplerSettings { batch_size, max_tokens: None, drop_last, shuffle: true, seed: 5 }
    }

    /// What the reference announces: its stream's length, cut into batches.
    fn announced(classes: &[i64], settings: &SamplerSettings) -> usize {
        let mut counts: HashMap<i64, usize> = HashMap::new();
        classes.iter().for_each(|class| *counts.entry(*class).or_default() += 1);
        let mut pairs: Vec<usize> = counts.into_values().map(|count| count / 2).filter(|pairs| *pairs > 0).collect();
        pairs.sort_unstable_by(|a, b| b.cmp(a));
        let stream = 2 * pairs.iter().map(|own| (*own).min(pairs[1])).sum::<usize>();
        let rest = usize::from(!settings.drop_last && stream % settings.batch_size >= 4);
        stream / settings.batch_size + rest
    }

    #[test]
    fn every_batch_has_pairs_of_several_classes() {
        let mut rng = Rng::new(99);
        for trial in 0..400 {
            let (n, kinds) = (8 + rng.below(200) as usize, 2 + rng.below(12));
            // A few classes are very common.
            let mut classes: Vec<i64> = (0..n).map(|_| (rng.uniform().powi(3) * kinds as f64) as i64 - 3).collect();
            classes.extend([90, 90, 91, 91]);
            let mut settings = settings(4 + 2 * rng.below(8) as usize, rng.below(2) == 1);
            settings.max_tokens = (trial % 3 == 2).then(|| 1 + rng.below(12) as usize);
            settings.shuffle = trial % 5 != 4;
            let made = GroupByLabelBatchSampler::new(Arc::new(facts(classes.clone())), settings);
            let Ok(sampler) = made else {
                assert!(settings.drop_last && announced(&classes, &settings) == 0);
                continue;
            };
            for epoch in [0, 3, 1] {
                let count = sampler.batches_per_epoch(epoch);
                let plan = sampler.epoch(epoch);
                assert_eq!(plan.len(), count, "trial {trial}");
                if settings.max_tokens.is_none() {
                    assert_eq!(count, announced(&classes, &settings), "trial {trial}");
                }
                let mut used: Vec<u32> = plan.from(0).flatten().copied().collect();
                for batch in plan.from(0) {
                    let mut own: HashMap<i64, usize> = HashMap::new();
                    batch.iter().for_each(|row| *own.entry(classes[*row as usize]).or_default() += 1);
                    assert!(own.len() >= 2 && own.values().all(|count| *count >= 2), "trial {trial}: {own:?}");
                    assert!(batch.len() <= settings.batch_size);
                    // Rows are of one token here.
                    assert!(batch.len() == 4 || settings.max_tokens.is_none_or(|most| batch.len() <= most));
                }
                used.sort_unstable();
                let before = used.len();
                used.dedup();
                assert_eq!(used.len(), before, "trial {trial}: a row twice");
            }
        }
    }

    #[test]
    fn balanced_classes_are_covered_whole() {
        let classes: Vec<i64> = (0..120).map(|i| i % 6).collect();
        let sampler = GroupByLabelBatchSampler::new(Arc::new(facts(classes)), settings(8, true)).unwrap();
        assert_eq!((sampler.epoch(0).rows(), sampler.batches_per_epoch(0)), (120, 15));
    }

    #[test]
    fn epochs_differ_repeat_and_can_be_entered_anywhere() {
        let classes: Vec<i64> = (0..301).map(|i| i % 7).collect();
        let new = || GroupByLabelBatchSampler::new(Arc::new(facts(classes.clone())), settings(8, false)).unwrap();
        let sampler = new();
        let plan = sampler.epoch(1);
        assert_ne!(sampler.epoch(0), plan);
        assert_eq!(new().epoch(1), plan, "a function of seed and epoch");
        assert!(plan.from(5).eq(plan.from(0).skip(5)));
    }

    #[test]
    fn in_turns_without_shuffling() {
        let settings = SamplerSettings { shuffle: false, ..settings(4, false) };
        let classes = vec![5, 5, 5, 5, 1, 1, 5, 5, 1, 1, 9, 1, 1];
        let plan = GroupByLabelBatchSampler::new(Arc::new(facts(classes)), settings).unwrap().epoch(0);
        assert_eq!(plan.from(0).collect::<Vec<_>>(), [&[0, 1, 4, 5][..], &[2, 3, 8, 9], &[6, 7, 11, 12]]);
    }

    #[test]
    fn a_budget_ends_batches_between_pairs() {
        let settings = SamplerSettings { shuffle: false, max_tokens: Some(10), ..settings(8, true) };
        let tokens = vec![1, 1, 2, 2, 2, 2, 9, 9, 1, 1, 1, 1];
        let facts = Facts { classes: vec![1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6], ..Facts::distinct(tokens) };
        let plan = GroupByLabelBatchSampler::new(Arc::new(facts), settings).unwrap().epoch(0);
        // Three pairs are the budget; the next two are past it, and the last alone is no batch.
        assert_eq!(plan.from(0).collect::<Vec<_>>(), [&[0, 1, 2, 3, 4, 5][..], &[6, 7, 8, 9]]);
    }

    #[test]
    fn refuses_what_makes_no_batches() {
        let error = |classes: Vec<i64>, settings: SamplerSettings| {
            GroupByLabelBatchSampler::new(Arc::new(facts(classes)), settings).err().unwrap().to_string()
        };
        for size in [2, 3, 7] {
            assert!(error(vec![1, 1, 2, 2], settings(size, false)).contains("an even batch size of 4 or more"));
        }
        assert!(error(vec![1, 1, 2, 2], settings(0, false)).contains("`per_device_train_batch_size` is 0"));
        let one = error(vec![1, 1, 2, 3], settings(4, false));
        assert_eq!(one, "`group_by_label` needs two classes with two rows each, and 1 of 3 classes have two rows");
        assert!(error(vec![1, 1, 2, 2], settings(8, true)).contains("no batch is left of 4 rows"));
        let none = GroupByLabelBatchSampler::new(Arc::new(Facts::distinct(vec![1; 8])), settings(4, false));
        assert!(none.err().unwrap().to_string().contains("the rows have none"));
    }

    #[test]
    fn a_million_rows_in_seconds() {
        let classes: Vec<i64> = (0..1_000_000).map(|i| i % 50_000).collect();
        let started = std::time::Instant::now();
        let sampler = GroupByLabelBatchSampler::new(Arc::new(facts(classes)), settings(64, false)).unwrap();
        assert_eq!(sampler.epoch(0).rows(), 1_000_000);
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
