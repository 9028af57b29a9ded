//! Layer normalisation (with a residual and a dropout fused in) and L2 normalisation.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::composed;
use super::context::{Dropout, keeps};
use super::kernel::{self, by_dtype, simd_fn};
use super::param::Param;
use super::real::{Real, sum_by};

/// `LayerNorm(dropout(x) + residual)`: mean and (biased) variance over the last dimension, then weight and bias.
///
/// # Shapes
/// `x` and `residual` `[..., width]`, `weight` and `bias` `[width]`; the result is like `x`.
///
/// # Errors
/// When the shapes or element types do not fit.
pub fn residual_layer_norm(
    x: &Tensor,
    residual: &Tensor,
    dropout: Dropout,
    weight: &Arc<Param>,
    bias: &Arc<Param>,
    eps: f64,
) -> Result<Tensor> {
    if x.dims() != residual.dims() {
        bail!("layer norm: input is {:?}, residual is {:?}", x.dims(), residual.dims());
    }
    let op = LayerNorm::new(x, dropout, weight, bias, eps)?;
    if weight.composed() {
        return composed::residual_layer_norm(x, residual, dropout, weight, bias, eps);
    }
    x.contiguous()?.apply_op2(&residual.contiguous()?, op)
}

/// `LayerNorm(x)`, as [`residual_layer_norm`] without residual.
///
/// # Errors
/// When the shapes or element types do not fit.
pub fn layer_norm(x: &Tensor, weight: &Arc<Param>, bias: &Arc<Param>, eps: f64) -> Result<Tensor> {
    let op = LayerNorm::new(x, Dropout::NONE, weight, bias, eps)?;
    if weight.composed() {
        return composed::layer_norm(x, weight, bias, eps);
    }
    x.contiguous()?.apply_op1(op)
}

struct LayerNorm {
    dropout: Dropout,
    weight: Arc<Param>,
    bias: Arc<Param>,
    eps: f64,
    width: usize,
}

simd_fn! {
    /// `sum = dropout(x) + residual`, one row.
    fn add_row<T>(x: &[T], residual: Option<&[T]>, sum: &mut [T], first: u32, parts: Option<(u32, u32, u32)>, scale: T) {
        match parts {
            Some(parts) => {
                for (i, (s, x)) in sum.iter_mut().zip(x).enumerate() {
                    *s = *x * if keeps(parts, first.wrapping_add(i as u32)) { scale } else { T::ZERO };
                }
            }
            None => sum.copy_from_slice(x),
        }
        if let Some(residual) = residual {
            for (s, r) in sum.iter_mut().zip(residual) {
                *s += *r;
            }
        }
    }
}

simd_fn! {
    /// `x = dropout(x) + residual`, one row.
    fn add_in_place<T>(x: &mut [T], residual: &[T], first: u32, parts: Option<(u32, u32, u32)>, scale: T) {
        match parts {
            Some(parts) => {
                for (i, (x, r)) in x.iter_mut().zip(residual).enumerate() {
                    *x = *x * (if keeps(parts, first.wrapping_add(i as u32)) { scale } else { T::ZERO }) + *r;
                }
            }
            None => {
                for (x, r) in x.iter_mut().zip(residual) {
                    *x += *r;
                }
            }
        }
    }
}

simd_fn! {
    /// Mean and reciprocal standard deviation of a row.
    fn moments<T>(row: &[T], eps: T) -> (T, T) {
        let n = T::of(row.len() as f64);
        let mean = sum_by(row.len(), |i| row[i]) / n;
        let variance = sum_by(row.len(), |i| (row[i] - mean) * (row[i] - mean)) / n;
        (mean, T::ONE / (variance + eps).sqrt())
    }
}

simd_fn! {
    /// In place: `row = (row - mean) * scale * weight + bias`.
    fn normalize_row<T>(row: &mut [T], moments: (T, T), weight: &[T], bias: &[T]) {
        let (mean, scale) = moments;
        for ((y, w), b) in row.iter_mut().zip(weight).zip(bias) {
            *y = (*y - mean) * scale * *w + *b;
        }
    }
}

