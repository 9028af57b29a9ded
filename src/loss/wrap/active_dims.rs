//! A regulariser's weight that follows the number of active dimensions it brings about.
//!
//! The weight is multiplied after each step: up where embeddings are going to have more active dimensions than are aimed
//! at, down where they will have fewer. `error = ln(active / target) + 20 * trend`, held to ±1, where `trend` is the change
//! of `ln(active)` in a step, both running means: dimensions that have begun to die go on to, so the weight has to yield
//! before the target is reached. The weight's logarithm is the sum of all errors, times a rate, plus half the present
//! one. The rate is such that a run could move the weight by a factor of e^30 if the error never left its bound.

use serde::{Deserialize, Serialize};

/// What the weight's logarithm moves in a whole run, at most.
const REACH: f64 = 30.0;
/// The rate's bounds: neither still nor wild.
const RATES: (f64, f64) = (1e-4, 0.2);
/// The share of the present error.
const PRESENT: f64 = 0.5;
/// Steps that the trend is thought to go on.
const AHEAD: f64 = 20.0;
/// Part of a batch's measurement in the running mean.
const FRESH: f64 = 0.3;
/// Part of a step's change in the trend.
const TURN: f64 = 0.2;
/// The weight's logarithm stays this near to where it began.
const FARTHEST: f64 = 10.0;

/// Where a weight is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Follower {
    /// The sum of errors, times the rate: the slow part of the weight's logarithm.
    #[serde(with = "bits")]
    slow: f64,
    /// The running mean of the logarithm of active dimensions.
    #[serde(with = "bits")]
    active: f64,
    /// Its change in a step.
    #[serde(with = "bits")]
    trend: f64,
    /// Whether there was a step.
    began: bool,
    /// Measured since the last step: their sum, and how many.
    #[serde(skip)]
    seen: (f64, u32),
    /// The present error.
    #[serde(with = "bits")]
    error: f64,
}

/// Numbers by their bits: one that is read back from its digits can be the next one.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

impl Follower {
    /// What the weight set in the recipe is multiplied with.
    pub fn factor(&self) -> f64 {
        (self.slow + PRESENT * self.error).clamp(-FARTHEST, FARTHEST).exp()
    }

    /// Active dimensions of a batch's texts, on average.
    pub fn see(&mut self, active: f64) {
        self.seen.0 += active;
        self.seen.1 += 1;
    }

    /// Moves the weight by what was seen since the last step.
    pub fn step(&mut self, target: usize, total: u64) {
        let (sum, count) = std::mem::take(&mut self.seen);
        if count == 0 {
            return;
        }
        // one more of each, so that empty embeddings give a number
        let now = (sum / f64::from(count) + 1.0).ln();
        let before = if self.began { self.active } else { now };
        self.active = before + FRESH * (now - before);
        self.trend += TURN * (self.active - before - self.trend);
        self.began = true;
        self.error = (self.active + AHEAD * self.trend - (target as f64 + 1.0).ln()).clamp(-1.0, 1.0);
        let rate = (REACH / total.max(1) as f64).clamp(RATES.0, RATES.1);
        self.slow = (self.slow + rate * self.error).clamp(-FARTHEST, FARTHEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Embeddings that answer to a weight with some delay, as trained ones do.
    fn end(start: f64, target: usize, steps: u64) -> (f64, Follower) {
        let (mut active, mut follower) = (start, Follower::default());
        for _ in 0..steps {
            follower.see(active);
            follower.step(target, steps);
            let settled = 3000.0 / (1.0 + 400.0 * (1e-2 * follower.factor()));
            active += 0.1 * (settled - active);
        }
        (active, follower)
    }

    #[test]
    fn it_ends_at_the_target_from_either_side() {
        for (start, target) in [(3000.0, 128), (20.0, 128), (3000.0, 40), (600.0, 1000)] {
            for steps in [150, 1000] {
                let (active, _) = end(start, target, steps);
                assert!((active / target as f64 - 1.0).abs() < 0.1, "{start} to {target} in {steps}: {active}");
            }
        }
    }

    #[test]
    fn nothing_seen_changes_nothing() {
        let (_, mut follower) = end(500.0, 100, 30);
        let before = follower;
        follower.step(100, 30);
        assert_eq!(follower, before);
        assert_eq!(Follower::default().factor(), 1.0);
        let text = serde_json::to_string(&before).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Follower>(&text).ok(), Some(before));
    }
}
