//! Several steps of a network as one operation that keeps its own intermediate values.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::context::Context;
use super::kernel;
use super::real::Real;

/// A function of one tensor to one of the same shape.
pub trait Block<T: Real>: Send + Sync + 'static {
    /// In messages.
    const NAME: &'static str;
    /// What the backward pass needs beside the input.
    type State: Send;

    /// Writes the result to `y`; returns what the backward pass needs.
    fn forward(&self, x: &[T], y: &mut [T]) -> Result<Self::State>;

    /// Writes the gradient of the input to `dx`; parameters get theirs.
    fn backward(&self, x: &[T], state: Self::State, dy: &[T], dx: &mut [T]) -> Result<()>;
}

/// Runs a block on `x`, of the element type `T`.
pub fn apply<T: Real, B: Block<T>>(context: &Context, x: &Tensor, block: B) -> Result<Tensor> {
    let op = Op { block, keep: context.is_training(), state: Mutex::new(None), element: std::marker::PhantomData };
    x.contiguous()?.apply_op1(op)
}

struct Op<T: Real, B: Block<T>> {
    block: B,
    keep: bool,
    /// Filled by the forward pass; emptied by the backward pass, so that its memory is free once it was used.
    state: Mutex<Option<B::State>>,
    element: std::marker::PhantomData<fn() -> T>,
}

impl<T: Real, B: Block<T>> CustomOp1 for Op<T, B> {
    fn name(&self) -> &'static str {
        B::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = kernel::slice(storage, layout)?;
        let mut y = kernel::zeros(x.len());
        // a thread of the pool goes from one parallel loop to the next without being woken
        let state = rayon::scope(|_| self.block.forward(x, &mut y))?;
        if self.keep {
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        }
        Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let Some(state) = self.state.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("{}: a graph is differentiated once, after a forward pass in training", B::NAME);
        };
        let dy = dy.contiguous()?;
        let (values, dy) = (kernel::host(x)?, kernel::host(&dy)?);
        let mut dx = kernel::zeros(x.elem_count());
        let (values, dy) = (values.values()?, dy.values()?);
        rayon::scope(|_| self.block.backward(values, state, dy, &mut dx))?;
        kernel::tensor(dx, x.dims().to_vec()).map(Some)
    }
}
