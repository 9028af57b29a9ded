//! Attention whose scores know distances, of sequences that are padded on the way.

use candle_core::{Device, Result, Tensor};

use super::attention::{Padding, softmax};
use super::dropout::attention_mask;
use crate::ops::context::Dropout;
use crate::ops::disentangled::Disentangled;

pub fn disentangled_attention(
    qkv: &Tensor,
    positions: &Tensor,
    offsets: &[u32],
    heads: usize,
    distances: &Disentangled,
    dropout: Dropout,
) -> Result<Tensor> {
    let (tokens, width) = (qkv.dim(0)?, qkv.dim(1)? / 3);
    let part = |i: usize| qkv.narrow(1, i * width, width)?.contiguous();
    if tokens == 0 {
        return part(2);
    }
    let (dtype, device) = (qkv.dtype(), qkv.device());
    let padding = Padding::new((offsets, &[]), device)?;
    let longest = padding.longest;
    let (q, k) = (padding.split(&part(0)?, heads)?, padding.split(&part(1)?, heads)?);
    let mut scores = q.matmul(&k.t()?)?; // [sequences, heads, longest, longest]
    let all = scores.dims4()?;
    // the rows of a term, [1, heads, rows, head_dim]
    let rows_of = |term: usize| -> Result<Tensor> {
        let rows = positions.narrow(1, term * width, width)?.reshape(((), heads, width / heads))?;
        rows.transpose(0, 1)?.contiguous()?.unsqueeze(0)
    };
    let rows = Tensor::from_vec(distances.square(longest), (longest, longest), &Device::Cpu)?.to_device(device)?;
    let rows = rows.broadcast_as(all)?.contiguous()?;
    if distances.content_to_position {
        let by_query = q.broadcast_matmul(&rows_of(0)?.t()?)?; // [sequences, heads, longest, rows]
        scores = scores.add(&by_query.gather(&rows, 3)?)?;
    }
    if distances.position_to_content {
        let term = usize::from(distances.content_to_position);
        let by_key = rows_of(term)?.broadcast_matmul(&k.t()?)?; // [sequences, heads, rows, longest]
        scores = scores.add(&by_key.gather(&rows, 2)?)?;
    }
    let scores = scores.affine(distances.scale(width / heads), 0.0)?;
    let mut probabilities = softmax(&scores.broadcast_add(&padding.bias(dtype, device)?)?)?;
    if dropout.active() {
        let mask = attention_mask(dropout, &padding.lengths, heads, longest, dtype, device)?;
        probabilities = probabilities.mul(&mask)?;
    }
    padding.join(&probabilities.matmul(&padding.split(&part(2)?, heads)?)?)
}
