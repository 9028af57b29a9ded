//! From token embeddings to one vector a sequence, over packed tokens.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::composed;
use super::kernel::{self, Shared, by_dtype, simd_fn};
use super::real::Real;

/// How the tokens of a sequence become one vector, by sentence-transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolingMode {
    /// The first token.
    Cls,
    /// The largest value of each dimension.
    Max,
    /// The mean.
    Mean,
    /// The sum divided by the square root of the number of tokens.
    #[serde(rename = "mean_sqrt_len_tokens")]
    MeanSqrtLenTokens,
    /// The mean weighted by position (1, 2, 3, ...), as SGPT does.
    WeightedMean,
    /// The last token.
    LastToken,
}

/// Pools each sequence's tokens, leaving out the first `skip[i]` of sequence `i` (its prompt).
///
/// A sequence of which nothing is left gives zeros.
///
/// # Shapes
/// `x` `[tokens, width]`, `offsets` `[sequences + 1]`, `skip` `[sequences]` or empty; the result is
/// `[sequences, width]`.
///
/// # Errors
/// When offsets or shapes do not fit.
pub fn pool(x: &Tensor, offsets: &Arc<Vec<u32>>, skip: &Arc<Vec<u32>>, mode: PoolingMode) -> Result<Tensor> {
    let &[tokens, width] = x.dims() else {
        bail!("pooling: expected [tokens, width], got {:?}", x.dims());
    };
    kernel::check_offsets("pooling", offsets, tokens)?;
    if !skip.is_empty() && skip.len() + 1 != offsets.len() {
        bail!("pooling: {} prompt lengths for {} sequences", skip.len(), offsets.len() - 1);
    }
    let op = Pool { offsets: Arc::clone(offsets), skip: Arc::clone(skip), mode, width };
    if composed::wanted(x) {
        return composed::pool(x, &op);
    }
    x.contiguous()?.apply_op1(op)
}

pub(super) struct Pool {
    offsets: Arc<Vec<u32>>,
    skip: Arc<Vec<u32>>,
    pub(super) mode: PoolingMode,
    width: usize,
}

simd_fn! {
    fn add_scaled<T>(target: &mut [T], values: &[T], scale: T) {
        for (a, b) in target.iter_mut().zip(values) {
            *a += *b * scale;
        }
    }
}

impl Pool {
    pub(super) fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The pooled tokens of a sequence, and how many were skipped before them.
    pub(super) fn range(&self, sequence: usize) -> (std::ops::Range<usize>, usize) {
        let (start, end) = (self.offsets[sequence] as usize, self.offsets[sequence + 1] as usize);
        let skip = self.skip.get(sequence).map_or(0, |s| *s as usize).min(end - start);
        (start + skip..end, skip)
    }

    /// What the `i`-th pooled token of `count` counts, when the pooling is linear.
    pub(super) fn weight(&self, i: usize, count: usize, skipped: usize) -> f64 {
        let n = count as f64;
        match self.mode {
            PoolingMode::Cls => f64::from(u8::from(i == 0)),
            PoolingMode::LastToken => f64::from(u8::from(i + 1 == count)),
            PoolingMode::Mean => 1.0 / n,
            PoolingMode::MeanSqrtLenTokens => 1.0 / n.sqrt(),
            PoolingMode::WeightedMean => {
                let (first, last) = (skipped as f64 + 1.0, (skipped + count) as f64);
                (skipped + i + 1) as f64 / ((first + last) * n / 2.0)
            }
            PoolingMode::Max => 0.0,
        }
    }

    fn forward<T: Real>(&self, x: &[T]) -> Vec<T> {
        let width = self.width;
        let mut out = kernel::zeros::<T>((self.offsets.len() - 1) * width);
        out.par_chunks_mut(width.max(1)).enumerate().for_each(|(sequence, y)| {
            let (range, skipped) = self.range(sequence);
            let count = range.len();
            for (i, token) in range.enumerate() {
                let row = &x[token * width..(token + 1) * width];
                if self.mode == PoolingMode::Max {
                    if i == 0 {
                        y.copy_from_slice(row);
                    } else {
                        // NaN is passed on, not lost
                        y.iter_mut().zip(row).for_each(|(y, x)| {
                            if *x > *y || x.is_nan() {
                                *y = *x;
                            }
                        });
                    }
                } else {
                    let weight = self.weight(i, count, skipped);
                    if weight != 0.0 {
                        add_scaled(y, row, T::of(weight));
                    }
                }
            }
        });
        out
    }

    fn backward<T: Real>(&self, x: &[T], y: &[T], dy: &[T]) -> Vec<T> {
        let width = self.width;
        let mut dx = kernel::zeros::<T>(x.len());
        let target = Shared::new(&mut dx);
        (0..self.offsets.len() - 1).into_par_iter().for_each(|sequence| {
            let (range, skipped) = self.range(sequence);
            let count = range.len();
            let pooled = sequence * width..(sequence + 1) * width;
            let (y, dy) = (&y[pooled.clone()], &dy[pooled]);
            // SAFETY: sequences do not overlap.
            let dx = unsafe { target.range(range.start * width, count * width) };
            if self.mode == PoolingMode::Max {
                // The gradient goes to the first token that reached the maximum, as in torch.
                for column in 0..width {
                    let winner = range.clone().position(|token| x[token * width + column] >= y[column]);
                    if let Some(i) = winner {
                        dx[i * width + column] = dy[column];
                    }
                }
                return;
            }
            for (i, dx) in dx.chunks_exact_mut(width.max(1)).enumerate() {
                let weight = self.weight(i, count, skipped);
                if weight != 0.0 {
                    add_scaled(dx, dy, T::of(weight));
                }
            }
        });
        dx
    }
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "pooling"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(storage), "pooling", T => {
            let y = self.forward::<T>(kernel::slice(storage, layout)?);
            let shape = Shape::from((self.offsets.len() - 1, self.width));
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), shape))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), "pooling", T => {
            let dx = kernel::read::<T, _>(x, |x| {
                kernel::read::<T, _>(y, |y| kernel::read::<T, _>(&dy, |dy| self.backward(x, y, dy)))
            })???;
            kernel::tensor(dx, x.dims().to_vec()).map(Some)
        })
    }
}
