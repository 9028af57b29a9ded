//! A parameter as a tensor of the graph, for the few places where it is no operation's weight: small ones, since what
//! comes back is a gradient of every value.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::context::Context;
use super::kernel::{self, by_dtype};
use super::param::Param;

/// The values of a parameter; what is computed with them gives it a gradient.
///
/// # Errors
/// When its element type has no kernel.
pub fn parameter(context: &Context, param: &Arc<Param>) -> Result<Tensor> {
    match (context.is_training() && param.trainable(), param.composed()) {
        (false, _) => Ok(param.value().detach()),
        (true, true) => Ok(param.value().clone()),
        (true, false) => context.root(param.dtype())?.apply_op1(Whole(Arc::clone(param))),
    }
}

struct Whole(Arc<Param>);

impl CustomOp1 for Whole {
    fn name(&self) -> &'static str {
        "parameter"
    }

    fn cpu_fwd(&self, root: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(root), "parameter", T => {
            let values = self.0.read::<T, _>(<[T]>::to_vec)?;
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(values), Shape::from(self.0.dims())))
        })
    }

    fn bwd(&self, root: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        by_dtype!(root.dtype(), "parameter", T => kernel::read::<T, _>(&dy, |dy| {
            self.0.accumulate::<T>(|add, gradient| {
                for (to, from) in gradient.iter_mut().zip(dy) {
                    *to = if add { *to + *from } else { *from };
                }
            })
        })?)?;
        Ok(None)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::ops::{self, composed};
    use crate::util::seed::Rng;

    #[test]
    fn gradients_reach_it_and_add_up() {
        let check = || {
            let value = Tensor::new(&[[1.0f64, -2.0], [0.5, 3.0]], &Device::Cpu).unwrap();
            let param = Param::new("w", &value).unwrap();
            for times in [1.0, 2.0] {
                let context = Context::training(DType::F64, Rng::new(0)).unwrap();
                let y = parameter(&context, &param).unwrap().sqr().unwrap();
                let gradients = y.sum_all().unwrap().backward().unwrap();
                ops::collect(&gradients, &[Arc::clone(&param)]).unwrap();
                let got = param.gradient_tensor().unwrap().unwrap().to_vec2::<f64>().unwrap();
                assert_eq!(got, [[2.0 * times, -4.0 * times], [times, 6.0 * times]]);
            }
            let still = parameter(&Context::inference(), &param).unwrap();
            assert!(!still.track_op() && still.to_vec2::<f64>().unwrap()[1][1] == 3.0);
        };
        check();
        composed::everywhere(check);
    }
}
