//! All layers of a post-norm transformer as one operation.
//!
//! Between the layers nothing is kept: what a layer's halves get as input is the result of the normalisation before
//! them, which is computed again from its standardised sum when it is needed backward. Gradients go from layer to
//! layer in two buffers. Where memory is short, layers keep their inputs alone and are computed twice.

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

/// What a layer keeps for its backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// What that needs: with an inner width of `4 * width`, `10 * width` values a token.
    #[default]
    All,
    /// Its input, `width` values a token; the layer is computed again.
    Input,
}

/// `x` through [`self_attention`](super::self_attention()) and [`feed_forward`](super::feed_forward()) of every layer.
///
/// The same numbers as one operation after the other, with less memory, and the same whatever is kept. Of candle's
/// operations the graph keeps what it needs; there [`checkpoint`](super::checkpoint()) stands around a layer.
///
/// # Shapes
/// `x` `[tokens, width]`, `offsets` `[sequences + 1]`; the result is like `x`.
///
/// # Errors
/// When the shapes, the offsets or the element types do not fit.
pub fn encoder(
    context: &Context,
    x: &Tensor,
    offsets: &Arc<Vec<u32>>,
    layers: &[EncoderLayer<'_>],
    keep: Keep,
) -> Result<Tensor> {
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
    let encoder = Encoder { layers: halves, keep: context.is_training().then_some(keep) };
    by_dtype!(x.dtype(), "encoder", T => block::apply::<T, _>(context, x, encoder))
}

struct Encoder {
    layers: Vec<(Attend, Forward)>,
    /// `None` where nothing is differentiated.
    keep: Option<Keep>,
}

/// What stays of a layer.
enum Kept<T: Real> {
    All(self_attention::State<T>, feed_forward::State<T>),
    /// What went into it; of the first layer that is the operation's own input.
    Input(Option<Buffer<T>>),
}

impl<T: Real> Block<T> for Encoder {
    const NAME: &'static str = "encoder";
    type State = Vec<Kept<T>>;

    fn forward(&self, x: &[T], y: &mut [T]) -> Result<Self::State> {
        let mut states = Vec::new();
        let mut attended = Buffer::take(x.len());
        for (i, (attend, forward)) in self.layers.iter().enumerate() {
            // the result so far is in `y`; a layer's first half is done with it before the second writes there
            let input: &[T] = if i == 0 { x } else { y };
            let own = (i > 0 && self.keep == Some(Keep::Input)).then(|| {
                let mut own = Buffer::take(x.len());
                own.copy_from_slice(input);
                own
            });
            let first = attend.forward(input, &mut attended)?;
            let second = forward.forward(&attended, y)?;
            match self.keep {
                Some(Keep::All) => states.push(Kept::All(first, second)),
                Some(Keep::Input) => states.push(Kept::Input(own)),
                None => {}
            }
        }
        Ok(states)
    }

    fn backward(&self, x: &[T], mut states: Self::State, dy: &[T], dx: &mut [T]) -> Result<()> {
        let (mut gradient, mut input) = (Buffer::take(x.len()), Buffer::take(x.len()));
        for (i, (attend, forward)) in self.layers.iter().enumerate().rev() {
            let (first, second, own) = match states.pop() {
                Some(Kept::All(first, second)) => (first, second, None),
                Some(Kept::Input(own)) => {
                    // `input` and `gradient` are free until the states are there again
                    let first = attend.forward(own.as_deref().unwrap_or(x), &mut input)?;
                    let second = forward.forward(&input, &mut gradient)?;
                    (first, second, own)
                }
                None => bail!("encoder: {} layers, but fewer kept states", self.layers.len()),
            };
            // `dx` holds the gradient between layers, too
            attend.norm.result(&first.standard, &mut input)?;
            let above: &[T] = if i + 1 == self.layers.len() { dy } else { dx };
            forward.backward(&input, second, above, &mut gradient)?;
            let below = i.checked_sub(1).and_then(|below| self.layers.get(below));
            let input: &[T] = match (own.as_deref(), states.last(), below) {
                (Some(own), _, _) => own,
                (None, Some(Kept::All(_, below)), Some((_, forward))) => {
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
