//! How is a batch turned into gradients?

mod cached;
mod micro;
mod plain;
pub mod views;

use candle_core::{DType, Tensor, Var};

use super::sets::Guide;
use super::timings::Timings;
use crate::error::{Error, Result};
use crate::flow::Batch;
use crate::loss::{Loss, Parts};
use crate::model::SentenceTransformer;
use crate::model::backbone::Decoder;
use crate::ops::{self, Context, Precision};
use crate::util::seed::Rng;

/// What steps are taken with.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub model: &'a SentenceTransformer,
    /// The second model of losses that train one.
    pub twin: Option<&'a SentenceTransformer>,
    /// The decoder of losses that have one.
    pub decoder: Option<&'a dyn Decoder>,
    pub loss: &'a dyn Loss,
    /// For losses that want a guide's embeddings.
    pub guide: Option<&'a Guide>,
    /// Of the operands of matrix products.
    pub precision: Precision,
    /// Tokens of a micro-batch where gradients of embeddings are cached; `None` for a batch at once.
    pub cache_tokens: Option<usize>,
    /// The optimizer step, counted from 0, and how many there will be; `None` in evaluations.
    pub step: Option<(u64, u64)>,
}

/// The loss of a batch, and what the loss tells of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    pub loss: f64,
    /// Terms of the loss and what they depend on, by the reference's keys.
    pub told: Vec<(&'static str, f64)>,
}

/// Adds the gradients of the batch's loss to the parameters; returns the loss.
///
/// # Errors
/// When the batch does not fit the model or the loss.
pub fn forward_backward(setting: Setting<'_>, batch: &Batch, rng: Rng, timings: &mut Timings) -> Result<Measured> {
    match setting.cache_tokens {
        Some(tokens) if views::offsets(setting, batch).last().is_some_and(|all| *all as usize > tokens) => {
            cached::step(setting, batch, tokens, rng, timings)
        }
        _ => plain::step(setting, batch, rng, timings),
    }
}

/// The layers whose embeddings the loss wants besides those of all.
fn layers(setting: Setting<'_>, rng: Rng) -> Vec<usize> {
    /// Keeps the draw apart from the dropouts' and the loss's own.
    const LAYER_STREAM: u64 = 0x1A7E;
    setting.loss.layers(setting.model.layers(), rng.fork(LAYER_STREAM))
}

/// The loss of a batch with these embeddings, `[layers + 1]` of `[sequences, dim]`, and its gradients by them; none
/// where the loss is not finite or does not depend on them.
///
/// The loss computes on columns that are leaves of a graph of their own: no gradient is padded to the width of all.
fn gradient(
    setting: Setting<'_>,
    batch: &Batch,
    layers: &[usize],
    all: &[Tensor],
    rng: Rng,
    timings: &mut Timings,
) -> Result<(Measured, Option<Vec<Tensor>>)> {
    /// Keeps the loss's numbers apart from the dropouts'.
    const LOSS_STREAM: u64 = 0x1055;
    /// Keeps the decoder's dropouts apart from the model's.
    const DECODER_STREAM: u64 = 0xDEC0_DE00;
    let (leaves, Parts { loss: value, told }) = timings.time("forward", || -> Result<_> {
        let spans = views::spans(setting, batch);
        let vectors = setting.model.vector_offsets(batch);
        let columns = |embeddings: &Tensor| -> Result<Vec<Var>> {
            let embeddings = embeddings.detach();
            let column = |span: &std::ops::Range<usize>| {
                let rows = views::rows(vectors.as_deref(), span);
                Var::from_tensor(&embeddings.narrow(0, rows.start, rows.len())?)
            };
            Ok(spans.iter().map(column).collect::<candle_core::Result<_>>()?)
        };
        let leaves: Vec<Vec<Var>> = all.iter().map(columns).collect::<Result<_>>()?;
        let tensors = |columns: &Vec<Var>| columns.iter().map(|column| column.as_tensor().clone()).collect();
        let embeddings = leaves.last().map(tensors).unwrap_or_default();
        let layers = layers.iter().copied().zip(leaves.iter().map(tensors)).collect();
        let context = Context::training(DType::F32, rng.fork(DECODER_STREAM))?.with_precision(setting.precision);
        let outputs = views::outputs(setting, batch, embeddings, layers, rng.fork(LOSS_STREAM), &context)?;
        let parts = setting.loss.parts(&outputs, batch.labels.as_ref())?;
        Ok((leaves, parts))
    })?;
    let loss = number(setting, &value)?;
    let measured = Measured { loss, told };
    if !loss.is_finite() {
        return Ok((measured, None));
    }
    let gradients = timings.time("backward", || -> Result<_> {
        let mut gradients = value.backward()?;
        ops::collect(&gradients, &setting.loss.params())?;
        if setting.loss.autoencodes() {
            ops::collect(&gradients, &setting.model.params())?;
        }
        if let Some(decoder) = setting.decoder {
            ops::collect(&gradients, &[decoder.own_params(), setting.model.params()].concat())?;
        }
        if leaves.iter().flatten().all(|column| gradients.get(column).is_none()) {
            return Ok(None);
        }
        let mut whole = |columns: &Vec<Var>| -> Result<Tensor> {
            let part = |column: &Var| gradients.remove(column).map_or_else(|| column.zeros_like(), Ok);
            let parts = columns.iter().map(part).collect::<candle_core::Result<Vec<_>>>()?;
            Ok(Tensor::cat(&parts, 0)?.detach())
        };
        Ok(Some(leaves.iter().map(&mut whole).collect::<Result<Vec<_>>>()?))
    })?;
    Ok((measured, gradients))
}

/// Takes gradients of embeddings back through the passes that made them.
fn back(setting: Setting<'_>, embeddings: &[Tensor], gradients: &[Tensor]) -> Result<()> {
    let mut sum: Option<Tensor> = None;
    for (embedding, gradient) in embeddings.iter().zip(gradients) {
        let scalar = ops::with_gradient(embedding, gradient)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&scalar)?,
            None => scalar,
        });
    }
    match sum {
        Some(sum) => {
            let gradients = sum.backward()?;
            ops::collect(&gradients, &setting.model.params())?;
            Ok(setting.twin.map_or(Ok(()), |twin| ops::collect(&gradients, &twin.params()))?)
        }
        None => Ok(()),
    }
}

/// The number in a scalar.
fn number(setting: Setting<'_>, value: &Tensor) -> Result<f64> {
    ops::number(value).map_err(|_| {
        Error::Internal(format!("the loss {} is not a scalar: {:?}", setting.loss.card().name, value.dims()))
    })
}

#[cfg(test)]
mod tests;
