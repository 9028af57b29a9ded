//! One pass forward and one back over a whole batch.

use candle_core::DType;

use super::{Setting, compute, number};
use crate::error::Result;
use crate::flow::Batch;
use crate::ops::{self, Context};
use crate::train::timings::Timings;
use crate::util::seed::Rng;

/// As [`super::forward_backward`], the whole batch at once.
pub(super) fn step(setting: Setting<'_>, batch: &Batch, rng: Rng, timings: &mut Timings) -> Result<f64> {
    let value = timings.time("forward", || -> Result<_> {
        let context = Context::training(DType::F32, rng)?.with_precision(setting.precision);
        compute(setting, batch, setting.model.embed(batch, &context)?, rng)
    })?;
    let loss = number(setting, &value)?;
    if loss.is_finite() {
        timings.time("backward", || ops::collect(&value.backward()?, &setting.model.params()))?;
    }
    Ok(loss)
}