simd_fn! {
    /// One row's backward: `sum` holds the normalised input's pre-image and becomes the gradient of it.
    fn backward_row<T>(sum: &mut [T], moments: (T, T), weight: &[T], dy: &[T], dw: &mut [T], db: &mut [T]) {
        let (mean, scale) = moments;
        let n = sum.len();
        let inverse = T::ONE / T::of(n as f64);
        for (((s, dy), dw), db) in sum.iter_mut().zip(dy).zip(dw).zip(db) {
            *s = (*s - mean) * scale;
            *dw += *dy * *s;
            *db += *dy;
        }
        let mean_g = sum_by(n, |i| dy[i] * weight[i]) * inverse;
        let mean_gx = sum_by(n, |i| dy[i] * weight[i] * sum[i]) * inverse;
        for ((s, dy), w) in sum.iter_mut().zip(dy).zip(weight) {
            *s = scale * (*dy * *w - mean_g - *s * mean_gx);
        }
    }
}

simd_fn! {
    /// In place: `row = (row - mean) / deviation`, and `y = row * weight + bias`; the reciprocal deviation.
    fn standardize_row<T>(row: &mut [T], weight: &[T], bias: &[T], eps: T, y: &mut [T]) -> T {
        let n = T::of(row.len() as f64);
        let mean = sum_by(row.len(), |i| row[i]) / n;
        let variance = sum_by(row.len(), |i| (row[i] - mean) * (row[i] - mean)) / n;
        let scale = T::ONE / (variance + eps).sqrt();
        for (((x, y), w), b) in row.iter_mut().zip(y).zip(weight).zip(bias) {
            *x = (*x - mean) * scale;
            *y = *x * *w + *b;
        }
        scale
    }
}

simd_fn! {
    /// `y = x * weight + bias`
    fn scale_row<T>(x: &[T], weight: &[T], bias: &[T], y: &mut [T]) {
        for (((x, y), w), b) in x.iter().zip(y).zip(weight).zip(bias) {
            *y = *x * *w + *b;
        }
    }
}

simd_fn! {
    /// One row's backward from its standardised values.
    fn backward_standardized<T>(x: &[T], scale: T, weight: &[T], dy: &[T], dx: &mut [T], dw: &mut [T], db: &mut [T]) {
        let n = x.len();
        let inverse = T::ONE / T::of(n as f64);
        for (((x, dy), dw), db) in x.iter().zip(dy).zip(dw).zip(db) {
            *dw += *dy * *x;
            *db += *dy;
        }
        let mean_g = sum_by(n, |i| dy[i] * weight[i]) * inverse;
        let mean_gx = sum_by(n, |i| dy[i] * weight[i] * x[i]) * inverse;
        for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
            *dx = scale * (*dy * *w - mean_g - *x * mean_gx);
        }
    }
}

/// The end of a post-norm block: `y = LayerNorm(dropout(x) + residual)`.
///
/// `x` becomes the standardised sum, `scales` the rows' reciprocal deviations: what the backward pass needs.
pub(super) struct ResidualNorm {
    pub dropout: Dropout,
    pub weight: Arc<Param>,
    pub bias: Arc<Param>,
    pub eps: f64,
}

impl ResidualNorm {
    pub(super) fn new((weight, bias): (&Arc<Param>, &Arc<Param>), eps: f64, dropout: Dropout) -> Result<Self> {
        if weight.dims().len() != 1 || bias.dims() != weight.dims() {
            bail!("layer norm: `{}` is {:?}, `{}` is {:?}", weight.name(), weight.dims(), bias.name(), bias.dims());
        }
        Ok(Self { dropout, weight: Arc::clone(weight), bias: Arc::clone(bias), eps })
    }

    pub(super) fn width(&self) -> usize {
        self.weight.elements()
    }

