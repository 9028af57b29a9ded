//! An activation as the gate of other values.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::activation::{self, Activation};
use super::composed;
use super::kernel::{self, by_dtype, simd_fn};
use super::real::Real;

/// `activation(a) * b`, `a` being the first half of each row of `x` and `b` the second: GeGLU and its like (Shazeer,
/// 2020, <https://arxiv.org/abs/2002.05202>).
///
/// # Shapes
/// `x` `[..., 2 * width]`; the result is `[..., width]`.
///
/// # Errors
/// When rows have no two halves, or the element type has no kernel.
pub fn gated(x: &Tensor, activation: Activation) -> Result<Tensor> {
    apply(x, Gated { activation, last: false })
}

/// As [`gated`], where `a` is the second half of each row and `b` the first.
///
/// # Errors
/// As there.
pub fn gated_last(x: &Tensor, activation: Activation) -> Result<Tensor> {
    apply(x, Gated { activation, last: true })
}

fn apply(x: &Tensor, gated: Gated) -> Result<Tensor> {
    let all = x.dim(D::Minus1)?;
    if all == 0 || !all.is_multiple_of(2) {
        bail!("gated: rows of {:?} have no two halves", x.dims());
    }
    if composed::wanted(x) {
        let half = |last: bool| x.narrow(D::Minus1, usize::from(last) * all / 2, all / 2)?.contiguous();
        return composed::activation(&half(gated.last)?, gated.activation)?.mul(&half(!gated.last)?);
    }
    x.contiguous()?.apply_op1(gated)
}

#[derive(Clone, Copy)]
struct Gated {
    activation: Activation,
    /// Whether the gate is the second half.
    last: bool,
}

simd_fn! {
    fn multiply<T>(y: &mut [T], by: &[T]) {
        for (y, by) in y.iter_mut().zip(by) {
            *y *= *by;
        }
    }
}

impl Gated {
    /// The gate's half, then the other.
    fn halves<H>(self, (first, second): (H, H)) -> (H, H) {
        if self.last { (second, first) } else { (first, second) }
    }

    fn forward<T: Real>(&self, x: &[T], width: usize) -> Vec<T> {
        let rows = kernel::rows_per_task(2 * width);
        let mut out = kernel::zeros::<T>(x.len() / 2);
        out.par_chunks_mut(rows * width).zip(x.par_chunks(rows * 2 * width)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(2 * width)) {
                let (a, b) = self.halves(x.split_at(width));
                activation::forward(self.activation, a, y);
                multiply(y, b);
            }
        });
        out
    }

    fn backward<T: Real>(&self, x: &[T], dy: &[T], width: usize) -> Vec<T> {
        let rows = kernel::rows_per_task(2 * width);
        let mut out = kernel::zeros::<T>(x.len());
        let tasks = out.par_chunks_mut(rows * 2 * width).zip(x.par_chunks(rows * 2 * width));
        tasks.zip(dy.par_chunks(rows * width)).for_each(|((dx, x), dy)| {
            let rows = dx.chunks_exact_mut(2 * width).zip(x.chunks_exact(2 * width)).zip(dy.chunks_exact(width));
            for ((dx, x), dy) in rows {
                let ((a, b), (da, db)) = (self.halves(x.split_at(width)), self.halves(dx.split_at_mut(width)));
                activation::forward(self.activation, a, db);
                multiply(db, dy);
                da.copy_from_slice(dy);
                multiply(da, b);
                activation::backward_in_place(self.activation, a, da);
            }
        });
        out
    }
}

impl CustomOp1 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        let width = dims.last().copied().unwrap_or(0) / 2;
        if let Some(last) = dims.last_mut() {
            *last = width;
        }
        by_dtype!(kernel::dtype(storage), "gated", T => {
            let y = self.forward::<T>(kernel::slice(storage, layout)?, width);
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), Shape::from(dims)))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let width = dy.dim(D::Minus1)?;
        by_dtype!(x.dtype(), "gated", T => {
            let (x_host, dy_host) = (kernel::host(x)?, kernel::host(&dy)?);
            let dx = self.backward::<T>(x_host.values()?, dy_host.values()?, width);
            kernel::tensor(dx, x.dims().to_vec()).map(Some)
        })
    }
}
