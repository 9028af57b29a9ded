//! The first half of a post-norm transformer layer as one operation.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::activation::Activation;
use super::attention::Attention;
use super::block::{self, Block};
use super::composed;
use super::context::{Context, Dropout};
use super::kernel::{self, Shared, by_dtype};
use super::linear::Stack;
use super::matmul::{Matrix, Precision};
use super::norm::ResidualNorm;
use super::param::Param;
use super::real::Real;
use super::relative::Relative;
use super::scratch::Buffer;
use super::sight::Sight;

/// A weight and its bias.
type Pair<'a> = (&'a Arc<Param>, &'a Arc<Param>);

/// The parameters of [`self_attention`].
pub struct SelfAttention<'a> {
    /// `[width, width]` and `[width]` each.
    pub query: Pair<'a>,
    pub key: Pair<'a>,
    pub value: Pair<'a>,
    pub output: Pair<'a>,
    /// Weight and bias of the normalisation, `[width]` each.
    pub norm: Pair<'a>,
    /// Added to the variance.
    pub eps: f64,
    /// Heads, which divide the width.
    pub heads: usize,
    /// What distances add to scores.
    pub relative: Option<&'a Relative>,
    /// How many leading tokens of each sequence are looked at, `[sequences]`; empty for all.
    pub attended: &'a [u32],
    /// Of the attention probabilities.
    pub probability_dropout: Dropout,
    /// Of the output layer's result.
    pub dropout: Dropout,
}

/// `LayerNorm(dropout(attention(x) Wᵀ + b) + x)` over packed sequences.
///
/// # Shapes
/// `x` `[tokens, width]`, `offsets` `[sequences + 1]`; the result is like `x`.
///
/// # Errors
/// When the shapes, the offsets or the element types do not fit.
pub fn self_attention(
    context: &Context,
    x: &Tensor,
    offsets: &Arc<Vec<u32>>,
    layer: &SelfAttention<'_>,
) -> Result<Tensor> {
    attend(context, x, offsets, layer, Sight::All)
}

/// As [`self_attention`], where each token sees only those before it in its sequence, and itself.
///
/// # Shapes
/// As there.
///
/// # Errors
/// As there.
pub fn causal_self_attention(
    context: &Context,
    x: &Tensor,
    offsets: &Arc<Vec<u32>>,
    layer: &SelfAttention<'_>,
) -> Result<Tensor> {
    attend(context, x, offsets, layer, Sight::Before)
}

fn attend(context: &Context, x: &Tensor, offsets: &[u32], layer: &SelfAttention<'_>, sight: Sight) -> Result<Tensor> {
    let attend = Attend::new(context, x, offsets, layer, sight)?;
    if layer.query.0.composed() {
        return composed::self_attention(context, x, offsets, layer, sight);
    }
    by_dtype!(x.dtype(), "attention", T => block::apply::<T, _>(context, x, attend))
}

pub(super) struct Attend {
    input: Stack,
    attention: Attention,
    output: Stack,
    pub(super) norm: ResidualNorm,
    precision: Precision,
}