    pub(super) fn forward<T: Real>(&self, x: &mut [T], residual: &[T], scales: &mut [T], y: &mut [T]) -> Result<()> {
        let width = self.weight.elements();
        let rows = kernel::rows_per_task(width);
        let (weight, bias) = (self.weight.host()?, self.bias.host()?);
        let (weight, bias) = (weight.values::<T>()?, bias.values::<T>()?);
        let mask = self.dropout.active().then(|| self.dropout.parts());
        let (scale, eps) = (T::of(self.dropout.scale()), T::of(self.eps));
        let tasks = x.par_chunks_mut(rows * width).zip(y.par_chunks_mut(rows * width)).zip(scales.par_chunks_mut(rows));
        tasks.enumerate().for_each(|(task, ((x, y), scales))| {
            for (row, ((x, y), kept)) in
                x.chunks_exact_mut(width).zip(y.chunks_exact_mut(width)).zip(scales).enumerate()
            {
                let start = (task * rows + row) * width;
                add_in_place(x, &residual[start..start + width], start as u32, mask, scale);
                *kept = standardize_row(x, weight, bias, eps, y);
            }
        });
        Ok(())
    }

    /// The result again, from the standardised sum: the same bits.
    pub(super) fn result<T: Real>(&self, standard: &[T], y: &mut [T]) -> Result<()> {
        let width = self.weight.elements();
        let rows = kernel::rows_per_task(width);
        let (weight, bias) = (self.weight.host()?, self.bias.host()?);
        let (weight, bias) = (weight.values::<T>()?, bias.values::<T>()?);
        y.par_chunks_mut(rows * width).zip(standard.par_chunks(rows * width)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                scale_row(x, weight, bias, y);
            }
        });
        Ok(())
    }

    /// The gradient of what was dropped from, given that of the sum; written to `space` where it is another.
    pub(super) fn before_dropout<'a, T: Real>(&self, d_sum: &'a [T], space: &'a mut [T]) -> &'a [T] {
        if !self.dropout.active() {
            return d_sum;
        }
        super::dropout::drop_into(self.dropout, d_sum, space);
        space
    }

    /// The gradient of the sum, which is that of the residual; weight and bias get theirs.
    pub(super) fn backward<T: Real>(&self, x: &[T], scales: &[T], dy: &[T], d_sum: &mut [T]) -> Result<()> {
        // A fixed number of rows a task, whatever the threads: the partial sums add up in one order.
        const ROWS: usize = 64;
        let width = self.weight.elements();
        let parts: Vec<(Vec<T>, Vec<T>)> = {
            let weight = self.weight.host()?;
            let weight = weight.values::<T>()?;
            let task = |(task, d_sum): (usize, &mut [T])| {
                let (mut dw, mut db) = (kernel::zeros::<T>(width), kernel::zeros::<T>(width));
                for (row, d_sum) in d_sum.chunks_exact_mut(width).enumerate() {
                    let row = task * ROWS + row;
                    let range = row * width..(row + 1) * width;
                    backward_standardized(&x[range.clone()], scales[row], weight, &dy[range], d_sum, &mut dw, &mut db);
                }
                (dw, db)
            };
            d_sum.par_chunks_mut(ROWS * width).enumerate().map(task).collect()
        };
        let (dw, db): (Vec<Vec<T>>, Vec<Vec<T>>) = parts.into_iter().unzip();
        self.weight.accumulate::<T>(|add, sum| kernel::add_parts(sum, add, &dw))?;
        self.bias.accumulate::<T>(|add, sum| kernel::add_parts(sum, add, &db))
    }
}

impl LayerNorm {
    fn new(x: &Tensor, dropout: Dropout, weight: &Arc<Param>, bias: &Arc<Param>, eps: f64) -> Result<Self> {
        let (_, width) = kernel::matrix(x.dims())?;
        if weight.dims() != [width] || bias.dims() != [width] {
            bail!("layer norm: input is {:?}, `{}` is {:?}", x.dims(), weight.name(), weight.dims());
        }
        kernel::check_dtype("layer norm", x.dtype(), weight.dtype())?;
        Ok(Self { dropout, weight: Arc::clone(weight), bias: Arc::clone(bias), eps, width })
    }

