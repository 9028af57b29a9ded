//! Element-wise activations.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::composed;
use super::curves;
use super::kernel::{self, by_dtype, simd_fn};
use super::real::Real;

/// An activation function, by its name in model configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `x Φ(x)`, exact, with erf (not the tanh approximation).
    Gelu,
    /// `x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))) / 2`.
    #[serde(rename = "gelu_pytorch_tanh")]
    GeluTanh,
    /// The hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// The logistic function.
    Sigmoid,
    /// `x σ(x)`.
    Silu,
    /// `x`, below 0 `eˣ - 1`.
    Elu,
    /// ELU with the constants that keep mean and variance.
    Selu,
    /// `x`, below 0 `x / 100`.
    LeakyRelu,
    /// `x` between 0 and 6.
    Relu6,
    /// `ln(1 + eˣ)`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// `x tanh(ln(1 + eˣ))`.
    Mish,
    /// `x` between -1 and 1.
    Hardtanh,
    /// `x` times the hard sigmoid.
    Hardswish,
    /// `(x + 3) / 6` between 0 and 1.
    Hardsigmoid,
    /// `ln σ(x)`.
    LogSigmoid,
    /// `x - tanh(x)`.
    Tanhshrink,
    /// `x` moved towards 0 by a half.
    Softshrink,
    /// `x`, 0 between -1/2 and 1/2.
    Hardshrink,
    /// Nothing.
    Identity,
}

/// Applies an activation to every element.
///
/// # Errors
/// When the element type has no kernel.
pub fn activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if activation == Activation::Identity {
        return Ok(x.clone());
    }
    if composed::wanted(x) {
        return composed::activation(x, activation);
    }
    x.contiguous()?.apply_op1(Apply(activation))
}

struct Apply(Activation);

const CHUNK: usize = 16_384;

simd_fn! {
    fn gelu_forward<T>(x: &[T], y: &mut [T]) {
        let half = T::of(0.5);
        let inverse_sqrt2 = T::of(std::f64::consts::FRAC_1_SQRT_2);
        for (y, x) in y.iter_mut().zip(x) {
            *y = half * *x * (T::ONE + (*x * inverse_sqrt2).erf());
        }
    }
}

simd_fn! {
    fn gelu_backward<T>(x: &[T], dy: &[T], dx: &mut [T]) {
        for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = *dy * gelu_derivative(*x);
        }
    }
}

/// `Φ(x) + x φ(x)`
#[inline(always)]
fn gelu_derivative<T: Real>(x: T) -> T {
    let half = T::of(0.5);
    // 1 / sqrt(2 π)
    let phi = T::of(0.398_942_280_401_432_7) * (-half * x * x).exp();
    half * (T::ONE + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()) + x * phi
}

/// `sqrt(2 / π)`, and the factor of the cube.
const GELU_TANH: (f64, f64) = (0.797_884_560_802_865_4, 0.044_715);

simd_fn! {
    fn gelu_tanh_forward<T>(x: &[T], y: &mut [T]) {
        let (root, cube, half) = (T::of(GELU_TANH.0), T::of(GELU_TANH.1), T::of(0.5));
        for (y, x) in y.iter_mut().zip(x) {
            *y = half * *x * (T::ONE + (root * (*x + cube * *x * *x * *x)).tanh());
        }
    }
}

#[inline(always)]
fn gelu_tanh_derivative<T: Real>(x: T) -> T {
    let (root, cube, half) = (T::of(GELU_TANH.0), T::of(GELU_TANH.1), T::of(0.5));
    let t = (root * (x + cube * x * x * x)).tanh();
    half * (T::ONE + t) + half * x * (T::ONE - t * t) * root * (T::ONE + T::of(3.0) * cube * x * x)
}

simd_fn! {
    fn silu_forward<T>(x: &[T], y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = *x / (T::ONE + (-*x).exp());
        }
    }
}

#[inline(always)]
fn silu_derivative<T: Real>(x: T) -> T {
    let s = T::ONE / (T::ONE + (-x).exp());
    s * (T::ONE + x * (T::ONE - s))
}

simd_fn! {
    fn tanh_forward<T>(x: &[T], y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x.tanh();
        }
    }
}

simd_fn! {
    fn sigmoid_forward<T>(x: &[T], y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = T::ONE / (T::ONE + (-*x).exp());
        }
    }
}

simd_fn! {
    fn relu_forward<T>(x: &[T], y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x.maximum(T::ZERO);
        }
    }
}

