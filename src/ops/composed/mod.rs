//! How is each operation made of candle's own tensor operations, on whatever device the values are?
//!
//! This is what a GPU computes, and the slow twin that the kernels are tested against on the CPU: the same functions
//! of the same arguments, the same dropout masks, gradients by candle's graph. candle's fused layer norm, softmax,
//! rotary and attention cut the graph and are not used. Parameters are variables of the graph here, and
//! [`collect`](super::collect()) hands them their gradients after a backward pass.

mod activation;
mod attention;
mod disentangled;
mod dropout;
mod embedding;
mod late_interaction;
mod layers;
mod norm;
mod pool;
mod rotary;
pub(super) mod select;
mod splade;
mod stable;

use std::cell::Cell;

use candle_core::{DType, Device, Result, Tensor};

pub(super) use activation::activation;
pub(super) use attention::attention;
pub(super) use disentangled::disentangled_attention;
pub(super) use dropout::dropout;
pub(super) use embedding::{embedding_bag_mean, embedding_sum};
pub(super) use late_interaction::late_interaction;
pub(super) use layers::{encoder, feed_forward, linear, self_attention};
pub(super) use norm::{l2_normalize, layer_norm, residual_layer_norm, rms_norm};
pub(super) use pool::pool;
pub(super) use rotary::rotary_attention;
pub(super) use splade::splade_pool;
pub(super) use stable::{cross_entropy, logsumexp};

use super::param::Param;

thread_local! {
    static EVERYWHERE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with every operation of this thread composed, and the parameters that it makes ready for that, though all
/// values are on the CPU. So a machine without a GPU can test what a GPU would compute.
pub fn everywhere<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            EVERYWHERE.set(self.0);
        }
    }
    let _restore = Restore(EVERYWHERE.replace(true));
    f()
}

/// Whether an operation on `x` is composed: the kernels read host memory only.
pub(super) fn wanted(x: &Tensor) -> bool {
    !x.device().is_cpu() || EVERYWHERE.get()
}

/// A parameter's values beside `x`: part of the graph where `x` is, a constant where nothing is differentiated.
pub(super) fn value(param: &Param, x: &Tensor) -> Tensor {
    if param.trainable() && x.track_op() { param.value().clone() } else { param.value().detach() }
}

/// A constant like `x` in shape, type and device.
fn filled(x: &Tensor, value: f64) -> Result<Tensor> {
    x.zeros_like()?.affine(1.0, value)
}

/// Host numbers as a column of `[len, 1]`.
fn column(values: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
    // narrowed on the host: not every device knows f64
    Tensor::from_slice(values, (values.len(), 1), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}