    fn mask(&self) -> Option<(u32, u32, u32)> {
        self.dropout.active().then(|| self.dropout.parts())
    }

    fn forward<T: Real>(&self, x: &[T], residual: Option<&[T]>) -> Result<Vec<T>> {
        let width = self.width;
        let rows = kernel::rows_per_task(width);
        let (mask, scale, eps) = (self.mask(), T::of(self.dropout.scale()), T::of(self.eps));
        let mut y = kernel::zeros::<T>(x.len());
        self.weight.read::<T, _>(|weight| {
            self.bias.read::<T, _>(|bias| {
                y.par_chunks_mut(rows * width).enumerate().for_each(|(task, chunk)| {
                    for (row, y) in chunk.chunks_exact_mut(width).enumerate() {
                        let start = (task * rows + row) * width;
                        let r = residual.map(|r| &r[start..start + width]);
                        add_row(&x[start..start + width], r, y, start as u32, mask, scale);
                        let moments = moments(y, eps);
                        normalize_row(y, moments, weight, bias);
                    }
                });
            })
        })??;
        Ok(y)
    }

    /// The gradients of `x` and of the residual.
    fn backward<T: Real>(&self, x: &Tensor, residual: Option<&Tensor>, dy: &Tensor) -> Result<(Tensor, Tensor)> {
        // A fixed number of rows a task, whatever the threads: the partial sums add up in one order.
        const ROWS: usize = 64;
        let width = self.width;
        let (mask, scale, eps) = (self.mask(), T::of(self.dropout.scale()), T::of(self.eps));
        let dy = dy.contiguous()?;
        let mut sum = kernel::zeros::<T>(x.elem_count());
        let run = |x: &[T], residual: Option<&[T]>, dy: &[T], weight: &[T], sum: &mut [T]| -> Vec<(Vec<T>, Vec<T>)> {
            sum.par_chunks_mut(ROWS * width)
                .enumerate()
                .map(|(task, chunk)| {
                    let (mut dw, mut db) = (kernel::zeros::<T>(width), kernel::zeros::<T>(width));
                    for (row, s) in chunk.chunks_exact_mut(width).enumerate() {
                        let start = (task * ROWS + row) * width;
                        let range = start..start + width;
                        let r = residual.map(|r| &r[range.clone()]);
                        add_row(&x[range.clone()], r, s, start as u32, mask, scale);
                        let moments = moments(s, eps);
                        backward_row(s, moments, weight, &dy[range], &mut dw, &mut db);
                    }
                    (dw, db)
                })
                .collect()
        };
        let partial = kernel::read::<T, _>(x, |x| {
            kernel::read::<T, _>(&dy, |dy| {
                self.weight.read::<T, _>(|weight| match residual {
                    Some(residual) => kernel::read::<T, _>(residual, |r| run(x, Some(r), dy, weight, &mut sum)),
                    None => Ok(run(x, None, dy, weight, &mut sum)),
                })
            })
        })????;
        let (dw_parts, db_parts): (Vec<Vec<T>>, Vec<Vec<T>>) = partial.into_iter().unzip();
        self.weight.accumulate::<T>(|add, dw| kernel::add_parts(dw, add, &dw_parts))?;
        self.bias.accumulate::<T>(|add, db| kernel::add_parts(db, add, &db_parts))?;
        let d_sum = kernel::tensor(sum, x.dims().to_vec())?;
        let dx = super::dropout::dropout(&d_sum, self.dropout)?;
        Ok((dx, d_sum))
    }
}

impl CustomOp2 for LayerNorm {
    fn name(&self) -> &'static str {
        "residual-layer-norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(s1), "residual-layer-norm", T => {
            let y = self.forward::<T>(kernel::slice(s1, l1)?, Some(kernel::slice(s2, l2)?))?;
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), l1.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, r: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        by_dtype!(x.dtype(), "residual-layer-norm", T => {
            let (dx, dr) = self.backward::<T>(x, Some(r), dy)?;
            Ok((Some(dx), Some(dr)))
        })
    }
}

