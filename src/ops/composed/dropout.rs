//! Dropout by masks that are drawn on the host: the same elements as the kernels drop.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use crate::ops::context::{Dropout, keeps};

pub fn dropout(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    if !dropout.active() {
        return Ok(x.clone());
    }
    let parts = dropout.parts();
    let kept = (0..x.elem_count()).into_par_iter().map(|i| u8::from(keeps(parts, i as u32))).collect();
    x.mul(&mask(kept, dropout, x.dims(), x.dtype(), x.device())?)
}

/// What elements are multiplied with: `kept` is 1 for those that stay.
fn mask(kept: Vec<u8>, dropout: Dropout, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    Tensor::from_vec(kept, shape, device)?.to_dtype(dtype)?.affine(dropout.scale(), 0.0)
}

/// The mask of padded attention probabilities, numbered as in packed sequences.
///
/// # Shapes
/// `lengths` `[sequences]`; the result is `[sequences, heads, longest, longest]`.
pub fn attention_mask(
    dropout: Dropout,
    lengths: &[usize],
    heads: usize,
    longest: usize,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let mut tasks = Vec::with_capacity(lengths.len() * heads);
    let mut first = 0u32;
    for length in lengths {
        for _ in 0..heads {
            tasks.push((*length, first));
            first = first.wrapping_add((length * length) as u32);
        }
    }
    let parts = dropout.parts();
    let square = longest * longest;
    let mut kept = vec![0u8; tasks.len() * square];
    kept.par_chunks_mut(square.max(1)).zip(tasks).for_each(|(kept, (length, first))| {
        for (row, kept) in kept.chunks_mut(longest).take(length).enumerate() {
            for (column, kept) in kept.iter_mut().take(length).enumerate() {
                *kept = u8::from(keeps(parts, first.wrapping_add((row * length + column) as u32)));
            }
        }
    });
    mask(kept, dropout, &[lengths.len(), heads, longest, longest], dtype, device)
}
