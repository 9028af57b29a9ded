//! Batches of several data sets in one epoch, by sentence-transformers' `MultiDatasetBatchSamplers`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{EpochPlan, Sampler};
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind};
use crate::util::seed::Rng;
use crate::util::suggest;

/// The catalogue entries.
pub const CARDS: &[Card] = &[
    Card {
        inputs: &["several data sets"],
        labels: LabelKind::Any,
        gotchas: &["A small data set beside a large one is seldom seen: `round_robin` draws from each alike."],
        ..Card::new("proportional", "Every batch of every data set, in random order.")
    },
    Card {
        inputs: &["several data sets"],
        labels: LabelKind::Any,
        gotchas: &["An epoch ends with the smallest data set: what the others have beyond it is not seen in it."],
        ..Card::new("round_robin", "A batch of each data set in turn, until one has no more.")
    },
];

/// How batches of several data sets follow each other; no batch has rows of two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MultiDatasetBatchSampler {
    /// A batch of each in turn, until one has no more.
    RoundRobin,
    /// Every batch of every data set, in random order.
    #[default]
    Proportional,
}

impl MultiDatasetBatchSampler {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::RoundRobin, Self::Proportional];

    /// Every name a recipe may use.
    pub const NAMES: [&str; 2] = ["round_robin", "proportional"];

    /// By its name in recipes.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| {
            Error::usage(format!("no multi-dataset batch sampler `{name}`")).with_hint(suggest::hint(name, Self::NAMES))
        })
    }

    /// The name in recipes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Proportional => "proportional",
        }
    }

    /// The data set of each batch of an epoch, for data sets of `counts` batches.
    fn turns(self, counts: &[usize], shuffle: bool, rng: Rng) -> Vec<u32> {
        match self {
            Self::RoundRobin => {
                let rounds = counts.iter().copied().min().unwrap_or(0);
                (0..rounds).flat_map(|_| 0..counts.len() as u32).collect()
            }
            Self::Proportional => {
                let sets = counts.iter().enumerate();
                let all: Vec<u32> = sets.clone().flat_map(|(set, n)| std::iter::repeat_n(set as u32, *n)).collect();
                if shuffle {
                    let mut rng = rng;
                    return rng.permutation(all.len()).into_iter().map(|i| all[i as usize]).collect();
                }
                // the k-th of n batches lies at (2 k + 1) / 2 n of the epoch: data sets are spread evenly over it
                let mut placed: Vec<(u64, u64, u32)> =
                    sets.flat_map(|(set, n)| (0..*n as u64).map(move |k| (2 * k + 1, *n as u64, set as u32))).collect();
                placed.sort_by(|a, b| {
                    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1))).then(a.2.cmp(&b.2))
                });
                placed.into_iter().map(|(_, _, set)| set).collect()
            }
        }
    }
}

/// The samplers of all data sets of a run as one. A single data set is the common case of it.
pub struct Mixed {
    samplers: Vec<Arc<dyn Sampler>>,
    how: MultiDatasetBatchSampler,
    shuffle: bool,
    seed: u64,
}

impl Mixed {
    /// The data sets' samplers, mixed by `how`; `shuffle` and `seed` are those of the samplers.
    #[must_use]
    pub fn new(samplers: Vec<Arc<dyn Sampler>>, how: MultiDatasetBatchSampler, shuffle: bool, seed: u64) -> Self {
        Self { samplers, how, shuffle, seed }
    }

    /// One data set's sampler as it is.
    #[must_use]
    pub fn one(sampler: Arc<dyn Sampler>) -> Self {
        Self::new(vec![sampler], MultiDatasetBatchSampler::Proportional, false, 0)
    }

    /// Exactly how many batches that epoch has.
    #[must_use]
    pub fn batches_per_epoch(&self, epoch: u64) -> usize {
        let counts = self.samplers.iter().map(|sampler| sampler.batches_per_epoch(epoch));
        match self.how {
            MultiDatasetBatchSampler::Proportional => counts.sum(),
            MultiDatasetBatchSampler::RoundRobin => counts.min().unwrap_or(0) * self.samplers.len(),
        }
    }

    /// The epoch's batches.
    #[must_use]
    pub fn epoch(&self, epoch: u64) -> MixedPlan {
        /// Keeps the order of batches apart from the order of rows.
        const STREAM: u64 = 0x3170_5E75;
        let plans: Vec<_> = self.samplers.iter().map(|sampler| sampler.epoch(epoch)).collect();
        let counts: Vec<usize> = plans.iter().map(|plan| plan.len()).collect();
        let turns = if let [count] = counts.as_slice() {
            vec![0; *count]
        } else {
            self.how.turns(&counts, self.shuffle, Rng::new(self.seed).fork(STREAM).fork(epoch))
        };
        let mut next = vec![0u32; plans.len()];
        let turn = |set: u32| {
            let place = next[set as usize];
            next[set as usize] += 1;
            (set, place)
        };
        MixedPlan { turns: turns.into_iter().map(turn).collect(), plans }
    }
}