impl Attend {
    /// Checks that `x`, the offsets and the layer fit each other.
    pub(super) fn new(
        context: &Context,
        x: &Tensor,
        offsets: &[u32],
        layer: &SelfAttention<'_>,
        sight: Sight,
    ) -> Result<Self> {
        let pair = |(weight, bias): Pair<'_>| (Arc::clone(weight), Some(Arc::clone(bias)));
        let input = Stack::new(context, vec![pair(layer.query), pair(layer.key), pair(layer.value)])?;
        let output = Stack::new(context, vec![pair(layer.output)])?;
        let norm = ResidualNorm::new(layer.norm, layer.eps, layer.dropout)?;
        let (tokens, width) = kernel::matrix(x.dims())?;
        if input.input != width || input.width() != 3 * width || output.input != width || output.width() != width {
            bail!("attention: input is {:?}, `{}` is {:?}", x.dims(), layer.query.0.name(), layer.query.0.dims());
        }
        if norm.width() != width {
            bail!("attention: input is {:?}, `{}` is {:?}", x.dims(), layer.norm.0.name(), layer.norm.0.dims());
        }
        if layer.heads == 0 || !width.is_multiple_of(layer.heads) {
            bail!("attention: {} heads do not divide a width of {width}", layer.heads);
        }
        kernel::check_offsets("attention", offsets, tokens)?;
        kernel::check_dtype("attention", x.dtype(), layer.query.0.dtype())?;
        if !layer.attended.is_empty() && layer.attended.len() + 1 != offsets.len() {
            bail!("attention: {} sequences, and {} of their lengths", offsets.len() - 1, layer.attended.len());
        }
        let offsets = (offsets, layer.attended);
        if let Some(relative) = layer.relative {
            let longest = offsets.0.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
            relative.check(layer.heads, longest, x.dtype())?;
        }
        let (dropout, relative) = (layer.probability_dropout, layer.relative.cloned());
        let attention = Attention::new(offsets, layer.heads, width, dropout, sight, relative);
        Ok(Self { input, attention, output, norm, precision: context.precision() })
    }
}

/// What the backward pass needs.
pub(super) struct State<T: Real> {
    /// `[tokens, 3 * width]`: queries, keys, values.
    qkv: Buffer<T>,
    /// `[tokens, width]`, what the heads saw.
    seen: Buffer<T>,
    /// `[tokens, width]`, the standardised sum.
    pub(super) standard: Buffer<T>,
    /// `[tokens]`
    scales: Buffer<T>,
}

/// Queries, keys and values of a matrix that holds them side by side.
pub(super) fn thirds<'a, T>(qkv: &'a [&'a [T]; 1], width: usize) -> [Matrix<'a, T>; 3] {
    [0, 1, 2].map(|i| Matrix::stacked(qkv, 3 * width).columns(i * width, width))
}

impl<T: Real> Block<T> for Attend {
    const NAME: &'static str = "attention";
    type State = State<T>;

    fn forward(&self, x: &[T], y: &mut [T]) -> Result<State<T>> {
        let width = self.input.input;
        let tokens = x.len() / width.max(1);
        let mut qkv = Buffer::take(3 * x.len());
        self.input.forward(x, Activation::Identity, &mut qkv, self.precision)?;
        let mut seen = Buffer::take(x.len());
        self.attention.forward(thirds(&[&qkv], width), &mut seen)?;
        let mut standard = Buffer::take(x.len());
        self.output.forward(&seen, Activation::Identity, &mut standard, self.precision)?;
        let mut scales = Buffer::take(tokens);
        self.norm.forward(&mut standard, x, &mut scales, y)?;
        Ok(State { qkv, seen, standard, scales })
    }

    fn backward(&self, x: &[T], state: State<T>, dy: &[T], dx: &mut [T]) -> Result<()> {
        let State { qkv, seen, standard, scales } = state;
        let width = self.input.input;
        // the gradient of the sum, which the residual carries on to x
        self.norm.backward(&standard, &scales, dy, dx)?;
        let mut space = standard;
        let d_output = self.norm.before_dropout(dx, &mut space);
        self.output.weight_gradient(&seen, Activation::Identity, d_output, self.precision)?;
        let mut d_seen = seen;
        self.output.input_gradient(d_output, &mut d_seen, false, None, self.precision)?;
        let mut d_qkv = Buffer::<T>::take(qkv.len());
        let start = Shared::new(&mut d_qkv);
        // SAFETY: queries, keys and values have a third of the columns each.
        unsafe {
            let places = [0, 1, 2].map(|i| start.skip(i * width));
            self.attention.backward(thirds(&[&qkv], width), Matrix::stacked(&[&d_seen], width), places, 3 * width)?;
        }
        drop(qkv);
        self.input.weight_gradient(x, Activation::Identity, &d_qkv, self.precision)?;
        self.input.input_gradient(&d_qkv, dx, true, None, self.precision)
    }
}
