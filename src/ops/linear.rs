//! `y = x Wᵀ + b`.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::kernel::{self, Shared, by_dtype, simd_fn};
use super::param::Param;
use super::real::Real;

/// A fully connected layer: `y = x Wᵀ + b`, as `torch.nn.functional.linear`.
///
/// # Shapes
/// `x` `[..., in]`, `weight` `[out, in]`, `bias` `[out]`; the result is `[..., out]`.
///
/// # Errors
/// When the shapes or element types do not fit.
pub fn linear(x: &Tensor, weight: &Arc<Param>, bias: Option<&Arc<Param>>) -> Result<Tensor> {
    let &[out, input] = weight.dims() else {
        bail!("linear: weight `{}` is {:?}, not a matrix", weight.name(), weight.dims());
    };
    if x.dims().last() != Some(&input) {
        bail!("linear: input is {:?}, weight `{}` is [{out}, {input}]", x.dims(), weight.name());
    }
    if let Some(bias) = bias
        && bias.dims() != [out]
    {
        bail!("linear: bias `{}` is {:?}, wanted [{out}]", bias.name(), bias.dims());
    }
    kernel::check_dtype("linear", x.dtype(), weight.dtype())?;
    x.contiguous()?.apply_op1(Linear { weight: Arc::clone(weight), bias: bias.map(Arc::clone), out, input })
}

struct Linear {
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
    out: usize,
    input: usize,
}

simd_fn! {
    fn fill_rows<T>(rows: &mut [T], row: &[T]) {
        for target in rows.chunks_exact_mut(row.len()) {
            target.copy_from_slice(row);
        }
    }
}

simd_fn! {
    /// Adds every row of `rows` to `sum`.
    fn add_rows<T>(sum: &mut [T], rows: &[T]) {
        for row in rows.chunks_exact(sum.len()) {
            for (a, b) in sum.iter_mut().zip(row) {
                *a += *b;
            }
        }
    }
}

/// Column sums of `[rows, width]` in a fixed order whatever the number of threads, added to `sum`.
pub(super) fn column_sums<T: Real>(data: &[T], width: usize, sum: &mut [T]) {
    let chunk = 64 * width.max(1);
    let partial: Vec<Vec<T>> = data
        .par_chunks(chunk)
        .map(|rows| {
            let mut part = kernel::zeros::<T>(width);
            add_rows(&mut part, rows);
            part
        })
        .collect();
    for part in partial {
        for (a, b) in sum.iter_mut().zip(part) {
            *a += b;
        }
    }
}

impl Linear {
    fn forward<T: Real>(&self, x: &[T]) -> Result<Vec<T>> {
        let tokens = x.len() / self.input.max(1);
        let mut y = kernel::zeros::<T>(tokens * self.out);
        if let Some(bias) = &self.bias {
            bias.read::<T, _>(|bias| {
                y.par_chunks_mut(self.out * 64).for_each(|rows| fill_rows(rows, bias));
            })?;
        }
        let accumulate = self.bias.is_some();
        self.weight.read::<T, _>(|weight| {
            // SAFETY: y is [tokens, out], x [tokens, in], weight [out, in] read as its transpose.
            unsafe {
                kernel::gemm(
                    (tokens, self.out, self.input),
                    y.as_mut_ptr(),
                    (self.out, 1),
                    accumulate,
                    x.as_ptr(),
                    (self.input, 1),
                    weight.as_ptr(),
                    (1, self.input),
                    T::ONE,
                    true,
                );
            }
        })?;
        Ok(y)
    }

    fn backward<T: Real>(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let tokens = x.elem_count() / self.input.max(1);
        let dy = dy.contiguous()?;
        let mut dx = kernel::zeros::<T>(tokens * self.input);
        kernel::read::<T, _>(&dy, |dy| -> Result<()> {
            self.weight.read::<T, _>(|weight| {
                // SAFETY: dx is [tokens, in], dy [tokens, out], weight [out, in].
                unsafe {
                    kernel::gemm(
                        (tokens, self.input, self.out),
                        dx.as_mut_ptr(),
                        (self.input, 1),
                        false,
                        dy.as_ptr(),
                        (self.out, 1),
                        weight.as_ptr(),
                        (self.input, 1),
                        T::ONE,
                        true,
                    );
                }
            })?;
            if let Some(bias) = &self.bias {
                bias.accumulate::<T>(|_, sum| column_sums(dy, self.out, sum))?;
            }
            kernel::read::<T, _>(x, |x| {
                self.weight.accumulate::<T>(|add, dw| {
                    // SAFETY: dw is [out, in], dy [tokens, out] read as its transpose, x [tokens, in].
                    unsafe {
                        kernel::gemm(
                            (self.out, self.input, tokens),
                            Shared::new(dw).at(0),
                            (self.input, 1),
                            add,
                            dy.as_ptr(),
                            (1, self.out),
                            x.as_ptr(),
                            (self.input, 1),
                            T::ONE,
                            true,
                        );
                    }
                })
            })?
        })??;
        kernel::tensor(dx, x.dims().to_vec())
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.out;
        }
        by_dtype!(kernel::dtype(storage), "linear", T => {
            let y = self.forward::<T>(kernel::slice(storage, layout)?)?;
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), Shape::from(dims)))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(x.dtype(), "linear", T => self.backward::<T>(x, dy).map(Some))
    }
}
