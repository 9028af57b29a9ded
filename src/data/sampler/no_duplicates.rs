//! No text twice in a batch, over all input columns.
//!
//! The batches are those of the reference's greedy rule: take the rows in order, put into the batch each one that
//! shares no text with it, leave the others for later batches. The reference walks over the deferred rows again for
//! every batch. Here a deferred row waits at the text it was refused for, and of all rows waiting at a text only the
//! first can be next, so each batch looks at a number of rows in the order of its own size.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use super::{EpochPlan, Sampler, SamplerSettings, TextIds, check, order};
use crate::error::Result;
use crate::flow::{Card, LabelKind};

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["any rows"],
    labels: LabelKind::Any,
    gotchas: &[
        "A text that very many rows share makes the last batches of an epoch small: with nothing else left, one row each.",
        "The number of batches depends on the order of the rows, so it can differ a little between epochs.",
    ],
    ..Card::new(
        "no_duplicates",
        "No text occurs twice in a batch: for losses with in-batch negatives. `no_duplicates_hashed` is the same here.",
    )
};

/// sentence-transformers' `NoDuplicatesBatchSampler`.
pub struct NoDuplicatesBatchSampler {
    rows: Arc<dyn TextIds>,
    settings: SamplerSettings,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    counts: HashMap<u64, usize>,
    latest: Option<(u64, Arc<EpochPlan>)>,
}

impl NoDuplicatesBatchSampler {
    /// A sampler over these rows.
    ///
    /// # Errors
    /// When the batch size is 0 or no batch is left.
    pub fn new(rows: Arc<dyn TextIds>, settings: SamplerSettings) -> Result<Self> {
        let sampler = Self { rows, settings, known: Mutex::default() };
        check(sampler.rows.rows(), &settings, || sampler.batches_per_epoch(0))?;
        Ok(sampler)
    }
}

impl Sampler for NoDuplicatesBatchSampler {
    fn batches_per_epoch(&self, epoch: u64) -> usize {
        let count = self.known.lock().unwrap_or_else(PoisonError::into_inner).counts.get(&epoch).copied();
        count.unwrap_or_else(|| self.epoch(epoch).len())
    }

    fn epoch(&self, epoch: u64) -> Arc<EpochPlan> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = known.latest.as_ref().filter(|(e, _)| *e == epoch) {
            return Arc::clone(plan);
        }
        let order = order(self.rows.rows(), &self.settings, epoch);
        let plan = Arc::new(plan(&order, self.rows.as_ref(), self.settings.batch_size, self.settings.drop_last));
        known.counts.insert(epoch, plan.len());
        known.latest = Some((epoch, Arc::clone(&plan)));
        plan
    }
}

/// Text ids are hashes already.
#[derive(Debug, Clone, Copy, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.0 = chunk.iter().fold(self.0.rotate_left(29), |h, b| (h << 8) ^ u64::from(*b));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

type Hashed = BuildHasherDefault<Identity>;

/// The greedy batches of rows taken in `order`.
///
/// Positions in `order` are what is compared and queued: a smaller one comes first. For every text that is not in the
/// batch being filled, the first row waiting at it is among the `candidates`; rows waiting at a text of the batch
/// would be refused anyway, and stay where they are until the batch is done.
fn plan(order: &[u32], rows: &dyn TextIds, batch_size: usize, drop_last: bool) -> EpochPlan {
    let mut planned: Vec<u32> = Vec::with_capacity(order.len());
    let mut bounds = vec![0u32];
    let mut candidates: BinaryHeap<Reverse<(u32, Option<u64>)>> = BinaryHeap::new();
    let mut waiting: HashMap<u64, BinaryHeap<Reverse<u32>>, Hashed> = HashMap::default();
    let mut in_batch: HashSet<u64, Hashed> = HashSet::default();
    let mut texts: Vec<u64> = Vec::new();
    let (mut fresh, mut left) = (0u32, order.len());
    while left > 0 {
        let start = planned.len();
        while planned.len() - start < batch_size {
            // Deferred rows come before fresh ones: they were reached earlier.
            let (position, home) = match candidates.pop() {
                Some(Reverse(candidate)) => candidate,
                None if (fresh as usize) < order.len() => {
                    fresh += 1;
                    (fresh - 1, None)
                }
                None => break,
            };
            let Some(&row) = order.get(position as usize) else {
                break;
            };
            let ids = rows.ids(row);
            let refused_for = match home {
                Some(text) if in_batch.contains(&text) => Some(text),
                _ => ids.iter().copied().find(|id| in_batch.contains(id)),
            };
            if let Some(text) = refused_for {
                waiting.entry(text).or_default().push(Reverse(position));
                if let Some(home) = home.filter(|h| *h != text) {
                    // Its old queue's text is not in the batch, so the next one there has its chance.
                    wake(&mut waiting, &mut candidates, home);
                }
                continue;
            }
            planned.push(row);
            for id in ids {
                if in_batch.insert(*id) {
                    texts.push(*id);
                }
            }
        }
        left -= planned.len() - start;
        // A row that is dropped with its incomplete batch is not tried again, as in the reference.
        if drop_last && planned.len() - start < batch_size {
            planned.truncate(start);
        } else if planned.len() > start {
            bounds.push(planned.len() as u32);
        }
        in_batch.clear();
        for text in texts.drain(..) {
            wake(&mut waiting, &mut candidates, text);
        }
    }
    EpochPlan { order: planned, bounds }
}

