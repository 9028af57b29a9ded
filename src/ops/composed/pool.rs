//! From tokens to one vector a sequence, over packed tokens.

use candle_core::{Result, Tensor};

use super::select::{PAD, Selection};
use super::{column, filled};
use crate::ops::pool::{Pool, PoolingMode};

pub fn pool(x: &Tensor, pool: &Pool) -> Result<Tensor> {
    if pool.mode == PoolingMode::Max {
        return largest(x, pool);
    }
    let mut shares = Vec::new();
    for sequence in 0..pool.sequences() {
        let (range, skipped) = pool.range(sequence);
        let count = range.len();
        for (i, token) in range.enumerate() {
            let weight = pool.weight(i, count, skipped);
            if weight != 0.0 {
                shares.push(Share { token: token as u32, sequence: sequence as u32, weight });
            }
        }
    }
    sum_by_sequence(x, shares, pool.sequences())
}

/// What a token counts in the vector of its sequence.
pub struct Share {
    pub token: u32,
    pub sequence: u32,
    pub weight: f64,
}

/// The weighted sums of tokens, each in one sequence at most; zeros for a sequence without any.
///
/// # Shapes
/// `x` `[tokens, width]`; the result is `[sequences, width]`.
pub fn sum_by_sequence(x: &Tensor, shares: Vec<Share>, sequences: usize) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let sums = Tensor::zeros((sequences, width), x.dtype(), x.device())?;
    if shares.is_empty() {
        return Ok(sums);
    }
    let used = if shares.len() == tokens && shares.iter().zip(0u32..).all(|(share, i)| share.token == i) {
        x.clone()
    } else {
        Selection::new(shares.iter().map(|share| share.token).collect(), tokens, x.device())?.of(x)?
    };
    let weights: Vec<f64> = shares.iter().map(|share| share.weight).collect();
    let weighted = used.broadcast_mul(&column(&weights, x.dtype(), x.device())?)?;
    let places: Vec<u32> = shares.iter().map(|share| share.sequence).collect();
    sums.index_add(&Tensor::from_vec(places, shares.len(), x.device())?, &weighted, 0)
}

/// The largest value of each dimension; the gradient goes to the first token that has it.
fn largest(x: &Tensor, pool: &Pool) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let sequences = pool.sequences();
    let ranges: Vec<_> = (0..sequences).map(|sequence| pool.range(sequence).0).collect();
    let longest = ranges.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    if longest == 0 {
        return Tensor::zeros((sequences, width), x.dtype(), x.device());
    }
    let mut ids = vec![PAD; sequences * longest];
    for (ids, range) in ids.chunks_mut(longest).zip(&ranges) {
        for (id, token) in ids.iter_mut().zip(range.clone()) {
            *id = token as u32;
        }
    }
    let padding: Vec<u8> = ids.iter().map(|id| u8::from(*id == PAD)).collect();
    let empty: Vec<u8> = ranges.iter().map(|range| u8::from(range.is_empty())).collect();
    let padded = Selection::new(ids, tokens, x.device())?.of(x)?.reshape((sequences, longest, width))?;
    let padding = Tensor::from_vec(padding, (sequences, longest, 1), x.device())?;
    let padding = padding.broadcast_as(padded.shape())?.contiguous()?;
    let padded = padding.where_cond(&filled(&padded, f64::NEG_INFINITY)?, &padded)?;
    let winners = padded.detach().argmax_keepdim(1)?.contiguous()?; // [sequences, 1, width]
    let y = padded.gather(&winners, 1)?.squeeze(1)?;
    let empty = Tensor::from_vec(empty, (sequences, 1), x.device())?.broadcast_as(y.shape())?.contiguous()?;
    empty.where_cond(&filled(&y, 0.0)?, &y)
}
