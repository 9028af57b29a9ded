//! Small differentiable functions that stay finite where candle's own give NaN or another subgradient than torch.
//!
//! Log-sum-exp, softmax cross-entropy and L2 normalisation are in [`ops`](crate::ops).

use candle_core::{Result, Tensor};

/// Square root with gradient 0 where the argument is not positive (candle's is `inf`, and NaN after a product).
pub fn sqrt(x: &Tensor) -> Result<Tensor> {
    // Asked this way round, NaN stays NaN.
    let flat = x.le(0.0)?;
    let root = masked_fill(x, &flat, 1.0)?.sqrt()?;
    masked_fill(&root, &flat, 0.0)
}

/// Absolute value with gradient 0 at 0, as torch (candle's is 1 there).
pub fn abs(x: &Tensor) -> Result<Tensor> {
    x.mul(&x.sign()?.detach())
}

/// `max(x, 0)` with gradient 0 at 0, as torch (candle's is 1 there).
pub fn relu(x: &Tensor) -> Result<Tensor> {
    x.mul(&x.gt(0.0)?.to_dtype(x.dtype())?)
}

/// `x` with `value` where `mask` (of the same shape, 1 for true) is set; gradient 0 there.
pub fn masked_fill(x: &Tensor, mask: &Tensor, value: f64) -> Result<Tensor> {
    mask.where_cond(&fill(x, value)?, x)
}

/// A constant of the shape, type and device of `x`.
pub fn fill(x: &Tensor, value: f64) -> Result<Tensor> {
    // not from an f64, which not every device knows
    x.zeros_like()?.affine(1.0, value)
}