simd_fn! {
    /// `dy *= gelu'(x)`
    fn gelu_slope<T>(x: &[T], dy: &mut [T]) {
        for (dy, x) in dy.iter_mut().zip(x) {
            *dy *= gelu_derivative(*x);
        }
    }
}

simd_fn! {
    /// Gradients that are functions of the input: `dy *= derivative(x)`.
    fn from_input<T>(x: &[T], dy: &mut [T], derivative: impl Fn(T) -> T) {
        for (dy, x) in dy.iter_mut().zip(x) {
            *dy *= derivative(*x);
        }
    }
}

simd_fn! {
    /// Gradients that are functions of the result: tanh, relu, sigmoid.
    fn from_result<T>(y: &[T], dy: &[T], dx: &mut [T], derivative: impl Fn(T) -> T) {
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = *dy * derivative(*y);
        }
    }
}

/// `y = activation(x)`, on this thread.
pub(super) fn forward<T: Real>(activation: Activation, x: &[T], y: &mut [T]) {
    match activation {
        Activation::Gelu => gelu_forward(x, y),
        Activation::GeluTanh => gelu_tanh_forward(x, y),
        Activation::Silu => silu_forward(x, y),
        Activation::Tanh => tanh_forward(x, y),
        Activation::Sigmoid => sigmoid_forward(x, y),
        Activation::Relu => relu_forward(x, y),
        Activation::Identity => y.copy_from_slice(x),
        rare => y.iter_mut().zip(x).for_each(|(y, x)| *y = curves::value(rare, *x)),
    }
}

/// `y = activation(x)`, on all threads.
pub(super) fn forward_parallel<T: Real>(activation: Activation, x: &[T], y: &mut [T]) {
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| forward(activation, x, y));
}

/// `dy *= activation'(x)` for activations whose gradient is known from their input alone, on this thread.
pub(super) fn backward_in_place<T: Real>(activation: Activation, x: &[T], dy: &mut [T]) {
    match activation {
        Activation::Gelu => gelu_slope(x, dy),
        Activation::GeluTanh => from_input(x, dy, gelu_tanh_derivative),
        Activation::Silu => from_input(x, dy, silu_derivative),
        Activation::Relu => from_input(x, dy, |x| if x > T::ZERO { T::ONE } else { T::ZERO }),
        Activation::Tanh => from_input(x, dy, |x| T::ONE - x.tanh() * x.tanh()),
        Activation::Sigmoid => from_input(x, dy, |x| {
            let y = T::ONE / (T::ONE + (-x).exp());
            y * (T::ONE - y)
        }),
        Activation::Identity => {}
        rare => from_input(x, dy, |x| curves::slope(rare, x)),
    }
}

impl Apply {
    fn forward<T: Real>(&self, x: &[T]) -> Vec<T> {
        let mut out = kernel::zeros::<T>(x.len());
        forward_parallel(self.0, x, &mut out);
        out
    }

    fn backward<T: Real>(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let dy = dy.contiguous()?;
        let mut out = kernel::zeros::<T>(x.elem_count());
        let activation = self.0;
        kernel::read::<T, _>(x, |x| {
            kernel::read::<T, _>(y, |y| {
                kernel::read::<T, _>(&dy, |dy| {
                    out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, dx)| {
                        let range = i * CHUNK..i * CHUNK + dx.len();
                        let (x, y, dy) = (&x[range.clone()], &y[range.clone()], &dy[range]);
                        match activation {
                            Activation::Gelu => gelu_backward(x, dy, dx),
                            Activation::Tanh => from_result(y, dy, dx, |y| T::ONE - y * y),
                            Activation::Sigmoid => from_result(y, dy, dx, |y| y * (T::ONE - y)),
                            Activation::Relu => {
                                from_result(y, dy, dx, |y| if y > T::ZERO { T::ONE } else { T::ZERO });
                            }
                            Activation::Identity => dx.copy_from_slice(dy),
                            other => {
                                dx.copy_from_slice(dy);
                                backward_in_place(other, x, dx);
                            }
                        }
                    });
                })
            })
        })???;
        kernel::tensor(out, x.dims().to_vec())
    }
}

impl CustomOp1 for Apply {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(storage), "activation", T => {
            let y = self.forward::<T>(kernel::slice(storage, layout)?);
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(x.dtype(), "activation", T => self.backward::<T>(x, y, dy).map(Some))
    }
}
