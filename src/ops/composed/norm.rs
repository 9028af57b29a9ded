//! Layer normalisation and L2 normalisation.

use candle_core::{D, Result, Tensor};

use super::{dropout, filled, value};
use crate::ops::context::Dropout;
use crate::ops::param::Param;

pub fn layer_norm(x: &Tensor, weight: &Param, bias: &Param, eps: f64) -> Result<Tensor> {
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let scale = centered.sqr()?.mean_keepdim(D::Minus1)?.affine(1.0, eps)?.sqrt()?.recip()?;
    centered.broadcast_mul(&scale)?.broadcast_mul(&value(weight, x))?.broadcast_add(&value(bias, x))
}

pub fn rms_norm(x: &Tensor, weight: &Param, shift: f64, eps: f64) -> Result<Tensor> {
    let (width, dims) = (weight.elements(), x.dims().to_vec());
    let x = x.reshape((x.elem_count() / width, width))?;
    let scale = x.sqr()?.mean_keepdim(D::Minus1)?.affine(1.0, eps)?.sqrt()?.recip()?;
    x.broadcast_mul(&scale)?.broadcast_mul(&value(weight, &x).affine(1.0, shift)?)?.reshape(dims)
}

pub fn residual_layer_norm(
    x: &Tensor,
    residual: &Tensor,
    drop: Dropout,
    weight: &Param,
    bias: &Param,
    eps: f64,
) -> Result<Tensor> {
    layer_norm(&dropout(x, drop)?.add(residual)?, weight, bias, eps)
}

pub fn l2_normalize(x: &Tensor, eps: f64) -> Result<Tensor> {
    let square = x.sqr()?.sum_keepdim(D::Minus1)?;
    // `eps` and no gradient where a row is short: the root of 0 has none
    let short = square.detach().sqrt()?.le(eps)?;
    let norm = short.where_cond(&filled(&square, 1.0)?, &square)?.sqrt()?;
    let norm = short.where_cond(&filled(&square, eps)?, &norm)?;
    x.broadcast_mul(&norm.recip()?)
}
