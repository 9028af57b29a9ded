//! Fully connected layers and transformer layers.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::{activation, attention, residual_layer_norm, value};
use crate::ops::adapter::Way;
use crate::ops::context::Context;
use crate::ops::encoder::EncoderLayer;
use crate::ops::feed_forward::FeedForward;
use crate::ops::kernel;
use crate::ops::param::Param;
use crate::ops::self_attention::SelfAttention;
use crate::ops::sight::Sight;

pub fn linear(context: &Context, x: &Tensor, weight: &Arc<Param>, bias: Option<&Arc<Param>>) -> Result<Tensor> {
    let (rows, width) = kernel::matrix(x.dims())?;
    let way = Way::of(weight, context)?;
    let weight = value(weight, x);
    let flat = x.reshape((rows, width))?;
    let mut y = flat.matmul(&weight.t()?)?;
    if let Some(way) = way {
        y = y.add(&way.composed(&flat)?)?;
    }
    if let Some(bias) = bias {
        y = y.broadcast_add(&value(bias, x))?;
    }
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = weight.dim(0)?;
    }
    y.reshape(dims)
}

pub fn self_attention(
    context: &Context,
    x: &Tensor,
    offsets: &[u32],
    layer: &SelfAttention<'_>,
    sight: Sight,
) -> Result<Tensor> {
    let project = |(weight, bias): (&Arc<Param>, &Arc<Param>)| linear(context, x, weight, Some(bias));
    let (q, k, v) = (project(layer.query)?, project(layer.key)?, project(layer.value)?);
    let seen = attention(
        &q,
        &k,
        &v,
        (offsets, layer.attended),
        layer.heads,
        layer.probability_dropout,
        (sight, layer.relative),
    )?;
    let y = linear(context, &seen, layer.output.0, Some(layer.output.1))?;
    residual_layer_norm(&y, x, layer.dropout, layer.norm.0, layer.norm.1, layer.eps)
}

pub fn encoder(context: &Context, x: &Tensor, offsets: &[u32], layers: &[EncoderLayer<'_>]) -> Result<Tensor> {
    let mut x = x.clone();
    for layer in layers {
        x = feed_forward(
            context,
            &self_attention(context, &x, offsets, &layer.attention, Sight::All)?,
            &layer.feed_forward,
        )?;
    }
    Ok(x)
}

pub fn feed_forward(context: &Context, x: &Tensor, layer: &FeedForward<'_>) -> Result<Tensor> {
    let inner = activation(&linear(context, x, layer.inner.0, Some(layer.inner.1))?, layer.activation)?;
    let y = linear(context, &inner, layer.outer.0, Some(layer.outer.1))?;
    residual_layer_norm(&y, x, layer.dropout, layer.norm.0, layer.norm.1, layer.eps)
}
