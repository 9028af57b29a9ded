//! `y = x Wᵀ + b`.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::activation::Activation;
use super::adapter::Way;
use super::composed;
use super::context::Context;
use super::kernel::{self, by_dtype, simd_fn};
use super::matmul::{self, Finish, Matrix, Precision, Target};
use super::param::Param;
use super::real::Real;

/// A fully connected layer: `y = x Wᵀ + b`, as `torch.nn.functional.linear`.
///
/// # Shapes
/// `x` `[..., in]`, `weight` `[out, in]`, `bias` `[out]`; the result is `[..., out]`.
///
/// # Errors
/// When the shapes or element types do not fit.
pub fn linear(context: &Context, x: &Tensor, weight: &Arc<Param>, bias: Option<&Arc<Param>>) -> Result<Tensor> {
    linears(context, x, &[(weight, bias)])
}

/// Layers of one shape on the same input as one product, their results side by side.
///
/// # Shapes
/// `x` `[..., in]`, each weight `[out, in]` and bias `[out]`; the result is `[..., layers * out]`.
///
/// # Errors
/// When the shapes or element types do not fit.
pub fn linears(context: &Context, x: &Tensor, layers: &[(&Arc<Param>, Option<&Arc<Param>>)]) -> Result<Tensor> {
    let all = layers.iter().map(|(weight, bias)| (Arc::clone(weight), bias.map(Arc::clone))).collect();
    let stack = Stack::new(context, all)?;
    for (weight, _) in layers {
        if x.dims().last() != Some(&stack.input) {
            bail!("linear: input is {:?}, weight `{}` is {:?}", x.dims(), weight.name(), weight.dims());
        }
        kernel::check_dtype("linear", x.dtype(), weight.dtype())?;
    }
    if layers.iter().any(|(weight, _)| weight.composed()) {
        let each = layers.iter().map(|(weight, bias)| composed::linear(context, x, weight, *bias));
        return match each.collect::<Result<Vec<_>>>()?.as_slice() {
            [one] => Ok(one.clone()),
            several => Tensor::cat(several, D::Minus1),
        };
    }
    x.contiguous()?.apply_op1(Linear { stack, precision: context.precision() })
}

struct Linear {
    stack: Stack,
    precision: Precision,
}

simd_fn! {
    /// Adds every row of `rows` to `sum`.
    fn add_rows<T>(sum: &mut [T], rows: &[T]) {
        for row in rows.chunks_exact(sum.len()) {
            for (a, b) in sum.iter_mut().zip(row) {
                *a += *b;
            }
        }
    }
}

simd_fn! {
    fn add_row<T>(sum: &mut [T], row: &[T]) {
        for (a, b) in sum.iter_mut().zip(row) {
            *a += *b;
        }
    }
}

/// Column sums of `[rows, width]` in a fixed order whatever the number of threads.
fn column_sums<T: Real>(data: &[T], width: usize) -> Vec<T> {
    let partial: Vec<Vec<T>> = data
        .par_chunks(128 * width.max(1))
        .map(|rows| {
            let mut part = kernel::zeros::<T>(width);
            add_rows(&mut part, rows);
            part
        })
        .collect();
    let mut sum = kernel::zeros::<T>(width);
    for part in partial {
        add_row(&mut sum, &part);
    }
    sum
}

/// Layers of one shape that share their input, seen as one layer with their outputs side by side.
pub(super) struct Stack {
    layers: Vec<(Arc<Param>, Option<Arc<Param>>)>,
    /// Low-rank updates, with their layers' numbers.
    ways: Vec<(usize, Way)>,
    /// Outputs of one layer.
    out: usize,
    pub(super) input: usize,
}

impl Stack {
    pub(super) fn new(context: &Context, layers: Vec<(Arc<Param>, Option<Arc<Param>>)>) -> Result<Self> {
        let Some((first, _)) = layers.first() else {
            bail!("linear: no layer");
        };
        let &[out, input] = first.dims() else {
            bail!("linear: weight `{}` is {:?}, not a matrix", first.name(), first.dims());
        };
        let mut ways = Vec::new();
        for (i, (weight, bias)) in layers.iter().enumerate() {
            ways.extend(Way::of(weight, context)?.map(|way| (i, way)));
            if weight.dims() != [out, input] || weight.dtype() != first.dtype() {
                bail!("linear: weight `{}` is {:?}, wanted [{out}, {input}]", weight.name(), weight.dims());
            }
            if let Some(bias) = bias
                && bias.dims() != [out]
            {
                bail!("linear: bias `{}` is {:?}, wanted [{out}]", bias.name(), bias.dims());
            }
        }
        Ok(Self { layers, ways, out, input })
    }

    /// All outputs.
    pub(super) fn width(&self) -> usize {
        self.out * self.layers.len()
    }

