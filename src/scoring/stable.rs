//! Small differentiable functions that stay finite where candle's own give NaN or another subgradient than torch.

use candle_core::{D, Result, Tensor};

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

/// `log(sum(exp(x)))` over the last dimension: `[..., m]` to `[...]`.
///
/// The maximum is taken out before the exponential. Entries of `-inf` take no part and get gradient 0; a row of
/// nothing else gives `-inf` with gradient 0, as `torch.logsumexp`.
pub fn logsumexp(x: &Tensor) -> Result<Tensor> {
    let max = x.detach().max_keepdim(D::Minus1)?; // [..., 1]
    let shift = max.gt(f64::NEG_INFINITY)?.where_cond(&max, &max.zeros_like()?)?;
    let sum = x.broadcast_sub(&shift)?.exp()?.sum(D::Minus1)?; // [...]
    let none = sum.eq(0.0)?;
    let log = masked_fill(&sum, &none, 1.0)?.log()?;
    masked_fill(&log.add(&shift.squeeze(D::Minus1)?)?, &none, f64::NEG_INFINITY)
}

/// `x` with `value` where `mask` (of the same shape, 1 for true) is set; gradient 0 there.
pub fn masked_fill(x: &Tensor, mask: &Tensor, value: f64) -> Result<Tensor> {
    mask.where_cond(&fill(x, value)?, x)
}

/// A constant of the shape, type and device of `x`.
pub fn fill(x: &Tensor, value: f64) -> Result<Tensor> {
    Tensor::full(value, (), x.device())?.to_dtype(x.dtype())?.broadcast_as(x.shape())?.contiguous()
}
