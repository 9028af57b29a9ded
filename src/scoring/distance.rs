//! Euclidean and Manhattan distances, with torch's subgradient 0 where a distance is 0.

use candle_core::{D, Result, Tensor};

use super::stable;

/// Up to this many rows on both sides torch's `cdist` subtracts row by row; above, it expands the square.
const EXPAND_ABOVE: usize = 25;

/// L2 distance of each pair of rows: two `[n, dim]` to `[n]`.
pub fn euclidean_pairwise(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    stable::sqrt(&a.sub(b)?.sqr()?.sum(D::Minus1)?)
}

/// L1 distance of each pair of rows: two `[n, dim]` to `[n]`.
pub fn manhattan_pairwise(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    stable::abs(&a.sub(b)?)?.sum(D::Minus1)
}

/// L2 distances of all rows: `[n, dim]` and `[m, dim]` to `[n, m]`.
///
/// For more than 25 rows on a side it is `sqrt(|a|^2 - 2ab + |b|^2)` by a matrix product, as in torch, which in f32
/// loses the last digits of distances that are small beside the norms.
pub fn euclidean_matrix(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dim(0)? <= EXPAND_ABOVE && b.dim(0)? <= EXPAND_ABOVE {
        return stable::sqrt(&differences(a, b)?.sqr()?.sum(D::Minus1)?);
    }
    let a_square = a.sqr()?.sum_keepdim(D::Minus1)?; // [n, 1]
    let b_square = b.sqr()?.sum_keepdim(D::Minus1)?.t()?; // [1, m]
    let product = super::dot::matrix(a, b)?.affine(-2.0, 0.0)?; // [n, m]
    let square = product.broadcast_add(&a_square)?.broadcast_add(&b_square)?;
    // Rounding can make a small square negative; `stable::sqrt` gives those 0.
    stable::sqrt(&square)
}

/// L1 distances of all rows: `[n, dim]` and `[m, dim]` to `[n, m]`, through a tensor of `[n, m, dim]`.
pub fn manhattan_matrix(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    stable::abs(&differences(a, b)?)?.sum(D::Minus1)
}

fn differences(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.unsqueeze(1)?.broadcast_sub(&b.unsqueeze(0)?) // [n, m, dim]
}
