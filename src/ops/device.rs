//! Where are operations computed: on the CPU, or on the GPU this program was built for?

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};

/// The first GPU where the program was built for one (`--features cuda` or `metal`), else the CPU.
///
/// # Errors
/// When it was built for one and that cannot be opened.
pub fn first() -> Result<Device> {
    let opened = if cfg!(feature = "cuda") {
        Device::new_cuda(0)
    } else if cfg!(feature = "metal") {
        Device::new_metal(0)
    } else {
        Ok(Device::Cpu)
    };
    opened.map_err(|e| {
        let what = if cfg!(feature = "cuda") { "NVIDIA GPU (`--features cuda`)" } else { "GPU (`--features metal`)" };
        Error::train(format!("the {what} cannot be opened: {e}"))
            .with_hint("set `args.use_cpu = true` to train on the CPU, or look whether its driver works (`nvidia-smi`)")
    })
}

/// The device's name for people.
#[must_use]
pub fn name(device: &Device) -> String {
    match device {
        Device::Cpu => format!("the CPU, {} kernels", super::simd_level()),
        Device::Cuda(_) => "NVIDIA GPU 0, candle's CUDA kernels".to_owned(),
        Device::Metal(_) => "the GPU, candle's Metal kernels".to_owned(),
    }
}

/// The number in a tensor of one value, wherever it is.
///
/// # Errors
/// When it has another number of values.
pub fn number(x: &Tensor) -> candle_core::Result<f64> {
    // widened on the host: not every device knows f64
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar::<f64>()
}
