//! Attention whose queries and keys are turned by their places.

use candle_core::{Device, Result, Tensor};

use super::attention;
use crate::ops::attention::Attended;
use crate::ops::context::Dropout;
use crate::ops::rotary::{Rotary, places};
use crate::ops::sight::Sight;

pub fn rotary_attention(
    qkv: &Tensor,
    offsets: Attended<'_>,
    heads: usize,
    rotary: &Rotary,
    sight: Sight,
    dropout: Dropout,
) -> Result<Tensor> {
    let (tokens, width, half) = (qkv.dim(0)?, qkv.dim(1)? / 3, rotary.half);
    let places = places(offsets.0);
    let table = |all: &[f64]| -> Result<Tensor> {
        // narrowed on the host: not every device knows f64
        let rows: Vec<f64> = places.iter().flat_map(|place| &all[*place as usize * half..][..half]).copied().collect();
        Tensor::from_vec(rows, (tokens, 1, half), &Device::Cpu)?.to_dtype(qkv.dtype())?.to_device(qkv.device())
    };
    let (cos, sin) = (table(&rotary.cos)?, table(&rotary.sin)?); // [tokens, 1, half]
    let turned = |x: Tensor| -> Result<Tensor> {
        let x = x.reshape((tokens, heads, 2 * half))?;
        let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let first = a.broadcast_mul(&cos)?.sub(&b.broadcast_mul(&sin)?)?;
        let second = b.broadcast_mul(&cos)?.add(&a.broadcast_mul(&sin)?)?;
        Tensor::cat(&[first, second], 2)?.reshape((tokens, width))
    };
    let part = |i: usize| qkv.narrow(1, i * width, width)?.contiguous();
    attention(&turned(part(0)?)?, &turned(part(1)?)?, &part(2)?, offsets, heads, dropout, (sight, None))
}
