//! The second half of a post-norm transformer layer as one operation.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::activation::{self, Activation};
use super::block::{self, Block};
use super::composed;
use super::context::{Context, Dropout};
use super::kernel::{self, by_dtype};
use super::linear::Stack;
use super::matmul::Precision;
use super::norm::ResidualNorm;
use super::param::Param;
use super::real::Real;
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
    let forward = Forward::new(context, x, layer)?;
    if layer.inner.0.composed() {
        return composed::feed_forward(context, x, layer);
    }
    by_dtype!(x.dtype(), "feed-forward", T => block::apply::<T, _>(context, x, forward))
}

pub(super) struct Forward {
    inner: Stack,
    activation: Activation,
    outer: Stack,
    pub(super) norm: ResidualNorm,
    precision: Precision,
}

impl Forward {
    /// Checks that `x` and the layer fit each other.
    pub(super) fn new(context: &Context, x: &Tensor, layer: &FeedForward<'_>) -> Result<Self> {
        let one = |(weight, bias): (&Arc<Param>, &Arc<Param>)| {
            Stack::new(context, vec![(Arc::clone(weight), Some(Arc::clone(bias)))])
        };
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
        Ok(Self { inner, activation: layer.activation, outer, norm, precision: context.precision() })
    }
}

/// What the backward pass needs.
pub(super) struct State<T: Real> {
    /// `[tokens, inner]`, before the activation.
    inner: Buffer<T>,
    /// `[tokens, width]`, the standardised sum.
    pub(super) standard: Buffer<T>,
    /// `[tokens]`
    scales: Buffer<T>,
}

impl<T: Real> Block<T> for Forward {
    const NAME: &'static str = "feed-forward";
    type State = State<T>;

    fn forward(&self, x: &[T], y: &mut [T]) -> Result<State<T>> {
        let tokens = x.len() / self.inner.input.max(1);
        let mut inner = Buffer::take(tokens * self.inner.width());
        self.inner.forward(x, Activation::Identity, &mut inner, self.precision)?;
        let mut standard = Buffer::take(x.len());
        self.outer.forward(&inner, self.activation, &mut standard, self.precision)?;
        let mut scales = Buffer::take(tokens);
        self.norm.forward(&mut standard, x, &mut scales, y)?;
        Ok(State { inner, standard, scales })
    }

    fn backward(&self, x: &[T], state: State<T>, dy: &[T], dx: &mut [T]) -> Result<()> {
        let State { inner, standard, scales } = state;
        // the gradient of the sum, which the residual carries on to x
        self.norm.backward(&standard, &scales, dy, dx)?;
        let mut space = standard;
        let d_outer = self.norm.before_dropout(dx, &mut space);
        self.outer.weight_gradient(&inner, self.activation, d_outer, self.precision)?;
        let mut d_inner = Buffer::take(inner.len());
        let width = self.inner.width();
        let through_activation = |row: usize, column: usize, values: &mut [T]| {
            let start = row * width + column;
            activation::backward_in_place(self.activation, &inner[start..start + values.len()], values);
        };
        self.outer.input_gradient(d_outer, &mut d_inner, false, Some(&through_activation), self.precision)?;
        self.inner.weight_gradient(x, Activation::Identity, &d_inner, self.precision)?;
        self.inner.input_gradient(&d_inner, dx, true, None, self.precision)
    }
}
