//! AdamW of parameters on a device: the same step as on the host, by tensor operations, for the whole parameter.

use candle_core::{Device, Tensor};

use super::adamw::Constants;
use crate::error::Result;
use crate::ops::Param;

/// First and second moment, where the parameter is.
pub struct Moments {
    m: Tensor,
    v: Tensor,
}

impl Moments {
    /// From host values; zeros where there are none.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn new(param: &Param, m: &[f32], v: &[f32]) -> Result<Self> {
        let make = |values: &[f32]| match values {
            [] => param.value().zeros_like(),
            values => Tensor::from_slice(values, param.dims(), param.value().device()),
        };
        Ok(Self { m: make(m)?, v: make(v)? })
    }

    /// One step. The order of operations is torch's single-tensor AdamW.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(&mut self, param: &Param, gradient: &Tensor, c: &Constants) -> Result<()> {
        let g = gradient.affine(f64::from(c.gradient_scale), 0.0)?;
        let p = param.value().detach().affine(f64::from(c.decay), 0.0)?;
        self.m = self.m.add(&g.sub(&self.m)?.affine(f64::from(c.one_minus_beta1), 0.0)?)?;
        let square = g.sqr()?.affine(f64::from(c.one_minus_beta2), 0.0)?;
        self.v = self.v.affine(f64::from(c.beta2), 0.0)?.add(&square)?;
        let denominator = self.v.sqrt()?.affine(1.0 / f64::from(c.bias2_sqrt), f64::from(c.epsilon))?;
        let change = self.m.div(&denominator)?.affine(f64::from(c.step_size), 0.0)?;
        Ok(param.set(&p.sub(&change)?)?)
    }

    /// The values, on the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_host(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        let values = |x: &Tensor| x.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>();
        Ok((values(&self.m)?, values(&self.v)?))
    }
}
