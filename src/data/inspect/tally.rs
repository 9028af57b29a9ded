//! How often do things occur, in bounded memory? Counts of hashes; beyond a number of them, of a part drawn by the hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Different hashes that are kept at most; twice 16 MiB at a table's fullest.
const MOST: usize = 1 << 20;

/// The hash of a hash is itself.
#[derive(Debug, Default)]
pub struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// A map by hashes.
pub type ByHash<V> = HashMap<u64, V, BuildHasherDefault<Same>>;

/// Counts by hash. Whether a hash is kept depends on the hash alone, so the counts of those kept are exact, and sums
/// over all are those of the kept ones times the part they are.
#[derive(Debug)]
pub struct Tally {
    counts: ByHash<u32>,
    /// Only hashes that end in so many zero bits are kept.
    level: u32,
    most: usize,
}

impl Default for Tally {
    fn default() -> Self {
        Self::with_most(MOST)
    }
}

impl Tally {
    fn with_most(most: usize) -> Self {
        Self { counts: ByHash::default(), level: 0, most }
    }

    /// Counts one.
    pub fn add(&mut self, hash: u64) {
        if hash.trailing_zeros() < self.level {
            return;
        }
        let count = self.counts.entry(hash).or_default();
        *count = count.saturating_add(1);
        while self.counts.len() > self.most && self.level < 60 {
            self.level += 1;
            let level = self.level;
            self.counts.retain(|hash, _| hash.trailing_zeros() >= level);
        }
    }

    /// Whether all were kept, so that sums are exact.
    pub fn is_exact(&self) -> bool {
        self.level == 0
    }

    /// The sum of `of` each count.
    fn sum(&self, of: impl Fn(u64) -> u64) -> u64 {
        let kept: u64 = self.counts.values().map(|count| of(u64::from(*count))).sum();
        kept.saturating_mul(1 << self.level)
    }

    /// How many came again.
    pub fn repeated(&self) -> u64 {
        self.sum(|count| count - 1)
    }

    /// How many different ones came more than once.
    pub fn shared(&self) -> u64 {
        self.sum(|count| u64::from(count > 1))
    }

    /// Ordered pairs of equal ones.
    pub fn pairs(&self) -> u64 {
        self.sum(|count| count * (count - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::seed::mix;

    #[test]
    fn small_ones_are_exact() {
        let mut tally = Tally::default();
        [7, 7, 7, 8, 9, 9].into_iter().for_each(|n| tally.add(mix(n)));
        assert_eq!((tally.repeated(), tally.shared(), tally.pairs(), tally.is_exact()), (3, 2, 8, true));
        assert_eq!(Tally::default().repeated(), 0);
    }

    #[test]
    fn large_ones_are_near() {
        let mut tally = Tally::with_most(1000);
        // a third of 30,000 come twice, in another order
        (0..30_000).for_each(|n| tally.add(mix(n)));
        (0..10_000).for_each(|n| tally.add(mix(29_999 - 3 * n)));
        assert!(tally.counts.len() <= 1000 && !tally.is_exact());
        for sum in [tally.repeated(), tally.shared(), tally.pairs() / 2] {
            assert!((8500..=11_500).contains(&sum), "{sum}");
        }
    }
}
