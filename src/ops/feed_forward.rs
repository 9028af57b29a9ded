//! The second half of a post-norm transformer layer as one operation.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::activation::{self, Activation};
use super::context::{Context, Dropout};
use super::dropout::drop_into;
use super::kernel::{self, by_dtype};
use super::linear::Stack;
use super::matmul::Precision;
use super::norm::ResidualNorm;
use super::param::Param;
use super::real::Real;
use super::saved::Saved;
use super::scratch::Buffer;

/// The parameters of [`feed_forward`].
pub struct FeedForward<'a> {
    /// `[inner, width]` and `[inner]`.
    pub inner: (&'a Arc<Param>, &'a Arc<Param>),
    /// Between the two layers.
    pub activation: Activation,
    /// `[width, inner]` and `[width]`.
    pub outer: (&'a Arc<Param>, &'a Arc<Param>),
    /// Weight and bias of the normalisation, `[width]` each.
    pub norm: (&'a Arc<Param>, &'a Arc<Param>),
    /// Added to the variance.
    pub eps: f64,
    /// Of the outer layer's result.
    pub dropout: Dropout,
}

/// `LayerNorm(dropout(activation(x W₁ᵀ + b₁) W₂ᵀ + b₂) + x)`.
///
/// One operation instead of four: of the inner width only the values before the activation are kept.
///
/// # Shapes
/// `x` `[tokens, width]`; the result is like `x`.
///
/// # Errors
/// When the shapes or element types do not fit.
pub fn feed_forward(context: &Context, x: &Tensor, layer: &FeedForward<'_>) -> Result<Tensor> {
    let one =
        |(weight, bias): (&Arc<Param>, &Arc<Param>)| Stack::new(vec![(Arc::clone(weight), Some(Arc::clone(bias)))]);
    let (inner, outer) = (one(layer.inner)?, one(layer.outer)?);
    let norm = ResidualNorm::new(layer.norm, layer.eps, layer.dropout)?;
    let (_, width) = kernel::matrix(x.dims())?;
    if inner.input != width || outer.input != inner.width() || outer.width() != width || norm.width() != width {
        candle_core::bail!(
            "feed-forward: input is {:?}, `{}` is {:?}, `{}` is {:?}",
            x.dims(),
            layer.inner.0.name(),
            layer.inner.0.dims(),
            layer.outer.0.name(),
            layer.outer.0.dims()
        );
    }
    kernel::check_dtype("feed-forward", x.dtype(), layer.inner.0.dtype())?;
    let (precision, keep) = (context.precision(), context.is_training());
    by_dtype!(x.dtype(), "feed-forward", T => {
        let op = Block::<T> { inner, activation: layer.activation, outer, norm, precision, keep, saved: Saved::default() };
        x.contiguous()?.apply_op1(op)
    })
}

struct Block<T: Real> {
    inner: Stack,
    activation: Activation,
    outer: Stack,
    norm: ResidualNorm,
    precision: Precision,
    keep: bool,
    saved: Saved<State<T>>,
}

/// What the backward pass needs.
struct State<T: Real> {
    /// `[tokens, inner]`, before the activation.
    inner: Buffer<T>,
    /// `[tokens, width]`, the standardised sum.
    standard: Buffer<T>,
    /// `[tokens]`
    scales: Buffer<T>,
}

impl<T: Real> Block<T> {
    fn forward(&self, x: &[T]) -> Result<Vec<T>> {
        let tokens = x.len() / self.inner.input.max(1);
        let mut inner = Buffer::take(tokens * self.inner.width());
        self.inner.forward(x, Activation::Identity, &mut inner, self.precision)?;
        let mut standard = Buffer::take(x.len());
        self.outer.forward(&inner, self.activation, &mut standard, self.precision)?;
        let mut scales = Buffer::take(tokens);
        let mut y = kernel::zeros::<T>(x.len());
        self.norm.forward(&mut standard, x, &mut scales, &mut y)?;
        if self.keep {
            self.saved.put(State { inner, standard, scales });
        }
        Ok(y)
    }

    fn backward(&self, x: &[T], dy: &[T]) -> Result<Vec<T>> {
        let State { inner, standard, scales } = self.saved.take("feed-forward")?;
        // the gradient of the sum, which the residual carries on to x
        let mut dx = kernel::zeros::<T>(x.len());
        self.norm.backward(&standard, &scales, dy, &mut dx)?;
        let mut d_outer = standard;
        let d_outer: &[T] = if self.norm.dropout.active() {
            drop_into(self.norm.dropout, &dx, &mut d_outer);
            &d_outer
        } else {
            &dx
        };
        self.outer.weight_gradient(&inner, self.activation, d_outer, self.precision)?;
        let mut d_inner = Buffer::take(inner.len());
        let width = self.inner.width();
        let through_activation = |row: usize, column: usize, values: &mut [T]| {
            let start = row * width + column;
            activation::backward_in_place(self.activation, &inner[start..start + values.len()], values);
        };
        self.outer.input_gradient(d_outer, &mut d_inner, false, Some(&through_activation), self.precision)?;
        self.inner.weight_gradient(x, Activation::Identity, &d_inner, self.precision)?;
        self.inner.input_gradient(&d_inner, &mut dx, true, None, self.precision)?;
        Ok(dx)
    }
}

impl<T: Real> CustomOp1 for Block<T> {
    fn name(&self) -> &'static str {
        "feed-forward"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.forward(kernel::slice(storage, layout)?)?;
        Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let (x_host, dy) = (kernel::host(x)?, kernel::host(&dy)?);
        let dx = self.backward(x_host.values()?, dy.values()?)?;
        kernel::tensor(dx, x.dims().to_vec()).map(Some)
    }
}
