//! One pass forward and one back over a whole batch.

use candle_core::DType;

use super::{Measured, Setting, back, gradient, layers, views};
use crate::error::Result;
use crate::flow::Batch;
use crate::ops::Context;
use crate::train::timings::Timings;
use crate::util::seed::Rng;

/// As [`super::forward_backward`], the whole batch at once.
pub(super) fn step(setting: Setting<'_>, batch: &Batch, rng: Rng, timings: &mut Timings) -> Result<Measured> {
    let layers = layers(setting, rng);
    let all = timings.time("forward", || {
        let context = Context::training(DType::F32, rng)?.with_precision(setting.precision);
        let all = views::spans(setting, batch).last().map_or(0, |span| span.end);
        views::embed(setting, batch, 0..all, &layers, &context)
    })?;
    let (loss, gradients) = gradient(setting, batch, &layers, &all, rng, timings)?;
    if let Some(gradients) = gradients {
        timings.time("backward", || back(setting, &all, &gradients))?;
    }
    Ok(loss)
}
