//! How large must a difference be to mean something?

use super::Past;

/// Differences below are often those of two seeds, however many rows they are measured on; the least of a WIN, too.
pub const SEEDS: f64 = 0.005;

/// How two runs compare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// By how much the second is better.
    pub gain: f64,
    /// How large a difference has to be to mean something.
    pub noise: f64,
}

impl Gain {
    /// Whether the difference means nothing.
    #[must_use]
    pub fn is_noise(self) -> bool {
        self.gain.abs() < self.noise
    }
}

/// What a difference of two scores has to exceed: their improvements' intervals put together as if the runs had nothing in
/// common (they share the held-out rows, so this is careful), and what seeds make in any case.
#[must_use]
pub fn bound(first: Option<[f64; 2]>, second: Option<[f64; 2]>) -> f64 {
    let half = |interval: Option<[f64; 2]>| interval.map_or(0.0, |[low, high]| (high - low).abs() / 2.0);
    let together = half(first).hypot(half(second));
    if together.is_finite() { together.max(SEEDS) } else { SEEDS }
}

/// How much better `second` is than `first`; `None` where one has no score.
#[must_use]
pub fn gain(first: &Past, second: &Past) -> Option<Gain> {
    // rounded as verdicts are, so that 0.505 against 0.5 is the 0.005 it reads as
    let gain = ((second.merit()? - first.merit()?) * 1e9).round() / 1e9;
    Some(Gain { gain, noise: bound(first.interval, second.interval) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::done;
    use super::*;

    #[test]
    fn intervals_add_up_and_seeds_are_the_least() {
        assert_eq!(bound(None, None), SEEDS);
        assert_eq!(bound(Some([-0.001, 0.001]), None), SEEDS);
        assert!((bound(Some([-0.03, 0.03]), Some([-0.04, 0.04])) - 0.05).abs() < 1e-12);
        assert_eq!(bound(Some([f64::NEG_INFINITY, 0.0]), None), SEEDS);
    }

    #[test]
    fn falling_losses_are_gains() {
        let (first, second) = (done("a", 0.5, 0.6), done("b", 0.5, 0.605));
        let found = gain(&first, &second).unwrap();
        assert!((found.gain - 0.005).abs() < 1e-12 && !found.is_noise());
        let down = |past: &Past| Past { greater_is_better: false, ..past.clone() };
        assert!(gain(&down(&first), &down(&second)).unwrap().gain < 0.0);
        assert_eq!(gain(&first, &Past::default()), None);
    }
}
