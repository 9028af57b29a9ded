//! One pass forward and one back over a whole batch.

use candle_core::DType;

use crate::error::{Error, Result};
use crate::flow::{Batch, Loss, Outputs};
use crate::model::SentenceTransformer;
use crate::ops::{self, Context, Precision};
use crate::train::timings::Timings;
use crate::util::seed::Rng;

/// Adds the gradients of the batch's loss to the parameters; returns the loss.
///
/// # Errors
/// When the batch does not fit the model or the loss.
pub fn forward_backward(
    model: &SentenceTransformer,
    loss: &dyn Loss,
    batch: &Batch,
    rng: Rng,
    precision: Precision,
    timings: &mut Timings,
) -> Result<f64> {
    let value = timings.time("forward", || -> Result<_> {
        let context = Context::training(DType::F32, rng)?.with_precision(precision);
        let outputs = Outputs {
            embeddings: model.embed(batch, &context)?,
            text_ids: batch.text_ids.clone(),
            rng: rng.fork(0x1055),
        };
        loss.compute(&outputs, batch.labels.as_ref())
    })?;
    let number = ops::number(&value)
        .map_err(|_| Error::Internal(format!("the loss {} is not a scalar: {:?}", loss.card().name, value.dims())))?;
    if number.is_finite() {
        timings.time("backward", || ops::collect(&value.backward()?, &model.params()))?;
    }
    Ok(number)
}