impl CustomOp1 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(storage), "layer-norm", T => {
            let y = self.forward::<T>(kernel::slice(storage, layout)?, None)?;
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(x.dtype(), "layer-norm", T => Ok(Some(self.backward::<T>(x, None, dy)?.0)))
    }
}

/// Every row divided by `max(‖row‖₂, eps)`, as `torch.nn.functional.normalize`.
///
/// A row shorter than `eps` is divided by `eps`, and so is its gradient.
///
/// # Shapes
/// `x` `[..., width]`; the result is like `x`.
///
/// # Errors
/// When the element type has no kernel.
pub fn l2_normalize(x: &Tensor, eps: f64) -> Result<Tensor> {
    l2_normalize_prefix(x, x.dim(D::Minus1)?, eps)
}

/// [`l2_normalize`] of the first `keep` values of every row, the rest left out.
///
/// # Shapes
/// `x` `[..., width]` with `keep` at most `width`; the result is `[..., keep]`.
///
/// # Errors
/// As [`l2_normalize`], and when rows are shorter than `keep`.
pub fn l2_normalize_prefix(x: &Tensor, keep: usize, eps: f64) -> Result<Tensor> {
    if keep > x.dim(D::Minus1)? {
        bail!("l2-normalize: {keep} values of {:?}", x.dims());
    }
    if composed::wanted(x) {
        return composed::l2_normalize(&x.narrow(D::Minus1, 0, keep)?, eps);
    }
    x.contiguous()?.apply_op1(Normalize { eps, keep })
}

struct Normalize {
    eps: f64,
    /// Leading values of a row that there are in the result.
    keep: usize,
}

simd_fn! {
    fn l2_forward<T>(x: &[T], y: &mut [T], eps: T) {
        let norm = sum_by(x.len(), |i| x[i] * x[i]).sqrt();
        let inverse = T::ONE / norm.maximum(eps);
        for (y, x) in y.iter_mut().zip(x) {
            *y = *x * inverse;
        }
    }
}

simd_fn! {
    fn l2_backward<T>(x: &[T], y: &[T], dy: &[T], dx: &mut [T], eps: T) {
        let norm = sum_by(x.len(), |i| x[i] * x[i]).sqrt();
        let inverse = T::ONE / norm.maximum(eps);
        let along = if norm > eps { sum_by(x.len(), |i| y[i] * dy[i]) } else { T::ZERO };
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = (*dy - *y * along) * inverse;
        }
    }
}

impl CustomOp1 for Normalize {
    fn name(&self) -> &'static str {
        "l2-normalize"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = kernel::matrix(layout.dims())?;
        by_dtype!(kernel::dtype(storage), "l2-normalize", T => {
            let x: &[T] = kernel::slice(storage, layout)?;
            let mut y = kernel::zeros::<T>(rows * self.keep);
            let eps = T::of(self.eps);
            if self.keep > 0 {
                let rows = y.par_chunks_mut(self.keep).zip(x.par_chunks(width));
                rows.for_each(|(y, x)| l2_forward(&x[..self.keep], y, eps));
            }
            let mut shape = layout.dims().to_vec();
            if let Some(last) = shape.last_mut() {
                *last = self.keep;
            }
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), Shape::from(shape)))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = kernel::matrix(x.dims())?;
        let keep = self.keep;
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), "l2-normalize", T => {
            let mut dx = kernel::zeros::<T>(x.elem_count()); // what was left out has a gradient of 0
            let eps = T::of(self.eps);
            kernel::read::<T, _>(x, |x| kernel::read::<T, _>(y, |y| kernel::read::<T, _>(&dy, |dy| {
                dx.par_chunks_mut(width.max(1)).enumerate().for_each(|(i, dx)| {
                    let range = i * keep..(i + 1) * keep;
                    l2_backward(&x[i * width..][..keep], &y[range.clone()], &dy[range], &mut dx[..keep], eps);
                });
            })))???;
            kernel::tensor(dx, x.dims().to_vec()).map(Some)
        })
    }
}
