//! Multi-head attention over packed sequences, padded on the way.

use candle_core::{D, DType, Device, Result, Tensor};

use super::dropout::attention_mask;
use super::select::{PAD, Selection};
use super::value;
use crate::ops::attention::Attended;
use crate::ops::context::Dropout;
use crate::ops::relative::Relative;
use crate::ops::sight::Sight;

/// Sequences that are not empty, side by side and padded to the longest.
pub(super) struct Padding {
    pub(super) lengths: Vec<usize>,
    /// `[sequences]`: the leading tokens that are looked at.
    attended: Vec<usize>,
    pub(super) longest: usize,
    selection: Selection,
}

impl Padding {
    pub(super) fn new((offsets, attended): Attended<'_>, device: &Device) -> Result<Self> {
        let sequences = || offsets.windows(2).filter(|w| w[1] > w[0]);
        let looked_at = |(i, w): (usize, &[u32])| {
            let length = (w[1] - w[0]) as usize;
            (length > 0).then(|| attended.get(i).map_or(length, |leading| (*leading as usize).clamp(1, length)))
        };
        let attended = offsets.windows(2).enumerate().filter_map(looked_at).collect();
        let lengths: Vec<usize> = sequences().map(|w| (w[1] - w[0]) as usize).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut ids = vec![PAD; lengths.len() * longest];
        for (ids, w) in ids.chunks_mut(longest.max(1)).zip(sequences()) {
            for (id, token) in ids.iter_mut().zip(w[0]..w[1]) {
                *id = token;
            }
        }
        let tokens = lengths.iter().sum();
        Ok(Self { selection: Selection::new(ids, tokens, device)?, lengths, attended, longest })
    }

    /// `[tokens, heads * head_dim]` to `[sequences, heads, longest, head_dim]`.
    pub(super) fn split(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let shape = (self.lengths.len(), self.longest, heads, x.dim(1)? / heads);
        self.selection.of(x)?.reshape(shape)?.transpose(1, 2)?.contiguous()
    }

    /// The way back.
    pub(super) fn join(&self, x: &Tensor) -> Result<Tensor> {
        let (sequences, heads, longest, head_dim) = x.dims4()?;
        let rows = x.transpose(1, 2)?.reshape((sequences * longest, heads * head_dim))?;
        self.selection.inverse().of(&rows)
    }

    /// `[sequences, 1, longest, 1]`: 1 for queries that see an attended key, else 0.
    fn reach(&self, sight: Sight, dtype: DType, device: &Device) -> Result<Tensor> {
        let sees =
            |(place, attended): (usize, &usize)| f32::from(u8::from(sight.of(place, self.longest).start < *attended));
        let all = self.attended.iter().flat_map(|attended| (0..self.longest).map(move |place| sees((place, attended))));
        let all: Vec<f32> = all.collect();
        Tensor::from_vec(all, (self.attended.len(), 1, self.longest, 1), device)?.to_dtype(dtype)
    }

    /// Added to scores, `[sequences, 1, 1, longest]`: minus infinity for keys that are not looked at, or padding.
    pub(super) fn bias(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut bias = vec![0f32; self.lengths.len() * self.longest];
        for (bias, attended) in bias.chunks_mut(self.longest).zip(&self.attended) {
            bias[*attended..].fill(f32::NEG_INFINITY);
        }
        Tensor::from_vec(bias, (self.lengths.len(), 1, 1, self.longest), device)?.to_dtype(dtype)
    }
}

pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    offsets: Attended<'_>,
    heads: usize,
    dropout: Dropout,
    (sight, relative): (Sight, Option<&Relative>),
) -> Result<Tensor> {
    let (tokens, width) = q.dims2()?;
    if tokens == 0 {
        return Ok(v.clone());
    }
    let (dtype, device) = (q.dtype(), q.device());
    let padding = Padding::new(offsets, device)?;
    let (longest, head_dim) = (padding.longest, width / heads);
    let split = |x: &Tensor| padding.split(x, heads);
    let scores = split(q)?.matmul(&split(k)?.t()?)?.affine(1.0 / (head_dim as f64).sqrt(), 0.0)?;
    let mut scores = scores.broadcast_add(&padding.bias(dtype, device)?)?;
    if let Some(relative) = relative {
        scores = scores.broadcast_add(&relative.tensor(&value(relative.table(), q), longest)?)?;
    }
    if sight != Sight::All {
        scores = scores.broadcast_add(&unseen(sight, longest, dtype, device)?)?;
    }
    let mut probabilities = softmax(&scores)?;
    if sight.is_window() && !offsets.1.is_empty() {
        // who is near to nothing that is attended sees nothing
        probabilities = probabilities.broadcast_mul(&padding.reach(sight, dtype, device)?)?;
    }
    if dropout.active() {
        let mask = attention_mask(dropout, &padding.lengths, heads, longest, dtype, device)?;
        probabilities = probabilities.mul(&mask)?;
    }
    padding.join(&probabilities.matmul(&split(v)?)?)
}

/// Added to scores, `[1, 1, longest, longest]`: so little that nothing is left of keys that a query does not see. Not
/// minus infinity: a query that is padding may see nothing but padding, and would get what is not a number.
fn unseen(sight: Sight, longest: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let little = if dtype == DType::F16 { -3e4 } else { -1e30 };
    let mut bias = vec![little; longest * longest];
    for (i, row) in bias.chunks_mut(longest).enumerate() {
        row[sight.of(i, longest)].fill(0f32);
    }
    Tensor::from_vec(bias, (1, 1, longest, longest), device)?.to_dtype(dtype)
}

/// Softmax over the last dimension; every row has a finite entry.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    let powers = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?.exp()?;
    powers.broadcast_mul(&powers.sum_keepdim(D::Minus1)?.recip()?)
}