/// Makes the first row that waits at `text` a candidate.
fn wake(
    waiting: &mut HashMap<u64, BinaryHeap<Reverse<u32>>, Hashed>,
    candidates: &mut BinaryHeap<Reverse<(u32, Option<u64>)>>,
    text: u64,
) {
    if let Some(queue) = waiting.get_mut(&text) {
        if let Some(Reverse(position)) = queue.pop() {
            candidates.push(Reverse((position, Some(text))));
        }
        if queue.is_empty() {
            waiting.remove(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::util::seed::{Rng, mix};

    struct Ids(Vec<u64>, usize);

    impl TextIds for Ids {
        fn rows(&self) -> usize {
            self.0.len() / self.1
        }

        fn ids(&self, row: u32) -> &[u64] {
            &self.0[row as usize * self.1..][..self.1]
        }
    }

    /// The reference's rule, word for word: every batch goes over all rows that are left.
    fn greedy(order: &[u32], rows: &Ids, batch_size: usize, drop_last: bool) -> Vec<Vec<u32>> {
        let mut left = order.to_vec();
        let mut batches = Vec::new();
        while !left.is_empty() {
            let (mut batch, mut values, mut deferred) = (Vec::new(), HashSet::new(), Vec::new());
            for row in left {
                if batch.len() == batch_size || rows.ids(row).iter().any(|id| values.contains(id)) {
                    deferred.push(row);
                } else {
                    values.extend(rows.ids(row).iter().copied());
                    batch.push(row);
                }
            }
            if batch.len() == batch_size || !drop_last {
                batches.push(batch);
            }
            left = deferred;
        }
        batches
    }

    fn settings(batch_size: usize, drop_last: bool) -> SamplerSettings {
        SamplerSettings { batch_size, drop_last, shuffle: true, seed: 5 }
    }

    /// Texts drawn so that a few are very common.
    fn skewed(rng: &mut Rng, rows: usize, columns: usize, texts: u64) -> Ids {
        let ids = (0..rows * columns).map(|_| mix(((rng.uniform().powi(3)) * texts as f64) as u64)).collect();
        Ids(ids, columns)
    }

    #[test]
    fn equals_the_greedy_rule_and_keeps_its_promises() {
        let mut rng = Rng::new(99);
        for trial in 0..400 {
            let (n, columns) = (1 + rng.below(120) as usize, 1 + rng.below(3) as usize);
            let texts = 1 + rng.below(150);
            let ids = Arc::new(skewed(&mut rng, n, columns, texts));
            let (size, drop_last) = (1 + rng.below(12) as usize, rng.below(2) == 1);
            let order = Rng::new(trial).permutation(n);
            let plan = plan(&order, ids.as_ref(), size, drop_last);
            let batches: Vec<Vec<u32>> = plan.from(0).map(<[u32]>::to_vec).collect();
            assert_eq!(batches, greedy(&order, &ids, size, drop_last), "trial {trial}");
            let mut used: Vec<u32> = batches.iter().flatten().copied().collect();
            for batch in &batches {
                assert!(!batch.is_empty() && (batch.len() == size || (!drop_last && batch.len() < size)));
                let mut seen = HashSet::new();
                for row in batch {
                    let own: HashSet<u64> = ids.ids(*row).iter().copied().collect();
                    assert!(own.iter().all(|id| seen.insert(*id)), "trial {trial}: a text twice in {batch:?}");
                }
            }
            used.sort_unstable();
            let before = used.len();
            used.dedup();
            assert_eq!(used.len(), before);
            assert!(drop_last || used.len() == n);
        }
    }

    #[test]
    fn counts_are_exact_and_epochs_repeat() {
        let ids = Arc::new(skewed(&mut Rng::new(1), 500, 2, 400));
        let sampler = NoDuplicatesBatchSampler::new(ids, settings(8, false)).unwrap();
        let counts: Vec<usize> = (0..4).map(|e| sampler.batches_per_epoch(e)).collect();
        for epoch in [2, 0, 3, 1] {
            let plan = sampler.epoch(epoch);
            assert_eq!(plan.len(), counts[epoch as usize]);
            assert!(plan.from(7).eq(plan.from(0).skip(7)));
        }
        assert_eq!(sampler.epoch(1), sampler.epoch(1));
        assert_ne!(sampler.epoch(0), sampler.epoch(1));
    }

    #[test]
    fn one_text_everywhere() {
        let ids = Arc::new(Ids((0..2000).map(|i| if i % 2 == 0 { 7 } else { mix(i) }).collect(), 2));
        let plan = NoDuplicatesBatchSampler::new(ids.clone(), settings(4, false)).unwrap().epoch(0);
        assert_eq!((plan.len(), plan.short_batches(4)), (1000, 1000));
        let error = NoDuplicatesBatchSampler::new(ids, settings(4, true)).err().unwrap();
        assert!(error.hint().unwrap().contains("dataloader_drop_last"));
    }

    #[test]
    fn a_million_rows_in_seconds() {
        // Half the rows share one of 100 anchors: walking over the deferred rows for each batch would take hours.
        let n = 1_000_000u64;
        let anchor = |i: u64| {
            if i.is_multiple_of(2) { mix(i % 200) } else { mix(1_000_000 + i) }
        };
        let ids = Arc::new(Ids((0..n).flat_map(|i| [anchor(i), mix(1 << 40 | i)]).collect(), 2));
        let started = std::time::Instant::now();
        let sampler = NoDuplicatesBatchSampler::new(ids, settings(64, false)).unwrap();
        assert_eq!(sampler.epoch(0).rows(), 1_000_000);
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
