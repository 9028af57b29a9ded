//! Cosine similarity and the normalisation it rests on.

use candle_core::{Result, Tensor};

use super::dot;
use crate::ops::{l2_normalize, l2_normalize_prefix};

/// The eps of `torch.nn.functional.normalize`, which `cos_sim` and `pairwise_cos_sim` call.
pub const NORMALIZE_EPS: f64 = 1e-12;

/// The eps of `torch.cosine_similarity`, which CosineSimilarityLoss calls.
pub const COSINE_SIMILARITY_EPS: f64 = 1e-8;

/// Each row divided by the larger of its L2 norm and `eps`: `[n, dim]` to `[n, dim]`.
///
/// Below `eps` the divisor is a constant, so the gradient of a row of zeros is that of a division by `eps`, as in
/// torch: finite, and large.
pub fn normalize(x: &Tensor, eps: f64) -> Result<Tensor> {
    l2_normalize(x, eps)
}

/// [`normalize`] of each row cut to its first `keep` values: `[n, dim]` to `[n, keep]`.
pub fn normalize_prefix(x: &Tensor, keep: usize, eps: f64) -> Result<Tensor> {
    l2_normalize_prefix(x, keep, eps)
}

/// The cosine of each pair of rows: two `[n, dim]` to `[n]`.
pub fn pairwise(a: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    dot::pairwise(&normalize(a, eps)?, &normalize(b, eps)?)
}
