//! Log-sum-exp and softmax cross-entropy that do not overflow and whose gradients are never NaN.

use candle_core::{D, Result, Tensor};

use super::filled;

pub fn logsumexp(x: &Tensor) -> Result<Tensor> {
    let Some((width, rest)) = x.dims().split_last() else {
        candle_core::bail!("expected at least one dimension");
    };
    if *width == 0 {
        return Tensor::zeros(rest, x.dtype(), x.device())?.affine(1.0, f64::NEG_INFINITY);
    }
    let x = x.contiguous()?;
    let top = x.detach().max_keepdim(D::Minus1)?; // [..., 1]
    // a row of minus infinity only, or with infinity or NaN: its value is its sum, and it gets no gradient
    let finite = top.abs()?.lt(f64::INFINITY)?;
    let shift = finite.where_cond(&top, &filled(&top, 0.0)?)?;
    let used = finite.broadcast_as(x.shape())?.contiguous()?.where_cond(&x, &filled(&x, 0.0)?)?;
    let total = used.broadcast_sub(&shift)?.exp()?.sum_keepdim(D::Minus1)?.log()?.add(&shift)?;
    finite.where_cond(&total, &x.detach().sum_keepdim(D::Minus1)?)?.squeeze(D::Minus1)
}

pub fn cross_entropy(x: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let x = x.contiguous()?;
    let targets = Tensor::from_slice(targets, (targets.len(), 1), x.device())?;
    let chosen = x.gather(&targets, 1)?.squeeze(1)?; // [rows]
    logsumexp(&x)?.sub(&chosen)?.mean_all()
}
