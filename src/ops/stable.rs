//! Log-sum-exp and softmax cross-entropy that do not overflow and whose gradients are never NaN.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::composed;
use super::kernel::{self, by_dtype, simd_fn};
use super::real::{Real, max_of, sum_by};

/// `log Σ exp(x)` over the last dimension. Entries of minus infinity count nothing and get no gradient.
///
/// # Shapes
/// `x` `[..., width]`; the result is `[...]`.
///
/// # Errors
/// When the element type has no kernel.
pub fn logsumexp(x: &Tensor) -> Result<Tensor> {
    if composed::wanted(x) {
        return composed::logsumexp(x);
    }
    x.contiguous()?.apply_op1(LogSumExp)
}

/// The mean over rows of `-log softmax(x)[target]`, as `torch.nn.functional.cross_entropy`.
///
/// # Shapes
/// `x` `[rows, classes]`, `targets` `[rows]`; the result is a scalar.
///
/// # Errors
/// When a target is not a class, or the shapes do not fit.
pub fn cross_entropy(x: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let &[rows, classes] = x.dims() else {
        bail!("cross-entropy: expected [rows, classes], got {:?}", x.dims());
    };
    check_targets("cross-entropy", targets, rows, classes)?;
    if composed::wanted(x) {
        return composed::cross_entropy(x, targets);
    }
    x.contiguous()?.apply_op1(CrossEntropy { targets: Arc::from(targets), classes })
}

/// One target a row, each of them a class.
pub(super) fn check_targets(name: &str, targets: &[u32], rows: usize, classes: usize) -> Result<()> {
    if targets.len() != rows || rows == 0 {
        bail!("{name}: {} targets for {rows} rows", targets.len());
    }
    if let Some(target) = targets.iter().find(|t| **t as usize >= classes) {
        bail!("{name}: target {target} is not one of {classes} classes");
    }
    Ok(())
}

struct LogSumExp;

struct CrossEntropy {
    targets: Arc<[u32]>,
    classes: usize,
}

simd_fn! {
    pub(super) fn row_logsumexp<T>(row: &[T]) -> T {
        let top = max_of(row);
        // All minus infinity stays so; one plus infinity, too. A maximum does not see NaN, a sum does.
        if !top.is_finite() {
            let sum = sum_by(row.len(), |i| row[i]);
            return if sum.is_finite() || sum == top { top } else { sum };
        }
        top + sum_by(row.len(), |i| (row[i] - top).exp()).ln()
    }
}

simd_fn! {
    /// `out = exp(x - total) * scale`
    pub(super) fn row_softmax<T>(row: &[T], total: T, scale: T, out: &mut [T]) {
        for (o, x) in out.iter_mut().zip(row) {
            *o = (*x - total).exp() * scale;
        }
    }
}

impl CustomOp1 for LogSumExp {
    fn name(&self) -> &'static str {
        "logsumexp"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = kernel::matrix(layout.dims())?;
        let shape = Shape::from(layout.dims()[..layout.dims().len() - 1].to_vec());
        by_dtype!(kernel::dtype(storage), "logsumexp", T => {
            let x: &[T] = kernel::slice(storage, layout)?;
            let y: Vec<T> = if width == 0 {
                vec![T::NEG_INFINITY; shape.elem_count()]
            } else {
                x.par_chunks(width).map(row_logsumexp).collect()
            };
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), shape))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = kernel::matrix(x.dims())?;
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), "logsumexp", T => {
            let mut dx = kernel::zeros::<T>(x.elem_count());
            kernel::read::<T, _>(x, |x| kernel::read::<T, _>(y, |y| kernel::read::<T, _>(&dy, |dy| {
                dx.par_chunks_mut(width.max(1)).zip(x.par_chunks(width.max(1))).enumerate().for_each(|(i, (dx, x))| {
                    if y[i].is_finite() {
                        row_softmax(x, y[i], dy[i], dx);
                    }
                });
            })))???;
            kernel::tensor(dx, x.dims().to_vec()).map(Some)
        })
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(storage), "cross-entropy", T => {
            let x: &[T] = kernel::slice(storage, layout)?;
            let rows = x.par_chunks(self.classes).zip(self.targets.par_iter()).with_min_len(16);
            let losses: Vec<T> = rows.map(|(row, target)| row_logsumexp(row) - row[*target as usize]).collect();
            let mut total = T::ZERO;
            losses.into_iter().for_each(|loss| total += loss);
            let mean = total / T::of(self.targets.len() as f64);
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(vec![mean]), Shape::from(())))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(x.dtype(), "cross-entropy", T => {
            let scale = T::of(dy.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()? / self.targets.len() as f64);
            let mut dx = kernel::zeros::<T>(x.elem_count());
            let classes = self.classes;
            kernel::read::<T, _>(x, |x| {
                dx.par_chunks_mut(classes).zip(x.par_chunks(classes)).enumerate().for_each(|(i, (dx, x))| {
                    let total = row_logsumexp(x);
                    if total.is_finite() {
                        row_softmax(x, total, scale, dx);
                        dx[self.targets[i] as usize] -= scale;
                    }
                });
            })?;
            kernel::tensor(dx, x.dims().to_vec()).map(Some)
        })
    }
}
