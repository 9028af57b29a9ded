//! SPLADE's pooling over scores that are there.

use candle_core::{Result, Tensor};

use crate::ops::splade::SpladePooling;

/// `scores` `[tokens, words]`, `offsets` `[sequences + 1]`; the result is `[sequences, words]`.
pub fn splade_pool(scores: &Tensor, offsets: &[u32], pooling: SpladePooling) -> Result<Tensor> {
    let words = scores.dim(1)?;
    let positive = scores.gt(0.0)?.to_dtype(scores.dtype())?;
    let log = |x: &Tensor| x.affine(1.0, 1.0)?.log();
    let mut weights = log(&scores.mul(&positive)?)?;
    if pooling.twice {
        weights = log(&weights)?;
    }
    let mut rows = Vec::with_capacity(offsets.len().saturating_sub(1));
    for ends in offsets.windows(2) {
        let (from, count) = (ends[0] as usize, (ends[1] - ends[0]) as usize);
        rows.push(if count == 0 {
            Tensor::zeros(words, scores.dtype(), scores.device())?
        } else if pooling.sum {
            weights.narrow(0, from, count)?.sum(0)?
        } else {
            let tokens = weights.narrow(0, from, count)?;
            // a maximum passes over what is no number, a sum does not
            tokens.max(0)?.add(&tokens.detach().sum(0)?.affine(0.0, 0.0)?)?
        });
    }
    Tensor::stack(&rows, 0)
}
