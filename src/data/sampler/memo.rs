//! Which epochs were planned already? Planning tells how many batches an epoch has, so nobody should do it twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::EpochPlan;

/// The number of batches of every epoch that was planned, and the plan of the latest.
#[derive(Default)]
pub(super) struct Memo(Mutex<Known>);

#[derive(Default)]
struct Known {
    counts: HashMap<u64, usize>,
    latest: Option<(u64, Arc<EpochPlan>)>,
}

impl Memo {
    /// How many batches the epoch has, if it was planned.
    pub(super) fn count(&self, epoch: u64) -> Option<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counts.get(&epoch).copied()
    }

    /// The epoch's plan, made by `make` unless it is the latest.
    pub(super) fn epoch(&self, epoch: u64, make: impl FnOnce() -> EpochPlan) -> Arc<EpochPlan> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = known.latest.as_ref().filter(|(e, _)| *e == epoch) {
            return Arc::clone(plan);
        }
        let plan = Arc::new(make());
        known.counts.insert(epoch, plan.len());
        known.latest = Some((epoch, Arc::clone(&plan)));
        plan
    }
}
