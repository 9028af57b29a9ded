//! How does the learning rate change over a run? One file a schedule, each a function of the step.
//!
//! The numbers are those of `transformers.optimization.get_*_schedule*`: before optimizer step `step` (counted from 0)
//! the learning rate is `learning_rate * factor(step, total, warmup)`.

mod constant;
mod cosine;
mod linear;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flow::Card;

/// A learning-rate schedule.
pub trait Schedule: Send + Sync {
    /// Its catalogue entry.
    fn card(&self) -> &'static Card;

    /// What the learning rate is multiplied by before optimizer step `step` of `total`, the first `warmup` of which
    /// climb from 0. In `0.0..=1.0`; defined for `step >= total` too.
    fn factor(&self, step: u64, total: u64, warmup: u64) -> f64;
}

/// Makes the enum of recipe names from one line a schedule.
macro_rules! schedules {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal => $schedule:expr;)+) => {
        /// The schedules by the names Hugging Face's `lr_scheduler_type` gives them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum SchedulerType {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl SchedulerType {
            /// Every schedule.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in recipes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Its implementation.
            #[must_use]
            pub fn schedule(self) -> &'static dyn Schedule {
                match self { $(Self::$variant => &$schedule),+ }
            }
        }
    };
}

schedules! {
    /// Climbs during warmup, then falls in a straight line to 0.
    Linear = "linear" => linear::Linear;
    /// Climbs during warmup, then falls along half a cosine to 0.
    Cosine = "cosine" => cosine::Cosine;
    /// Stays; warmup is ignored.
    Constant = "constant" => constant::Constant;
    /// Climbs during warmup, then stays.
    ConstantWithWarmup = "constant_with_warmup" => constant::ConstantWithWarmup;
}

impl SchedulerType {
    /// What the learning rate is multiplied by; see [`Schedule::factor`].
    #[must_use]
    pub fn factor(self, step: u64, total: u64, warmup: u64) -> f64 {
        self.schedule().factor(step, total, warmup)
    }
}

impl std::fmt::Display for SchedulerType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The climb all schedules with a warmup share; `None` once it is over.
fn climb(step: u64, warmup: u64) -> Option<f64> {
    (step < warmup).then(|| step as f64 / warmup.max(1) as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_cards_and_recipes_agree() {
        for kind in SchedulerType::ALL {
            assert_eq!(kind.schedule().card().name, kind.name());
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn factors_stay_in_range_for_any_step() {
        for kind in SchedulerType::ALL {
            for (total, warmup) in [(0, 0), (1, 0), (1, 1), (10, 10), (10, 20), (7, 3)] {
                for step in 0..25 {
                    let factor = kind.factor(step, total, warmup);
                    assert!((0.0..=1.0).contains(&factor), "{kind} {step}/{total} warmup {warmup}: {factor}");
                }
            }
        }
    }

    /// By hand from `transformers.optimization`: 10 steps, 4 of them warmup.
    #[test]
    fn shapes_are_transformers() {
        let at = |kind: SchedulerType, steps: &[u64]| steps.iter().map(|s| kind.factor(*s, 10, 4)).collect::<Vec<_>>();
        assert_eq!(at(SchedulerType::Linear, &[0, 1, 4, 7, 10, 12]), [0.0, 0.25, 1.0, 0.5, 0.0, 0.0]);
        assert_eq!(at(SchedulerType::Constant, &[0, 9]), [1.0, 1.0]);
        assert_eq!(at(SchedulerType::ConstantWithWarmup, &[0, 2, 4, 9]), [0.0, 0.5, 1.0, 1.0]);
        let cosine = at(SchedulerType::Cosine, &[0, 3, 4, 6, 7, 10]);
        for (value, expected) in cosine.iter().zip([0.0, 0.75, 1.0, 0.75, 0.5, 0.0]) {
            assert!((value - expected).abs() < 1e-12, "{cosine:?}");
        }
    }
}
