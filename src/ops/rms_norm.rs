//! Division by the root of the mean square (Zhang and Sennrich, 2019, <https://arxiv.org/abs/1910.07467>).

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::composed;
use super::kernel::{self, by_dtype, simd_fn};
use super::param::Param;
use super::real::{Real, sum_by};

/// `x / sqrt(mean(x²) + eps) * (weight + shift)` over each run of `weight`'s length in the last dimension.
///
/// `shift` is 0, or 1 where weights are kept as differences from 1 (Gemma). Where the last dimension holds several heads
/// of the weight's length, each is normalised by itself.
///
/// # Shapes
/// `x` `[..., n * width]`, `weight` `[width]`; the result is like `x`.
///
/// # Errors
/// When the shapes or element types do not fit.
pub fn rms_norm(x: &Tensor, weight: &Arc<Param>, shift: f64, eps: f64) -> Result<Tensor> {
    let (all, width) = (x.dim(D::Minus1)?, weight.elements());
    if weight.dims().len() != 1 || width == 0 || !all.is_multiple_of(width) {
        bail!("rms norm: input is {:?}, `{}` is {:?}", x.dims(), weight.name(), weight.dims());
    }
    kernel::check_dtype("rms norm", x.dtype(), weight.dtype())?;
    if weight.composed() {
        return composed::rms_norm(x, weight, shift, eps);
    }
    x.contiguous()?.apply_op1(RmsNorm { weight: Arc::clone(weight), shift, eps })
}

struct RmsNorm {
    weight: Arc<Param>,
    shift: f64,
    eps: f64,
}

simd_fn! {
    /// The reciprocal root of the mean square of a row.
    fn scale_of<T>(row: &[T], eps: T) -> T {
        let n = T::of(row.len() as f64);
        T::ONE / (sum_by(row.len(), |i| row[i] * row[i]) / n + eps).sqrt()
    }
}

simd_fn! {
    fn forward_row<T>(x: &[T], scale: T, weight: &[T], shift: T, y: &mut [T]) {
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = *x * scale * (*w + shift);
        }
    }
}

simd_fn! {
    /// With `n = x * scale`: `dx = scale * (dy (w + shift) - n mean(dy (w + shift) n))`, and `dw += dy n`.
    fn backward_row<T>(x: &[T], scale: T, weight: &[T], shift: T, dy: &[T], dx: &mut [T], dw: &mut [T]) {
        let count = T::of(x.len() as f64);
        let along = sum_by(x.len(), |i| dy[i] * (weight[i] + shift) * x[i]) * scale / count;
        for ((((dx, x), w), dy), dw) in dx.iter_mut().zip(x).zip(weight).zip(dy).zip(dw) {
            let normal = *x * scale;
            *dx = scale * (*dy * (*w + shift) - normal * along);
            *dw += *dy * normal;
        }
    }
}

impl RmsNorm {
    fn forward<T: Real>(&self, x: &[T]) -> Result<Vec<T>> {
        let width = self.weight.elements();
        let rows = kernel::rows_per_task(width);
        let (shift, eps) = (T::of(self.shift), T::of(self.eps));
        let mut y = kernel::zeros::<T>(x.len());
        self.weight.read::<T, _>(|weight| {
            y.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).for_each(|(y, x)| {
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    forward_row(x, scale_of(x, eps), weight, shift, y);
                }
            });
        })?;
        Ok(y)
    }

    fn backward<T: Real>(&self, x: &[T], dy: &[T]) -> Result<Vec<T>> {
        // a fixed number of rows a task, whatever the threads: the partial sums add up in one order
        const ROWS: usize = 64;
        let width = self.weight.elements();
        let (shift, eps) = (T::of(self.shift), T::of(self.eps));
        let mut dx = kernel::zeros::<T>(x.len());
        let parts: Vec<Vec<T>> = self.weight.read::<T, _>(|weight| {
            let tasks =
                dx.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).zip(dy.par_chunks(ROWS * width));
            tasks
                .map(|((dx, x), dy)| {
                    let mut dw = kernel::zeros::<T>(width);
                    let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width));
                    for ((dx, x), dy) in rows {
                        backward_row(x, scale_of(x, eps), weight, shift, dy, dx, &mut dw);
                    }
                    dw
                })
                .collect()
        })?;
        self.weight.accumulate::<T>(|add, dw| kernel::add_parts(dw, add, &parts))?;
        Ok(dx)
    }
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(storage), "rms-norm", T => {
            let y = self.forward::<T>(kernel::slice(storage, layout)?)?;
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), "rms-norm", T => {
            let (x_host, dy_host) = (kernel::host(x)?, kernel::host(&dy)?);
            let dx = self.backward::<T>(x_host.values()?, dy_host.values()?)?;
            kernel::tensor(dx, x.dims().to_vec()).map(Some)
        })
    }
}
