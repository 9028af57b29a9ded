//! Tokens side by side with their neighbours: what a convolution over a sequence is a product of.

use candle_core::{D, Result, Tensor, bail};

use super::composed::select::{PAD, Selection};

/// For every token the vectors of the `width` tokens around it in its sequence, zeros beyond its ends.
///
/// # Shapes
/// `x` `[tokens, dim]`, `offsets` `[sequences + 1]`; the result is `[tokens, dim * width]`, as a convolution's weights
/// lie: dimension by dimension, in each the places of the window.
///
/// # Errors
/// When the width is even, or the offsets do not cover the tokens.
pub fn windows(x: &Tensor, offsets: &[u32], width: usize) -> Result<Tensor> {
    let (tokens, dim) = x.dims2()?;
    if width.is_multiple_of(2) {
        bail!("windows: a width of {width} has no middle");
    }
    super::kernel::check_offsets("windows", offsets, tokens)?;
    let half = (width / 2) as i64;
    let around = (-half..=half).map(|by| shifted(x, offsets, by)?.unsqueeze(D::Minus1)).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&around, 2)?.reshape((tokens, dim * width))
}

/// The vectors `by` tokens further on in the same sequence, zeros where there is none.
fn shifted(x: &Tensor, offsets: &[u32], by: i64) -> Result<Tensor> {
    if by == 0 {
        return Ok(x.clone());
    }
    let tokens = x.dim(0)?;
    let mut ids = Vec::with_capacity(tokens);
    for w in offsets.windows(2) {
        let (start, end) = (i64::from(w[0]), i64::from(w[1]));
        ids.extend((start..end).map(|at| if (start..end).contains(&(at + by)) { (at + by) as u32 } else { PAD }));
    }
    Selection::new(ids, tokens, x.device())?.of(x)
}
