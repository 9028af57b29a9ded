//! A part of a network that keeps its input alone, and is computed again for its backward pass.
//!
//! Source: Chen et al., "Training deep nets with sublinear memory cost" (2016), <https://arxiv.org/abs/1604.06174>. The
//! same dropout is drawn both times, so gradients are those of a pass that kept everything, to the bit.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Result, Shape, Storage, Tensor, Var, bail,
};

use super::context::{Context, Place};
use super::param::{self, Param};
use super::seam;

/// `part(x)`, of which `x` is all that stays until the backward pass. `params` are those that `part` uses; their
/// adapters are among them.
///
/// # Shapes
/// Those of `part`.
///
/// # Errors
/// Those of `part`.
pub fn checkpoint(
    context: &Context,
    x: &Tensor,
    params: Vec<Arc<Param>>,
    part: impl Fn(&Tensor, &Context) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    if !context.is_training() {
        return part(x, context);
    }
    let x = context.attach(x)?;
    let place = context.place();
    let inner = place.context(x.dtype())?;
    // what is not part of the graph leaves nothing behind
    let y = part(&x.detach(), &inner)?.detach().force_contiguous()?;
    context.resume(&inner);
    let adapters = params.iter().filter_map(|param| param.adapter());
    let added: Vec<Arc<Param>> = adapters.flat_map(|adapter| adapter.params()).map(Arc::clone).collect();
    let params = [params, added].concat();
    x.apply_op1(Op { part: Box::new(part), params, place, y: Mutex::new(Some(y)) })
}

type Part = Box<dyn Fn(&Tensor, &Context) -> Result<Tensor> + Send + Sync>;

struct Op {
    part: Part,
    params: Vec<Arc<Param>>,
    place: Place,
    /// The result, until it is handed over.
    y: Mutex<Option<Tensor>>,
}

impl Op {
    fn result(&self) -> Result<Tensor> {
        match self.y.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(y) => Ok(y),
            None => bail!("checkpoint: its result was taken before"),
        }
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.result()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, y.shape().clone())),
            _ => bail!("checkpoint: the result is not where the input is"),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let y = self.result()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, y.shape().clone())),
            _ => bail!("checkpoint: the result is not where the input is"),
        }
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        let y = self.result()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Metal(storage) => Ok((storage.try_clone(layout)?, y.shape().clone())),
            _ => bail!("checkpoint: the result is not where the input is"),
        }
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let leaf = Var::from_tensor(&x.detach())?;
        let context = self.place.context(x.dtype())?;
        let y = (self.part)(leaf.as_tensor(), &context)?;
        let mut gradients = seam::with_gradient(&y, &dy.contiguous()?)?.backward()?;
        param::collect(&gradients, &self.params)?;
        Ok(gradients.remove(&leaf).map(|dx| dx.detach()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::ops::{self, Param};
    use crate::util::seed::Rng;

    /// The bits of the result and of all gradients of two layers with dropout in `parts`.
    fn bits(parts: bool) -> Vec<Vec<u64>> {
        let made = |dims: &[usize], seed: f64| {
            let values = (0..dims.iter().product::<usize>()).map(|i| (seed + 0.7 * i as f64).sin()).collect();
            Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
        };
        let params: Vec<Arc<Param>> =
            (0..2).map(|i| Param::new(format!("w{i}"), &made(&[4, 4], i as f64)).unwrap()).collect();
        let x = Var::from_tensor(&made(&[6, 4], 9.0)).unwrap();
        let context = Context::training(DType::F64, Rng::new(4)).unwrap();
        let mut y = x.as_tensor().clone();
        for param in &params {
            let own = Arc::clone(param);
            let layer = move |x: &Tensor, context: &Context| {
                let y = ops::linear(context, &ops::dropout(x, context.dropout(0.3))?, &own, None)?;
                ops::dropout(&(y + x)?, context.dropout(0.3))
            };
            y = match parts {
                true => checkpoint(&context, &y, vec![Arc::clone(param)], layer).unwrap(),
                false => layer(&y, &context).unwrap(),
            };
        }
        let gradients = seam::with_gradient(&y, &made(&[6, 4], 2.0)).unwrap().backward().unwrap();
        param::collect(&gradients, &params).unwrap();
        let mut all = vec![y.detach(), gradients.get(&x).unwrap().clone()];
        all.extend(params.iter().map(|param| param.gradient_tensor().unwrap().unwrap()));
        let bits =
            |t: Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap().into_iter().map(f64::to_bits).collect();
        all.into_iter().map(bits).collect()
    }

    #[test]
    fn gradients_have_the_bits_of_a_pass_that_kept_all() {
        assert_eq!(bits(true), bits(false));
        // of candle's operations the last bits may depend on what is added first
        let [a, b] = [true, false].map(|parts| ops::composed::everywhere(|| bits(parts)));
        for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
            let (a, b) = (f64::from_bits(*a), f64::from_bits(*b));
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }
}
