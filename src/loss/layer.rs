//! A linear layer of a loss's own: trained with the model, thrown away with the run.

use std::sync::Arc;

use candle_core::Tensor;

use super::Setup;
use crate::error::{Error, Result};
use crate::ops::{self, Context, Param};

/// `y = x Wᵀ + b`.
#[derive(Debug, Clone)]
pub struct Layer {
    weight: Arc<Param>,
    bias: Arc<Param>,
}

impl Layer {
    /// A new layer, its weight and bias uniform in ±1/√input, as `torch.nn.Linear` begins.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn new(name: &str, input: usize, out: usize, setup: &Setup) -> Result<Self> {
        /// Keeps its numbers apart from those that others draw from the same seed.
        const STREAM: u64 = 0x1A7E_2000;
        let bound = 1.0 / (input.max(1) as f64).sqrt();
        let mut rng = setup.rng.fork(STREAM);
        let mut draw = |shape: &[usize], name: String| -> Result<Arc<Param>> {
            let count = shape.iter().product();
            let values: Vec<f64> = (0..count).map(|_| (2.0 * rng.uniform() - 1.0) * bound).collect();
            // not from an f64, which not every device knows
            let values = Tensor::from_vec(values, shape, &candle_core::Device::Cpu)?.to_dtype(setup.dtype)?;
            Ok(Param::new(name, &values.to_device(&setup.device)?)?)
        };
        Ok(Self {
            weight: draw(&[out, input], format!("{}.{name}.weight", setup.name))?,
            bias: draw(&[out], format!("{}.{name}.bias", setup.name))?,
        })
    }

    /// The width of what it takes.
    pub fn input(&self) -> usize {
        self.weight.dims().get(1).copied().unwrap_or(0)
    }

    /// Element type and device of its parameters.
    pub fn place(&self) -> (candle_core::DType, &candle_core::Device) {
        (self.weight.value().dtype(), self.weight.value().device())
    }

    /// Weight and bias.
    pub fn params(&self) -> Vec<Arc<Param>> {
        vec![Arc::clone(&self.weight), Arc::clone(&self.bias)]
    }

    /// `[rows, input]` to `[rows, out]`.
    ///
    /// # Errors
    /// When the shapes or element types do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(&Context::inference(), x, &self.weight, Some(&self.bias))?)
    }
}

/// What a loss says that computes before it has its parameters.
pub fn unprepared(name: &str) -> Error {
    Error::Internal(format!("`{name}` computes before it is prepared"))
}
