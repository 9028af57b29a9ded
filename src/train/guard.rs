//! What must hold for training to be worth going on.

use std::sync::Arc;

use candle_core::WithDType;

use super::Coverage;
use super::sets::DataSet;
use crate::error::{Error, Result};
use crate::flow::Batch;
use crate::ops::Param;
use crate::ops::param::Gradient;

/// Looks at every trainable parameter's gradient after a backward pass.
///
/// # Errors
/// When a gradient is not f32.
pub fn coverage(params: &[Arc<Param>]) -> Result<Coverage> {
    let mut coverage = Coverage::default();
    let waiting = waiting(params)?;
    for param in params.iter().filter(|p| p.trainable()) {
        coverage.trainable += 1;
        let gradient = param.gradient();
        let copy;
        let values = match &*gradient {
            Gradient::None => &[][..],
            Gradient::Dense(data) => f32::cpu_storage_as_slice(data)?,
            Gradient::Rows(rows) => f32::cpu_storage_as_slice(&rows.data)?,
            Gradient::Tensor(gradient) => {
                copy = gradient.flatten_all()?.to_vec1::<f32>()?;
                copy.as_slice()
            }
        };
        let waits = !values.is_empty() && waiting.iter().any(|a| Arc::ptr_eq(a, param));
        // one number that is added to every score changes no difference of scores: its gradients cancel
        let cancels = values.len() == 1;
        if values.iter().any(|v| !v.is_finite()) {
            coverage.not_finite.push(param.name().to_owned());
        } else if values.iter().all(|v| *v == 0.0) && !waits && !cancels {
            coverage.without_gradient.push(param.name().to_owned());
        } else {
            coverage.with_gradient += 1;
        }
    }
    Ok(coverage)
}

/// The first matrices of adapters whose second are zeros, as they begin: they get zeros until those have moved.
fn waiting(params: &[Arc<Param>]) -> Result<Vec<Arc<Param>>> {
    let mut waiting = Vec::new();
    for adapter in params.iter().filter_map(|param| param.adapter()) {
        if adapter.b.value().abs()?.sum_all()?.to_scalar::<f32>()? == 0.0 {
            waiting.push(Arc::clone(&adapter.a));
        }
    }
    Ok(waiting)
}

/// The names, all of them: a terminal cuts long lines, the log does not.
fn list(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// The first step's check: a gradient that is not finite is an error, tensors without one are a warning.
///
/// # Errors
/// When a gradient is NaN or infinite.
pub fn first_step(coverage: &Coverage, loss: f64) -> Result<Option<String>> {
    if !coverage.not_finite.is_empty() {
        return Err(Error::train(format!(
            "the first batch (loss {loss}) gives a gradient that is not finite in {}",
            list(&coverage.not_finite)
        ))
        .with_hint("the base model's weights may hold NaN; try another base or look at the first rows of the data"));
    }
    if coverage.with_gradient == 0 {
        return Ok(Some(format!(
            "no tensor gets a gradient from the first batch (loss {loss}): the loss may already be at its least, \
             or its labels may be all equal"
        )));
    }
    if !coverage.without_gradient.is_empty() {
        return Ok(Some(format!(
            "{} of {} trainable tensors get no gradient from the first batch: {}",
            coverage.without_gradient.len(),
            coverage.trainable,
            list(&coverage.without_gradient)
        )));
    }
    Ok(None)
}

/// Stops at a loss or gradient norm that is no number, naming the rows.
///
/// # Errors
/// When `loss` or `norm` is NaN or infinite.
pub fn finite(step: u64, loss: f64, norm: f64, batches: &[Batch], sets: &[DataSet]) -> Result<()> {
    if loss.is_finite() && norm.is_finite() {
        return Ok(());
    }
    let places = batches.iter().flat_map(|batch| batch.row_ids.iter().map(|row| (batch.dataset, *row as u32)));
    let rows: Vec<String> = places.take(4).filter_map(|(set, row)| Some(sets.get(set)?.store.locate(row))).collect();
    let total: usize = batches.iter().map(|b| b.rows).sum();
    Err(Error::train(format!(
        "step {step}: the loss is {loss} and the gradient norm {norm}; the batch has {total} rows, the first are {}",
        rows.join(", ")
    ))
    .with_hint(
        "checkpoints from before are untouched; lower `args.learning_rate`, check those rows, and keep `args.max_grad_norm` above 0",
    ))
}