/// The batches of one epoch over all data sets.
#[derive(Debug, Clone, Default)]
pub struct MixedPlan {
    plans: Vec<Arc<EpochPlan>>,
    /// For each batch its data set, and its number among that one's.
    turns: Vec<(u32, u32)>,
}

impl MixedPlan {
    /// How many batches.
    #[must_use]
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Batch `k`: its data set and its rows there; `None` after the last.
    #[must_use]
    pub fn batch(&self, k: usize) -> Option<(usize, &[u32])> {
        let (set, place) = *self.turns.get(k)?;
        Some((set as usize, self.plans.get(set as usize)?.batch(place as usize)?))
    }

    /// The batches from number `k` on: what is left of the epoch after a resume.
    pub fn from(&self, k: usize) -> impl Iterator<Item = (usize, &[u32])> {
        (k..self.len()).filter_map(|k| self.batch(k))
    }

    /// Each data set's own plan.
    #[must_use]
    pub fn plans(&self) -> &[Arc<EpochPlan>] {
        &self.plans
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::data::sampler::testing::Facts;
    use crate::data::sampler::{BatchSampler, SamplerSettings};

    fn mixed(rows: &[usize], how: MultiDatasetBatchSampler, shuffle: bool) -> Mixed {
        let sampler = |rows: &usize| -> Arc<dyn Sampler> {
            let settings = SamplerSettings { batch_size: 2, max_tokens: None, drop_last: false, shuffle, seed: 3 };
            Arc::from(BatchSampler::BatchSampler.build(Arc::new(Facts::distinct(vec![1; *rows])), settings).unwrap())
        };
        Mixed::new(rows.iter().map(sampler).collect(), how, shuffle, 3)
    }

    fn sets(plan: &MixedPlan) -> Vec<usize> {
        plan.from(0).map(|(set, _)| set).collect()
    }

    #[test]
    fn proportional_has_every_batch_of_every_set() {
        for shuffle in [false, true] {
            let mixed = mixed(&[40, 10, 5], MultiDatasetBatchSampler::Proportional, shuffle);
            for epoch in 0..3 {
                let plan = mixed.epoch(epoch);
                assert_eq!((plan.len(), mixed.batches_per_epoch(epoch)), (28, 28));
                for (set, rows) in [40, 10, 5].into_iter().enumerate() {
                    let mut seen: Vec<u32> = plan.from(0).filter(|b| b.0 == set).flat_map(|b| b.1).copied().collect();
                    seen.sort_unstable();
                    assert_eq!(seen, (0..rows).collect::<Vec<u32>>());
                }
                assert!(plan.from(11).eq(plan.from(0).skip(11)));
                assert_eq!(sets(&plan), sets(&mixed.epoch(epoch)));
            }
            assert_eq!(sets(&mixed.epoch(0)) != sets(&mixed.epoch(1)), shuffle);
        }
        let even = mixed(&[8, 4], MultiDatasetBatchSampler::Proportional, false).epoch(0);
        assert_eq!(sets(&even), [0, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn round_robin_ends_with_the_smallest() {
        let mixed = mixed(&[40, 5, 10], MultiDatasetBatchSampler::RoundRobin, true);
        let plan = mixed.epoch(1);
        assert_eq!((plan.len(), mixed.batches_per_epoch(1)), (9, 9));
        assert_eq!(sets(&plan), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
        assert!(plan.batch(9).is_none());
    }

    #[test]
    fn one_set_is_itself() {
        for how in MultiDatasetBatchSampler::ALL {
            let mixed = mixed(&[7], how, true);
            let plan = mixed.epoch(2);
            assert_eq!(plan.len(), 4);
            assert!(plan.from(0).map(|(_, rows)| rows).eq(plan.plans()[0].from(0)));
        }
    }

    #[test]
    fn names() {
        assert_eq!(MultiDatasetBatchSampler::ALL.map(MultiDatasetBatchSampler::name), MultiDatasetBatchSampler::NAMES);
        let error = MultiDatasetBatchSampler::from_name("roundrobin").unwrap_err();
        assert_eq!(error.hint(), Some("did you mean `round_robin`?"));
    }
}
