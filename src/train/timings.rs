//! Where the wall time goes.

use std::collections::BTreeMap;
use std::time::Instant;

/// Seconds by phase.
#[derive(Debug, Clone, Default)]
pub struct Timings(BTreeMap<String, f64>);

impl Timings {
    /// Runs `f` and counts its time to `phase`.
    pub fn time<R>(&mut self, phase: &str, f: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = f();
        self.add(phase, start.elapsed().as_secs_f64());
        result
    }

    /// Counts `seconds` to `phase`.
    pub fn add(&mut self, phase: &str, seconds: f64) {
        *self.0.entry(phase.to_owned()).or_default() += seconds;
    }

    /// The seconds of `phase`.
    pub fn get(&self, phase: &str) -> f64 {
        self.0.get(phase).copied().unwrap_or(0.0)
    }

    /// All phases.
    pub fn all(&self) -> &BTreeMap<String, f64> {
        &self.0
    }

    /// `backward 61 %, forward 31 %, data 3 %`: shares of `seconds`, largest first; what is below half a percent is left
    /// out.
    pub fn shares(&self, seconds: f64) -> String {
        let mut shares: Vec<(&str, f64)> =
            self.0.iter().map(|(phase, spent)| (phase.as_str(), 100.0 * spent / seconds.max(1e-9))).collect();
        shares.retain(|(_, share)| *share >= 0.5);
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares.iter().map(|(phase, share)| format!("{phase} {share:.0} %")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_whole() {
        let mut timings = Timings::default();
        timings.add("forward", 2.0);
        timings.add("backward", 5.0);
        timings.add("backward", 1.0);
        timings.add("data", 0.01);
        assert_eq!(timings.shares(10.0), "backward 60 %, forward 20 %");
        assert_eq!(Timings::default().shares(0.0), "");
    }
}
