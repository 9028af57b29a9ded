//! One pass forward and one back over a whole batch.

use candle_core::DType;

use super::{Setting, gradient};
use crate::error::Result;
use crate::flow::Batch;
use crate::ops::{self, Context};
use crate::train::timings::Timings;
use crate::util::seed::Rng;

/// As [`super::forward_backward`], the whole batch at once.
pub(super) fn step(setting: Setting<'_>, batch: &Batch, rng: Rng, timings: &mut Timings) -> Result<f64> {
    let all = timings.time("forward", || {
        let context = Context::training(DType::F32, rng)?.with_precision(setting.precision);
        setting.model.embed_part(batch, 0..batch.packed.len(), &context)
    })?;
    let (loss, gradient) = gradient(setting, batch, &all, rng, timings)?;
    if let Some(gradient) = gradient {
        timings.time("backward", || {
            ops::collect(&ops::with_gradient(&all, &gradient)?.backward()?, &setting.model.params())
        })?;
    }
    Ok(loss)
}
