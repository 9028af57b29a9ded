//! Softmax cross-entropy over a vocabulary, from hidden states on: the last layer of a language model and its loss.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

use super::activation::Activation;
use super::composed;
use super::context::Context;
use super::kernel::{self, Shared, by_dtype, simd_fn};
use super::linear::Stack;
use super::matmul::Precision;
use super::param::Param;
use super::real::Real;
use super::scratch::Buffer;
use super::stable::{check_targets, row_logsumexp, row_softmax};

/// The mean over rows of `-log softmax(x Wᵀ + b)[target]`: [`cross_entropy`](super::cross_entropy()) of
/// [`linear`](super::linear()), with one matrix of scores, which becomes its own gradient, instead of three.
///
/// # Shapes
/// `x` `[rows, width]`, `weight` `[vocabulary, width]`, `bias` `[vocabulary]`, `targets` `[rows]`; the result is a
/// scalar.
///
/// # Errors
/// When a target is not in the vocabulary, or the shapes or element types do not fit.
pub fn vocabulary_cross_entropy(
    context: &Context,
    x: &Tensor,
    weight: &Arc<Param>,
    bias: &Arc<Param>,
    targets: &[u32],
) -> Result<Tensor> {
    let stack = Stack::new(context, vec![(Arc::clone(weight), Some(Arc::clone(bias)))])?;
    let &[rows, width] = x.dims() else {
        bail!("vocabulary: expected [rows, width], got {:?}", x.dims());
    };
    if width != stack.input {
        bail!("vocabulary: input is {:?}, weight `{}` is {:?}", x.dims(), weight.name(), weight.dims());
    }
    check_targets("vocabulary", targets, rows, stack.width())?;
    kernel::check_dtype("vocabulary", x.dtype(), weight.dtype())?;
    if weight.composed() {
        return composed::cross_entropy(&composed::linear(context, x, weight, Some(bias))?, targets);
    }
    let (targets, precision, keep) = (Arc::from(targets), context.precision(), context.is_training());
    x.contiguous()?.apply_op1(Vocabulary { stack, targets, precision, keep, state: Mutex::new(None) })
}

struct Vocabulary {
    stack: Stack,
    targets: Arc<[u32]>,
    precision: Precision,
    keep: bool,
    /// A [`Kept`] of the pass's element type, filled by the forward pass and emptied by the backward pass.
    state: Mutex<Option<Box<dyn Any + Send>>>,
}

/// What the backward pass needs.
struct Kept<T: Real> {
    /// `[rows, vocabulary]`
    scores: Buffer<T>,
    /// `[rows]`: the log-sum-exp of each row.
    totals: Vec<T>,
}

/// Rows whose scores are computed at a time where none are kept.
const AT_ONCE: usize = 256;

simd_fn! {
    /// Scores become their gradient, `(softmax(x) - [target]) * scale`; `space` is as long as a row.
    fn row_gradient<T>(row: &mut [T], total: T, target: usize, scale: T, space: &mut [T]) {
        space.copy_from_slice(row);
        row_softmax(space, total, scale, row);
        row[target] -= scale;
    }
}

impl Vocabulary {
    /// The scores of these rows and the log-sum-exp of each.
    fn scores<T: Real>(&self, x: &[T]) -> Result<Kept<T>> {
        let (rows, size) = (x.len() / self.stack.input.max(1), self.stack.width());
        let mut scores = Buffer::<T>::take(rows * size);
        self.stack.forward(x, Activation::Identity, &mut scores, self.precision)?;
        let mut totals = kernel::zeros::<T>(rows);
        let out = Shared::new(&mut totals);
        kernel::each(rows, 1, |i| {
            // SAFETY: each row has its own place.
            unsafe { *out.at(i) = row_logsumexp(&scores[i * size..(i + 1) * size]) };
        });
        Ok(Kept { scores, totals })
    }

    fn forward<T: Real>(&self, x: &[T]) -> Result<T> {
        let (rows, size) = (self.targets.len(), self.stack.width());
        let mut sum = T::ZERO;
        let at_once = if self.keep { rows } else { AT_ONCE };
        let blocks = x.chunks(at_once * self.stack.input.max(1)).zip(self.targets.chunks(at_once));
        for (x, targets) in blocks {
            let kept = self.scores(x)?;
            for (i, (total, target)) in kept.totals.iter().zip(targets).enumerate() {
                sum += *total - kept.scores[i * size + *target as usize];
            }
            if self.keep {
                *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(kept));
            }
        }
        Ok(sum / T::of(rows as f64))
    }

    fn backward<T: Real>(&self, x: &[T], kept: Kept<T>, upstream: f64) -> Result<Vec<T>> {
        let (rows, size) = (self.targets.len(), self.stack.width());
        let Kept { mut scores, totals } = kept;
        let scale = T::of(upstream / rows as f64);
        let all = Shared::new(&mut scores);
        /// Rows that share a space.
        const ROWS: usize = 8;
        let mut space = Buffer::<T>::take(rows.div_ceil(ROWS) * size);
        let spaces = Shared::new(&mut space);
        kernel::each(rows.div_ceil(ROWS), 1, |block| {
            // SAFETY: each block has its rows and a space of its own.
            let space = unsafe { spaces.range(block * size, size) };
            let first = block * ROWS;
            for (i, (total, target)) in totals.iter().zip(self.targets.iter()).enumerate().skip(first).take(ROWS) {
                // SAFETY: as above.
                row_gradient(unsafe { all.range(i * size, size) }, *total, *target as usize, scale, space);
            }
        });
        drop(space);
        self.stack.weight_gradient(x, Activation::Identity, &scores, self.precision)?;
        let mut dx = kernel::zeros::<T>(x.len());
        self.stack.input_gradient(&scores, &mut dx, false, None, self.precision)?;
        Ok(dx)
    }
}

