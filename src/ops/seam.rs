//! Where a graph is cut in two: a gradient found outside of it, taken back through it.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

use super::composed;
use super::kernel;

/// A scalar whose derivative with respect to `x` is `gradient`: its backward pass hands `gradient` on as it is. Its
/// own value means nothing.
///
/// # Shapes
/// `x` and `gradient` alike, of any shape; the result is a scalar.
///
/// # Errors
/// When shapes or element types differ.
pub fn with_gradient(x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    if x.dims() != gradient.dims() || x.dtype() != gradient.dtype() {
        let (x, gradient) = ((x.dims(), x.dtype()), (gradient.dims(), gradient.dtype()));
        bail!("seam: a gradient of {gradient:?} for {x:?}");
    }
    let gradient = gradient.detach();
    if composed::wanted(x) {
        return (x * gradient)?.sum_all();
    }
    x.apply_op1(Seam { gradient })
}

struct Seam {
    gradient: Tensor,
}

impl CustomOp1 for Seam {
    fn name(&self) -> &'static str {
        "seam"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let zero = match kernel::dtype(storage) {
            DType::F32 => CpuStorage::F32(vec![0.0]),
            DType::F64 => CpuStorage::F64(vec![0.0]),
            other => bail!("seam: no kernel for {other:?}"),
        };
        Ok((zero, Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let factor = dy.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if factor.to_bits() == 1.0f64.to_bits() {
            return Ok(Some(self.gradient.clone()));
        }
        self.gradient.affine(factor, 0.0).map(Some)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn the_gradient_goes_through_what_made_the_value() {
        let x = Var::new(&[[1.0f64, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let g = Tensor::new(&[[0.5f64, -1.0], [0.0, 2.0]], &Device::Cpu).unwrap();
        for factor in [1.0, 3.0] {
            let y = with_gradient(&x.as_tensor().sqr().unwrap(), &g).unwrap();
            let grads = y.affine(factor, 0.0).unwrap().backward().unwrap();
            let got = grads.get(&x).unwrap().to_vec2::<f64>().unwrap();
            assert_eq!(got, [[1.0 * factor, -4.0 * factor], [0.0, 16.0 * factor]]);
        }
        let short = Tensor::new(&[[0.5f64, -1.0]], &Device::Cpu).unwrap();
        assert!(with_gradient(&x, &short).is_err());
        assert!(with_gradient(&x, &g.to_dtype(DType::F32).unwrap()).is_err());
    }
}
