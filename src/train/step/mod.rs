//! How is a batch turned into gradients?

mod cached;
mod micro;
mod plain;

use candle_core::Tensor;

use super::timings::Timings;
use crate::error::{Error, Result};
use crate::flow::{Batch, Loss, Outputs};
use crate::model::SentenceTransformer;
use crate::ops::{self, Precision};
use crate::util::seed::Rng;

/// What steps are taken with.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub model: &'a SentenceTransformer,
    pub loss: &'a dyn Loss,
    /// Of the operands of matrix products.
    pub precision: Precision,
    /// Tokens of a micro-batch where gradients of embeddings are cached; `None` for a batch at once.
    pub cache_tokens: Option<usize>,
}

/// Adds the gradients of the batch's loss to the parameters; returns the loss.
///
/// # Errors
/// When the batch does not fit the model or the loss.
pub fn forward_backward(setting: Setting<'_>, batch: &Batch, rng: Rng, timings: &mut Timings) -> Result<f64> {
    match setting.cache_tokens {
        Some(tokens) if batch.packed.tokens() > tokens => cached::step(setting, batch, tokens, rng, timings),
        _ => plain::step(setting, batch, rng, timings),
    }
}

/// The loss of a batch with these embeddings, `[columns]` of `[rows, dim]`.
fn compute(setting: Setting<'_>, batch: &Batch, embeddings: Vec<Tensor>, rng: Rng) -> Result<Tensor> {
    /// Keeps the loss's numbers apart from the dropouts'.
    const LOSS_STREAM: u64 = 0x1055;
    let outputs = Outputs { embeddings, text_ids: batch.text_ids.clone(), rng: rng.fork(LOSS_STREAM) };
    setting.loss.compute(&outputs, batch.labels.as_ref())
}

/// The number in a scalar.
fn number(setting: Setting<'_>, value: &Tensor) -> Result<f64> {
    ops::number(value).map_err(|_| {
        Error::Internal(format!("the loss {} is not a scalar: {:?}", setting.loss.card().name, value.dims()))
    })
}

#[cfg(test)]
mod tests;