    /// Lends the weights, stacked.
    fn with_weights<T: Real, R>(&self, f: impl FnOnce(&[&[T]]) -> R) -> Result<R> {
        let hosts = self.layers.iter().map(|(weight, _)| weight.host()).collect::<Result<Vec<_>>>()?;
        let values = hosts.iter().map(|host| host.values::<T>()).collect::<Result<Vec<_>>>()?;
        Ok(f(&values))
    }

    /// `y = map(x) Wᵀ + b`: `x` `[tokens, input]`, `y` `[tokens, width]`.
    pub(super) fn forward<T: Real>(&self, x: &[T], map: Activation, y: &mut [T], precision: Precision) -> Result<()> {
        let mut bias = Vec::new();
        for (i, (_, b)) in self.layers.iter().enumerate() {
            if let Some(b) = b {
                bias.resize(i * self.out, T::ZERO);
                bias.extend_from_slice(b.host()?.values::<T>()?);
            }
        }
        if !bias.is_empty() {
            bias.resize(self.width(), T::ZERO);
        }
        let add_bias = |_: usize, column: usize, values: &mut [T]| add_row(values, &bias[column..]);
        let parts = [x];
        self.with_weights::<T, _>(|weights| {
            let mut target = Target::new(y, self.width());
            if !bias.is_empty() {
                target = target.finished_by(&add_bias);
            }
            matmul::multiply(
                Matrix::stacked(&parts, self.input).depth_in_rows().mapped(map),
                Matrix::stacked(weights, self.input).depth_in_rows(),
                target,
                precision,
            );
        })?;
        for (i, way) in &self.ways {
            way.forward((x, self.input, map), y, (i * self.out, self.width()), precision)?;
        }
        Ok(())
    }

    /// `dx = dy W` or `dx += dy W`.
    pub(super) fn input_gradient<T: Real>(
        &self,
        dy: &[T],
        dx: &mut [T],
        add: bool,
        finish: Option<Finish<'_, T>>,
        precision: Precision,
    ) -> Result<()> {
        // first the low-rank updates, since what finishes the product wants the whole
        let mut add = add;
        for (i, way) in &self.ways {
            let place = (i * self.out, self.width(), self.out);
            way.input_gradient(dy, place, (dx, self.input, add), precision)?;
            add = true;
        }
        let dy = [dy];
        self.with_weights::<T, _>(|weights| {
            let mut target = Target::new(dx, self.input).adding(add);
            if let Some(finish) = finish {
                target = target.finished_by(finish);
            }
            matmul::multiply(
                Matrix::stacked(&dy, self.width()).depth_in_rows(),
                Matrix::stacked(weights, self.input).depth_across_rows(),
                target,
                precision,
            );
        })
    }

    /// `dW += dyᵀ map(x)` and `db += Σ dy`.
    pub(super) fn weight_gradient<T: Real>(
        &self,
        x: &[T],
        map: Activation,
        dy: &[T],
        precision: Precision,
    ) -> Result<()> {
        for (i, way) in &self.ways {
            way.weight_gradient((x, self.input, map), dy, (i * self.out, self.width(), self.out), precision)?;
        }
        let biases = self.layers.iter().any(|(_, b)| b.as_ref().is_some_and(|b| b.trainable()));
        let sums = if biases { column_sums(dy, self.width()) } else { Vec::new() };
        let (x, dy) = ([x], [dy]);
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            let columns = i * self.out..(i + 1) * self.out;
            weight.accumulate::<T>(|add, dw| {
                matmul::multiply(
                    Matrix::stacked(&dy, self.width()).columns(columns.start, self.out).depth_across_rows(),
                    Matrix::stacked(&x, self.input).depth_across_rows().mapped(map),
                    Target::new(dw, self.input).adding(add),
                    precision,
                );
            })?;
            if let Some(bias) = bias {
                bias.accumulate::<T>(|add, db| {
                    if add { add_row(db, &sums[columns]) } else { db.copy_from_slice(&sums[columns]) }
                })?;
            }
        }
        Ok(())
    }
}

impl Linear {
    fn backward<T: Real>(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let dy = dy.contiguous()?;
        let (x_host, dy) = (kernel::host(x)?, kernel::host(&dy)?);
        let (values, dy) = (x_host.values::<T>()?, dy.values::<T>()?);
        self.stack.weight_gradient(values, Activation::Identity, dy, self.precision)?;
        let mut dx = kernel::zeros::<T>(values.len());
        self.stack.input_gradient(dy, &mut dx, false, None, self.precision)?;
        kernel::tensor(dx, x.dims().to_vec())
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.stack.width();
        }
        by_dtype!(kernel::dtype(storage), "linear", T => {
            let x: &[T] = kernel::slice(storage, layout)?;
            let mut y = kernel::zeros::<T>(x.len() / self.stack.input.max(1) * self.stack.width());
            self.stack.forward(x, Activation::Identity, &mut y, self.precision)?;
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), Shape::from(dims)))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(x.dtype(), "linear", T => self.backward::<T>(x, dy).map(Some))
    }
}
