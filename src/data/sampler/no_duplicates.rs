//! No text twice in a batch, over all input columns.
//!
//! The batches are those of the reference's greedy rule: take the rows in order, put into the batch each one that
//! shares no text with it, leave the others for later batches. The reference walks over the deferred rows again for
//! every batch. Here a deferred row waits at the text it was refused for, and of all rows waiting at a text only the
//! first can be next, so each batch looks at a number of rows in the order of its own size.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
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
    rows: Arc<dyn RowFacts>,
    settings: SamplerSettings,
    memo: Memo,
}

impl NoDuplicatesBatchSampler {
    /// A sampler over these rows.
    ///
    /// # Errors
    /// When the batch size is 0 or no batch is left.
    pub fn new(rows: Arc<dyn RowFacts>, settings: SamplerSettings) -> Result<Self> {
        let sampler = Self { rows, settings, memo: Memo::default() };
        check(sampler.rows.rows(), &settings, || sampler.batches_per_epoch(0))?;
        Ok(sampler)
    }
}

impl Sampler for NoDuplicatesBatchSampler {
    fn batches_per_epoch(&self, epoch: u64) -> usize {
        self.memo.count(epoch).unwrap_or_else(|| self.epoch(epoch).len())
    }

    fn epoch(&self, epoch: u64) -> Arc<EpochPlan> {
        self.memo
            .epoch(epoch, || plan(&order(self.rows.rows(), &self.settings, epoch), self.rows.as_ref(), &self.settings))
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
/// would be refused anyway, and stay where they are until the batch is done. A row that only the budget of tokens
/// keeps out ends the batch, and is a candidate for the next one.
fn plan(order: &[u32], rows: &dyn RowFacts, settings: &SamplerSettings) -> EpochPlan {
    let mut filling = Filling::new(rows, settings, order.len());
    let mut candidates: BinaryHeap<Reverse<(u32, Option<u64>)>> = BinaryHeap::new();
    let mut waiting: HashMap<u64, BinaryHeap<Reverse<u32>>, Hashed> = HashMap::default();
    let mut in_batch: HashSet<u64, Hashed> = HashSet::default();
    let mut texts: Vec<u64> = Vec::new();
    let (mut fresh, mut left) = (0u32, order.len());
    while left > 0 {
        let mut closed = false;
        while !filling.is_full() {
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
            if !filling.fits(&[row]) {
                candidates.push(Reverse((position, home)));
                closed = true;
                break;
            }
            filling.push(row);
            for id in ids {
                if in_batch.insert(*id) {
                    texts.push(*id);
                }
            }
        }
        left -= filling.len();
        // A row that is dropped with its incomplete batch is not tried again, as in the reference.
        filling.end(closed);
        in_batch.clear();
        for text in texts.drain(..) {
            wake(&mut waiting, &mut candidates, text);
        }
    }
    filling.finish()
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
    use crate::data::sampler::testing::Facts;
    use crate::util::seed::{Rng, mix};

    /// The reference's rule, word for word, with the budget: every batch goes over all rows that are left.
    fn greedy(order: &[u32], rows: &Facts, settings: &SamplerSettings) -> Vec<Vec<u32>> {
        let most = settings.max_tokens.unwrap_or(usize::MAX);
        let mut left = order.to_vec();
        let mut batches = Vec::new();
        while !left.is_empty() {
            let (mut batch, mut values, mut deferred) = (Vec::new(), HashSet::new(), Vec::new());
            let (mut tokens, mut closed) = (0, false);
            for row in left {
                if closed || batch.len() == settings.batch_size || rows.ids(row).iter().any(|id| values.contains(id)) {
                    deferred.push(row);
                } else if !batch.is_empty() && tokens + rows.tokens(row) > most {
                    closed = true;
                    deferred.push(row);
                } else {
                    values.extend(rows.ids(row).iter().copied());
                    tokens += rows.tokens(row);
                    batch.push(row);
                }
            }
            if closed || tokens >= most || batch.len() == settings.batch_size || !settings.drop_last {
                batches.push(batch);
            }
            left = deferred;
        }
        batches
    }

    fn settings(batch_size: usize, drop_last: bool) -> SamplerSettings {
        SamplerSettings { batch_size, max_tokens: None, drop_last, shuffle: true, seed: 5 }
    }

    #[test]
    fn equals_the_greedy_rule_and_keeps_its_promises() {
        let mut rng = Rng::new(99);
        for trial in 0..800 {
            let (n, columns) = (1 + rng.below(120) as usize, 1 + rng.below(3) as usize);
            let texts = 1 + rng.below(150);
            let facts = Facts::skewed(&mut rng, n, columns, texts);
            let mut settings = settings(1 + rng.below(12) as usize, rng.below(2) == 1);
            settings.max_tokens = (trial % 2 == 1).then(|| 1 + rng.below(200) as usize);
            let order = Rng::new(trial).permutation(n);
            let plan = plan(&order, &facts, &settings);
            let batches: Vec<Vec<u32>> = plan.from(0).map(<[u32]>::to_vec).collect();
            assert_eq!(batches, greedy(&order, &facts, &settings), "trial {trial}");
            let mut used: Vec<u32> = batches.iter().flatten().copied().collect();
            for batch in &batches {
                assert!(!batch.is_empty() && batch.len() <= settings.batch_size);
                assert!(batch.len() == settings.batch_size || !settings.drop_last || settings.max_tokens.is_some());
                let tokens: usize = batch.iter().map(|row| facts.tokens(*row)).sum();
                assert!(batch.len() == 1 || settings.max_tokens.is_none_or(|most| tokens <= most));
                let mut seen = HashSet::new();
                for row in batch {
                    let own: HashSet<u64> = facts.ids(*row).iter().copied().collect();
                    assert!(own.iter().all(|id| seen.insert(*id)), "trial {trial}: a text twice in {batch:?}");
                }
            }
            used.sort_unstable();
            let before = used.len();
            used.dedup();
            assert_eq!(used.len(), before);
            assert!(settings.drop_last || used.len() == n);
        }
    }

    #[test]
    fn counts_are_exact_and_epochs_repeat() {
        for max_tokens in [None, Some(100)] {
            let facts = Arc::new(Facts::skewed(&mut Rng::new(1), 500, 2, 400));
            let settings = SamplerSettings { max_tokens, ..settings(8, false) };
            let sampler = NoDuplicatesBatchSampler::new(facts, settings).unwrap();
            let counts: Vec<usize> = (0..4).map(|e| sampler.batches_per_epoch(e)).collect();
            for epoch in [2, 0, 3, 1] {
                let plan = sampler.epoch(epoch);
                assert_eq!(plan.len(), counts[epoch as usize]);
                assert!(plan.from(7).eq(plan.from(0).skip(7)));
            }
            assert_eq!(sampler.epoch(1), sampler.epoch(1));
            assert_ne!(sampler.epoch(0), sampler.epoch(1));
        }
    }

    #[test]
    fn rows_kept_out_by_the_budget_come_first_in_the_next_batch() {
        // 0 and 1 share a text; 2 is too long for the batch of 0, which ends there although 3 would fit
        let ids = vec![7, 7, 8, 9, 10];
        let facts = Facts { ids, columns: 1, tokens: vec![4, 4, 8, 1, 1], classes: Vec::new() };
        let settings = SamplerSettings { max_tokens: Some(10), shuffle: false, ..settings(8, false) };
        let plan = plan(&[0, 1, 2, 3, 4], &facts, &settings);
        assert_eq!(plan.from(0).collect::<Vec<_>>(), [&[0][..], &[1], &[2, 3, 4]]);
        assert_eq!(plan.single_by_tokens(), 2);
    }

    #[test]
    fn one_text_everywhere() {
        let ids = (0..2000).map(|i| if i % 2 == 0 { 7 } else { mix(i) }).collect();
        let facts = Arc::new(Facts { ids, columns: 2, tokens: Vec::new(), classes: Vec::new() });
        let plan = NoDuplicatesBatchSampler::new(facts.clone(), settings(4, false)).unwrap().epoch(0);
        assert_eq!((plan.len(), plan.short_batches(4), plan.single_by_tokens()), (1000, 1000, 0));
        let error = NoDuplicatesBatchSampler::new(facts, settings(4, true)).err().unwrap();
        assert!(error.hint().unwrap().contains("dataloader_drop_last"));
    }

    #[test]
    fn a_million_rows_in_seconds() {
        // Half the rows share one of 100 anchors: walking over the deferred rows for each batch would take hours.
        let n = 1_000_000u64;
        let anchor = |i: u64| {
            if i.is_multiple_of(2) { mix(i % 200) } else { mix(1_000_000 + i) }
        };
        let ids = (0..n).flat_map(|i| [anchor(i), mix(1 << 40 | i)]).collect();
        let facts = Arc::new(Facts { ids, columns: 2, tokens: Vec::new(), classes: Vec::new() });
        let started = std::time::Instant::now();
        let sampler = NoDuplicatesBatchSampler::new(facts, settings(64, false)).unwrap();
        assert_eq!(sampler.epoch(0).rows(), 1_000_000);
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