impl CustomOp1 for Vocabulary {
    fn name(&self) -> &'static str {
        "vocabulary-cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(storage), "vocabulary", T => {
            let x: &[T] = kernel::slice(storage, layout)?;
            let value = rayon::scope(|_| self.forward(x))?;
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(vec![value]), Shape::from(())))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let upstream = dy.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        by_dtype!(x.dtype(), "vocabulary", T => {
            let Some(kept) = state.and_then(|state| state.downcast::<Kept<T>>().ok()) else {
                bail!("vocabulary: a graph is differentiated once, after a forward pass in training");
            };
            let host = kernel::host(x)?;
            let values = host.values::<T>()?;
            let dx = rayon::scope(|_| self.backward(values, *kept, upstream))?;
            kernel::tensor(dx, x.dims().to_vec()).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Var};

    use super::*;
    use crate::ops;
    use crate::util::seed::Rng;

    fn random(rng: &mut Rng, shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|_| 2.0 * rng.uniform() - 1.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Value, gradient by `x`, and gradients by weight and bias.
    fn run(x: &Tensor, weight: &Tensor, bias: &Tensor, targets: &[u32], fused: bool) -> (f64, Vec<Tensor>) {
        let (weight, bias) = (Param::new("weight", weight).unwrap(), Param::new("bias", bias).unwrap());
        let x = Var::from_tensor(x).unwrap();
        let context = Context::training(DType::F64, Rng::new(1)).unwrap();
        let value = if fused {
            vocabulary_cross_entropy(&context, &x, &weight, &bias, targets).unwrap()
        } else {
            ops::cross_entropy(&ops::linear(&context, &x, &weight, Some(&bias)).unwrap(), targets).unwrap()
        };
        // as a part of something else, so that its gradient is scaled
        let gradients = value.affine(3.0, 0.0).unwrap().backward().unwrap();
        let of = |param: &Param| param.gradient_tensor().unwrap().unwrap();
        (value.to_scalar().unwrap(), vec![gradients.get(&x).unwrap().clone(), of(&weight), of(&bias)])
    }

    #[test]
    fn is_cross_entropy_of_a_layer() {
        let mut rng = Rng::new(8);
        for (rows, width, size) in [(1, 3, 2), (7, 5, 11), (19, 8, 300)] {
            let x = random(&mut rng, &[rows, width]);
            let (weight, bias) = (random(&mut rng, &[size, width]), random(&mut rng, &[size]));
            let targets: Vec<u32> = (0..rows).map(|_| rng.below(size as u64) as u32).collect();
            let (value, gradients) = run(&x, &weight, &bias, &targets, true);
            let (expected, wanted) = run(&x, &weight, &bias, &targets, false);
            assert!((value - expected).abs() < 1e-12, "{value} {expected}");
            for (a, b) in gradients.iter().zip(&wanted) {
                let worst = a.sub(b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                assert!(worst.to_scalar::<f64>().unwrap() < 1e-12);
            }
        }
    }

    #[test]
    fn without_training_rows_are_taken_in_blocks() {
        let mut rng = Rng::new(9);
        let (x, weight, bias) = (random(&mut rng, &[600, 4]), random(&mut rng, &[9, 4]), random(&mut rng, &[9]));
        let targets: Vec<u32> = (0..600).map(|_| rng.below(9) as u32).collect();
        let (expected, _) = run(&x, &weight, &bias, &targets, false);
        let (weight, bias) = (Param::new("weight", &weight).unwrap(), Param::new("bias", &bias).unwrap());
        let value = vocabulary_cross_entropy(&Context::inference(), &x, &weight, &bias, &targets).unwrap();
        assert!((value.to_scalar::<f64>().unwrap() - expected).abs() < 1e-12);
        assert!(vocabulary_cross_entropy(&Context::inference(), &x, &weight, &bias, &targets[1..]).is_err());
    }
}
