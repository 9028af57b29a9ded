//! Which evaluation was best, and when to give up.

use serde::{Deserialize, Serialize};

use crate::eval::improves;
use crate::flow::Metrics;
use crate::recipe::plan::EarlyStoppingPlan;

/// The best evaluation so far and how long ago it was.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tracker {
    /// The best so far.
    pub best: Option<Best>,
    /// Evaluations since the metric last improved by the threshold.
    pub waited: u64,
    /// What the metric has to beat by the threshold; differs from the best by small improvements.
    reference: Option<f64>,
}

/// An evaluation worth keeping.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    pub value: f64,
    pub metrics: Metrics,
}

impl Tracker {
    /// Takes note of an evaluation; tells whether it is the best so far.
    pub fn observe(
        &mut self,
        step: u64,
        value: f64,
        metrics: &Metrics,
        greater_is_better: bool,
        stopping: Option<EarlyStoppingPlan>,
    ) -> bool {
        let sign = if greater_is_better { 1.0 } else { -1.0 };
        let better = improves(sign * value, self.best.as_ref().map(|b| sign * b.value));
        let threshold = stopping.map_or(0.0, |s| s.threshold);
        // As transformers' EarlyStoppingCallback: only an improvement by more than the threshold resets the count.
        let enough = match self.reference {
            None => !value.is_nan(),
            Some(reference) => sign * value > sign * reference && (value - reference).abs() > threshold,
        };
        if enough {
            self.waited = 0;
        } else {
            self.waited += 1;
        }
        if better {
            self.reference = Some(value);
            self.best = Some(Best { step, value, metrics: metrics.clone() });
        }
        better
    }

    /// Whether the patience is used up.
    pub fn exhausted(&self, stopping: Option<EarlyStoppingPlan>) -> bool {
        stopping.is_some_and(|s| self.waited >= s.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOP: Option<EarlyStoppingPlan> = Some(EarlyStoppingPlan { patience: 2, threshold: 0.0 });

    #[test]
    fn the_best_is_kept_and_patience_counts() {
        let mut tracker = Tracker::default();
        let metrics = Metrics::default();
        let mut see = |step, value| {
            let better = tracker.observe(step, value, &metrics, true, STOP);
            (better, tracker.exhausted(STOP))
        };
        assert_eq!(see(1, 0.5), (true, false));
        assert_eq!(see(2, 0.4), (false, false));
        assert_eq!(see(3, 0.6), (true, false));
        assert_eq!(see(4, f64::NAN), (false, false));
        assert_eq!(see(5, 0.6), (false, true));
        assert_eq!(tracker.best.as_ref().map(|b| b.step), Some(3));
    }

    #[test]
    fn less_can_be_better() {
        let mut tracker = Tracker::default();
        let metrics = Metrics::default();
        assert!(tracker.observe(1, 2.0, &metrics, false, None));
        assert!(tracker.observe(2, 1.0, &metrics, false, None));
        assert!(!tracker.observe(3, 1.5, &metrics, false, None));
        assert!(!tracker.exhausted(None));
    }

    #[test]
    fn small_improvements_do_not_reset_the_count() {
        let stop = Some(EarlyStoppingPlan { patience: 2, threshold: 0.1 });
        let mut tracker = Tracker::default();
        let metrics = Metrics::default();
        tracker.observe(1, 0.5, &metrics, true, stop);
        assert!(tracker.observe(2, 0.55, &metrics, true, stop), "still the best");
        assert!(tracker.observe(3, 0.58, &metrics, true, stop));
        assert!(tracker.exhausted(stop));
    }
}
