//! All layers of a post-norm transformer as one operation.
//!
//! Between the layers nothing is kept: what a layer's halves get as input is the result of the normalisation before
//! them, which is computed again from its standardised sum when it is needed backward. Gradients go from layer to
//! layer in two buffers.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::block::{self, Block};
use super::composed;
use super::context::Context;
use super::feed_forward::{self, FeedForward, Forward};
use super::kernel::by_dtype;
use super::real::Real;
use super::scratch::Buffer;
use super::self_attention::{self, Attend, SelfAttention};
use super::sight::Sight;

/// The parameters of one layer.
pub struct EncoderLayer<'a> {
    pub attention: SelfAttention<'a>,
    pub feed_forward: FeedForward<'a>,
}

/// `x` through [`self_attention`](super::self_attention()) and [`feed_forward`](super::feed_forward()) of every layer.
///
/// The same numbers as one operation after the other, with less memory: of a layer with inner width `4 * width` it
/// keeps `10 * width` values a token for the backward pass.
///
/// # Shapes
/// `x` `[tokens, width]`, `offsets` `[sequences + 1]`; the result is like `x`.
///
/// # Errors
/// When the shapes, the offsets or the element types do not fit.
pub fn encoder(context: &Context, x: &Tensor, offsets: &Arc<Vec<u32>>, layers: &[EncoderLayer<'_>]) -> Result<Tensor> {
    let halves = layers
        .iter()
        .map(|layer| {
            let attend = Attend::new(context, x, offsets, &layer.attention, Sight::All)?;
            Ok((attend, Forward::new(context, x, &layer.feed_forward)?))
        })
        .collect::<Result<Vec<_>>>()?;
    if layers.is_empty() {
        return Ok(x.clone());
    }
    if layers.iter().any(|layer| layer.attention.query.0.composed()) {
        return composed::encoder(context, x, offsets, layers);
    }
    let encoder = Encoder { layers: halves, keep: context.is_training() };
    by_dtype!(x.dtype(), "encoder", T => block::apply::<T, _>(context, x, encoder))
}

struct Encoder {
    layers: Vec<(Attend, Forward)>,
    keep: bool,
}

impl<T: Real> Block<T> for Encoder {
    const NAME: &'static str = "encoder";
    type State = Vec<(self_attention::State<T>, feed_forward::State<T>)>;

    fn forward(&self, x: &[T], y: &mut [T]) -> Result<Self::State> {
        let mut states = Vec::new();
        let mut attended = Buffer::take(x.len());
        for (i, (attend, forward)) in self.layers.iter().enumerate() {
            // the result so far is in `y`; a layer's first half is done with it before the second writes there
            let input: &[T] = if i == 0 { x } else { y };
            let first = attend.forward(input, &mut attended)?;
            let second = forward.forward(&attended, y)?;
            if self.keep {
                states.push((first, second));
            }
        }
        Ok(states)
    }

    fn backward(&self, x: &[T], mut states: Self::State, dy: &[T], dx: &mut [T]) -> Result<()> {
        let (mut gradient, mut input) = (Buffer::take(x.len()), Buffer::take(x.len()));
        for (i, (attend, forward)) in self.layers.iter().enumerate().rev() {
            let Some((first, second)) = states.pop() else {
                bail!("encoder: {} layers, but fewer kept states", self.layers.len());
            };
            // `dx` holds the gradient between layers, too
            attend.norm.result(&first.standard, &mut input)?;
            let above: &[T] = if i + 1 == self.layers.len() { dy } else { dx };
            forward.backward(&input, second, above, &mut gradient)?;
            let input: &[T] = match (states.last(), i.checked_sub(1).and_then(|below| self.layers.get(below))) {
                (Some((_, below)), Some((_, forward))) => {
                    forward.norm.result(&below.standard, &mut input)?;
                    &input
                }
                _ => x,
            };
            attend.backward(input, first, &gradient, dx)?;
        }
        Ok(())
    }
}
