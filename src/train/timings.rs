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
}
