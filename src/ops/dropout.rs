//! Dropout as an operation of its own; the fused operations take a [`Dropout`] themselves.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::composed;
use super::context::{Dropout, keeps};
use super::kernel::{self, by_dtype, simd_fn};
use super::real::Real;

/// Zeroes elements with the dropout's probability and scales the others so that the mean stays.
///
/// # Errors
/// When the element type has no kernel.
pub fn dropout(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    if !dropout.active() {
        return Ok(x.clone());
    }
    if composed::wanted(x) {
        return composed::dropout(x, dropout);
    }
    x.contiguous()?.apply_op1(Apply(dropout))
}

struct Apply(Dropout);

const CHUNK: usize = 16_384;

simd_fn! {
    /// `y = mask(first..) * scale * x`
    pub(super) fn masked<T>(x: &[T], y: &mut [T], first: u32, parts: (u32, u32, u32), scale: T) {
        for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
            let kept = if keeps(parts, first.wrapping_add(i as u32)) { scale } else { T::ZERO };
            *y = *x * kept;
        }
    }
}

/// `y = dropout(x)`, on all threads.
pub(super) fn drop_into<T: Real>(dropout: Dropout, x: &[T], y: &mut [T]) {
    let (parts, scale) = (dropout.parts(), T::of(dropout.scale()));
    y.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .enumerate()
        .for_each(|(i, (y, x))| masked(x, y, (i * CHUNK) as u32, parts, scale));
}

impl Apply {
    fn apply<T: Real>(&self, x: &[T]) -> Vec<T> {
        let mut out = kernel::zeros::<T>(x.len());
        drop_into(self.0, x, &mut out);
        out
    }
}

impl CustomOp1 for Apply {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(storage), "dropout", T => {
            let y = self.apply::<T>(kernel::slice(storage, layout)?);
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), "dropout", T => {
            let dx = kernel::read::<T, _>(&dy, |dy| self.apply(dy))?;
            kernel::tensor(dx, x.dims().to_vec()).map(Some)
        })
    }
}
