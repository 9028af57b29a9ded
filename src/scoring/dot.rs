//! Dot products.

use candle_core::{D, Result, Tensor};

/// `a b^T`: `[n, dim]` and `[m, dim]` to `[n, m]`.
pub fn matrix(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    crate::ops::dot_products(a, b)
}

/// The dot product of each pair of rows: two `[n, dim]` to `[n]`.
pub fn pairwise(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.mul(b)?.sum(D::Minus1)
}
