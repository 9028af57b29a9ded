//! How is a batch turned into gradients?

mod cached;
mod micro;
mod plain;

use candle_core::{Tensor, Var};

use super::sets::Guide;
use super::timings::Timings;
use crate::error::{Error, Result};
use crate::flow::{Batch, Outputs};
use crate::loss::Loss;
use crate::model::SentenceTransformer;
use crate::ops::{self, Precision};
use crate::util::seed::Rng;

/// What steps are taken with.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub model: &'a SentenceTransformer,
    pub loss: &'a dyn Loss,
    /// For losses that want a guide's embeddings.
    pub guide: Option<&'a Guide>,
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

/// The loss of a batch with these embeddings, `[sequences, dim]`, and its gradient by them; no gradient where the loss
/// is not finite or does not depend on them.
///
/// The loss computes on columns that are leaves of a graph of their own: no gradient is padded to the width of all.
fn gradient(
    setting: Setting<'_>,
    batch: &Batch,
    all: &Tensor,
    rng: Rng,
    timings: &mut Timings,
) -> Result<(f64, Option<Tensor>)> {
    /// Keeps the loss's numbers apart from the dropouts'.
    const LOSS_STREAM: u64 = 0x1055;
    let (columns, value) = timings.time("forward", || -> Result<_> {
        let column = |i: usize| Var::from_tensor(&all.detach().narrow(0, i * batch.rows, batch.rows)?);
        let columns: Vec<Var> = (0..batch.columns).map(column).collect::<candle_core::Result<_>>()?;
        let outputs = Outputs {
            embeddings: columns.iter().map(|column| column.as_tensor().clone()).collect(),
            text_ids: batch.text_ids.clone(),
            guide: setting.guide.map(|guide| guide.embed(batch)).transpose()?.unwrap_or_default(),
            rng: rng.fork(LOSS_STREAM),
        };
        Ok((columns, setting.loss.compute(&outputs, batch.labels.as_ref())?))
    })?;
    let loss = number(setting, &value)?;
    if !loss.is_finite() {
        return Ok((loss, None));
    }
    let gradient = timings.time("backward", || -> Result<_> {
        let mut gradients = value.backward()?;
        ops::collect(&gradients, &setting.loss.params())?;
        let parts: Vec<Option<Tensor>> = columns.iter().map(|column| gradients.remove(column)).collect();
        if parts.iter().all(Option::is_none) {
            return Ok(None);
        }
        let parts = parts.into_iter().zip(&columns).map(|(part, column)| part.map_or_else(|| column.zeros_like(), Ok));
        Ok(Some(Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)?.detach()))
    })?;
    Ok((loss, gradient))
}

/// The number in a scalar.
fn number(setting: Setting<'_>, value: &Tensor) -> Result<f64> {
    ops::number(value).map_err(|_| {
        Error::Internal(format!("the loss {} is not a scalar: {:?}", setting.loss.card().name, value.dims()))
    })
}

#[cfg(test)]
mod tests;
