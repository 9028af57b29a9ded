//! Element-wise activations.

use candle_core::{Result, Tensor};

use super::filled;
use crate::ops::Activation;
use crate::ops::curves::SELU;

pub fn activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        // candle's own `gelu_erf` has a gradient of six digits
        Activation::Gelu => {
            let phi = x.affine(std::f64::consts::FRAC_1_SQRT_2, 0.0)?.erf()?.affine(0.5, 0.5)?;
            x.mul(&phi)
        }
        Activation::GeluTanh => {
            let inner = x.add(&x.sqr()?.mul(x)?.affine(0.044_715, 0.0)?)?.affine(0.797_884_560_802_865_4, 0.0)?;
            x.mul(&inner.tanh()?.affine(0.5, 0.5)?)
        }
        Activation::Tanh => x.tanh(),
        // candle's own has gradient 1 at 0
        Activation::Relu => x.le(0.0)?.where_cond(&filled(x, 0.0)?, x),
        // by tanh, whose gradient does not overflow
        Activation::Sigmoid => x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5),
        Activation::Identity => Ok(x.clone()),
        Activation::Silu => x.mul(&sigmoid(x)?),
        Activation::Elu => exponential_below(x, 1.0, 1.0),
        Activation::Selu => exponential_below(x, SELU.0, SELU.0 * SELU.1),
        Activation::LeakyRelu => pick(&x.gt(0.0)?, x, &x.affine(0.01, 0.0)?),
        Activation::Relu6 => clip(x, 0.0, 6.0),
        // torch's threshold
        Activation::Softplus => pick(&x.gt(20.0)?, x, &softplus(x)?),
        Activation::Softsign => x.div(&magnitude(x)?.affine(1.0, 1.0)?),
        Activation::Mish => x.mul(&softplus(x)?.tanh()?),
        Activation::Hardtanh => clip(x, -1.0, 1.0),
        Activation::Hardsigmoid => hard_sigmoid(x),
        Activation::Hardswish => x.mul(&hard_sigmoid(x)?),
        Activation::LogSigmoid => softplus(&x.neg()?)?.neg(),
        Activation::Tanhshrink => x.sub(&x.tanh()?),
        Activation::Softshrink => {
            let near = pick(&x.lt(-0.5)?, &x.affine(1.0, 0.5)?, &filled(x, 0.0)?)?;
            pick(&x.gt(0.5)?, &x.affine(1.0, -0.5)?, &near)
        }
        Activation::Hardshrink => pick(&magnitude(x)?.gt(0.5)?, x, &filled(x, 0.0)?),
    }
}

/// Values of `a` where the mask is set, of `b` elsewhere; gradients likewise.
fn pick(mask: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    mask.where_cond(a, b)
}

fn clip(x: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    let above = pick(&x.le(low)?, &filled(x, low)?, x)?;
    pick(&x.ge(high)?, &filled(x, high)?, &above)
}

/// Where the other branch would overflow, its argument is 0: a gradient of 0 times infinity is not a number.
fn exponential_below(x: &Tensor, above: f64, below: f64) -> Result<Tensor> {
    let positive = x.gt(0.0)?;
    let negative = pick(&positive, &filled(x, 0.0)?, x)?;
    pick(&positive, &x.affine(above, 0.0)?, &negative.exp()?.affine(below, -below)?)
}

/// By tanh, whose gradient does not overflow.
fn sigmoid(x: &Tensor) -> Result<Tensor> {
    x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)
}

fn magnitude(x: &Tensor) -> Result<Tensor> {
    pick(&x.lt(0.0)?, &x.neg()?, x)
}

/// `max(x, 0) + ln(1 + e^-|x|)`, the gradients of whose two halves add up to the sigmoid.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let positive = pick(&x.lt(0.0)?, &filled(x, 0.0)?, x)?;
    positive.add(&magnitude(x)?.neg()?.exp()?.affine(1.0, 1.0)?.log()?)
}

fn hard_sigmoid(x: &Tensor) -> Result<Tensor> {
    let middle = x.affine(1.0 / 6.0, 0.5)?;
    let above = pick(&x.le(-3.0)?, &filled(x, 0.0)?, &middle)?;
    pick(&x.ge(3.0)?, &filled(x, 1.0)?, &above)
}
