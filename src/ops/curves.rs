//! Activation functions that few models use, value and slope: plain loops, no vector instructions.

use super::activation::Activation;
use super::real::Real;

/// SELU's constants (Klambauer et al., 2017).
pub const SELU: (f64, f64) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);

fn sigmoid<T: Real>(x: T) -> T {
    let small = (-x.abs()).exp();
    let large = T::ONE / (T::ONE + small);
    if x < T::ZERO { small * large } else { large }
}

/// `ln(1 + eˣ)` without overflow.
fn softplus<T: Real>(x: T) -> T {
    x.maximum(T::ZERO) + (T::ONE + (-x.abs()).exp()).ln()
}

fn step<T: Real>(on: bool) -> T {
    if on { T::ONE } else { T::ZERO }
}

/// `activation(x)`.
pub fn value<T: Real>(activation: Activation, x: T) -> T {
    let positive = x > T::ZERO;
    let clip = |low: f64, high: f64| {
        if x < T::of(low) {
            T::of(low)
        } else if x > T::of(high) {
            T::of(high)
        } else {
            x
        }
    };
    match activation {
        Activation::Elu if positive => x,
        Activation::Elu => x.exp() - T::ONE,
        Activation::Selu if positive => x * T::of(SELU.0),
        Activation::Selu => T::of(SELU.0 * SELU.1) * (x.exp() - T::ONE),
        Activation::LeakyRelu if positive => x,
        Activation::LeakyRelu => x * T::of(0.01),
        Activation::Relu6 => clip(0.0, 6.0),
        // torch's threshold
        Activation::Softplus if x > T::of(20.0) => x,
        Activation::Softplus => softplus(x),
        Activation::Softsign => x / (T::ONE + x.abs()),
        Activation::Mish => x * softplus(x).tanh(),
        Activation::Hardtanh => clip(-1.0, 1.0),
        Activation::Hardsigmoid | Activation::Hardswish => {
            let gate = if x <= T::of(-3.0) {
                T::ZERO
            } else if x >= T::of(3.0) {
                T::ONE
            } else {
                (x + T::of(3.0)) / T::of(6.0)
            };
            if activation == Activation::Hardswish { x * gate } else { gate }
        }
        Activation::LogSigmoid => -softplus(-x),
        Activation::Tanhshrink => x - x.tanh(),
        Activation::Softshrink if x > T::of(0.5) => x - T::of(0.5),
        Activation::Softshrink if x < T::of(-0.5) => x + T::of(0.5),
        Activation::Hardshrink if x > T::of(0.5) || x < T::of(-0.5) => x,
        Activation::Softshrink | Activation::Hardshrink => T::ZERO,
        // these have kernels
        Activation::Gelu | Activation::GeluTanh | Activation::Silu | Activation::Tanh => x,
        Activation::Relu | Activation::Sigmoid | Activation::Identity => x,
    }
}

/// The derivative of one of the rare activations at `x`; where there is none, what torch takes.
pub fn slope<T: Real>(activation: Activation, x: T) -> T {
    let positive = x > T::ZERO;
    match activation {
        Activation::Elu if positive => T::ONE,
        Activation::Elu => x.exp(),
        Activation::Selu if positive => T::of(SELU.0),
        Activation::Selu => T::of(SELU.0 * SELU.1) * x.exp(),
        Activation::LeakyRelu => T::of(if positive { 1.0 } else { 0.01 }),
        Activation::Relu6 => step(positive && x < T::of(6.0)),
        Activation::Softplus if x > T::of(20.0) => T::ONE,
        Activation::Softplus => sigmoid(x),
        Activation::Softsign => {
            let d = T::ONE + x.abs();
            T::ONE / (d * d)
        }
        Activation::Mish => {
            let t = softplus(x).tanh();
            t + x * (T::ONE - t * t) * sigmoid(x)
        }
        Activation::Hardtanh => step(x > T::of(-1.0) && x < T::ONE),
        Activation::Hardsigmoid => step::<T>(x > T::of(-3.0) && x < T::of(3.0)) / T::of(6.0),
        Activation::Hardswish if x <= T::of(-3.0) => T::ZERO,
        Activation::Hardswish if x >= T::of(3.0) => T::ONE,
        Activation::Hardswish => x / T::of(3.0) + T::of(0.5),
        Activation::LogSigmoid => sigmoid(-x),
        Activation::Tanhshrink => x.tanh() * x.tanh(),
        Activation::Softshrink | Activation::Hardshrink => step(x > T::of(0.5) || x < T::of(-0.5)),
        Activation::Gelu | Activation::GeluTanh | Activation::Silu | Activation::Tanh => T::ONE,
        Activation::Relu | Activation::Sigmoid | Activation::Identity => T::ONE,
    }
}
