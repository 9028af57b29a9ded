//! The global norm of all gradients.

use std::sync::Arc;

use candle_core::{D, Tensor, WithDType};
use rayon::prelude::*;

use crate::error::Result;
use crate::ops::Param;
use crate::ops::param::Gradient;

/// `sqrt(Σ g²)` over all gradients, summed in f64 in an order that does not depend on the threads.
///
/// # Errors
/// When a gradient is not f32.
pub fn gradient_norm(params: &[Arc<Param>]) -> Result<f64> {
    let mut total = 0.0;
    let mut on_device = Vec::new();
    for param in params {
        total += match &*param.gradient() {
            Gradient::None => 0.0,
            Gradient::Dense(data) => squares(f32::cpu_storage_as_slice(data)?),
            Gradient::Rows(rows) => squares(f32::cpu_storage_as_slice(&rows.data)?),
            Gradient::Tensor(gradient) => {
                on_device.push(square_sum(gradient)?);
                0.0
            }
        };
    }
    if !on_device.is_empty() {
        // one read for all parameters
        let sums = Tensor::stack(&on_device, 0)?.to_vec1::<f32>()?;
        total += sums.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(total.sqrt())
}

/// `Σ g²` where the gradient is: first by rows, so that a long sum in f32 stays exact enough.
fn square_sum(gradient: &Tensor) -> Result<Tensor> {
    Ok(gradient.sqr()?.sum(D::Minus1)?.sum_all()?)
}

fn squares(values: &[f32]) -> f64 {
    let parts: Vec<f64> = values
        .par_chunks(8192)
        .map(|chunk| {
            let mut lanes = [0.0f64; 8];
            for group in chunk.chunks(8) {
                for (lane, value) in lanes.iter_mut().zip(group) {
                    *lane += f64::from(*value) * f64::from(*value);
                }
            }
            lanes.iter().sum()
        })
        .collect();
    parts.iter().sum()
}

/// What gradients of the given norm are multiplied with, as `torch.nn.utils.clip_grad_norm_`; 1 when `max_norm` is 0.
#[must_use]
pub fn clip_coefficient(norm: f64, max_norm: f64) -> f64 {
    if max_norm <= 0.0 { 1.0 } else { (max_norm / (norm + 1e-6)).min(1.0) }
}
