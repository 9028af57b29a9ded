//! Products of two tensors that are both differentiated: similarity matrices.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::composed;
use super::kernel::{self, by_dtype};
use super::matmul::{self, Matrix, Precision, Target};

/// All dot products of two sets of vectors: `a bᵀ`.
///
/// # Shapes
/// `a` `[n, dim]`, `b` `[m, dim]`; the result is `[n, m]`.
///
/// # Errors
/// When the shapes or element types do not fit.
pub fn dot_products(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match (a.dims(), b.dims()) {
        (&[_, width], &[_, other]) if width == other => {}
        (a, b) => bail!("dot products: shapes are {a:?} and {b:?}"),
    }
    kernel::check_dtype("dot products", b.dtype(), a.dtype())?;
    if composed::wanted(a) {
        return a.matmul(&b.t()?);
    }
    a.contiguous()?.apply_op2(&b.contiguous()?, DotProducts)
}

struct DotProducts;

impl CustomOp2 for DotProducts {
    fn name(&self) -> &'static str {
        "dot-products"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, width) = kernel::matrix(l1.dims())?;
        let (m, _) = kernel::matrix(l2.dims())?;
        by_dtype!(kernel::dtype(s1), "dot products", T => {
            let (a, b): ([&[T]; 1], [&[T]; 1]) = ([kernel::slice(s1, l1)?], [kernel::slice(s2, l2)?]);
            let mut out = kernel::zeros::<T>(n * m);
            matmul::multiply(
                Matrix::stacked(&a, width).depth_in_rows(),
                Matrix::stacked(&b, width).depth_in_rows(),
                Target::new(&mut out, m),
                Precision::Full,
            );
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(out), Shape::from((n, m))))
        })
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, d: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, width) = kernel::matrix(a.dims())?;
        let (m, _) = kernel::matrix(b.dims())?;
        let d = d.contiguous()?;
        let dtype = d.dtype();
        let (a, b, d) = (kernel::host(a)?, kernel::host(b)?, kernel::host(&d)?);
        by_dtype!(dtype, "dot products", T => {
            let (a, b, d) = ([a.values::<T>()?], [b.values::<T>()?], [d.values::<T>()?]);
            let (mut da, mut db) = (kernel::zeros::<T>(n * width), kernel::zeros::<T>(m * width));
            let d = Matrix::stacked(&d, m);
            matmul::multiply(
                d.depth_in_rows(),
                Matrix::stacked(&b, width).depth_across_rows(),
                Target::new(&mut da, width),
                Precision::Full,
            );
            matmul::multiply(
                d.depth_across_rows(),
                Matrix::stacked(&a, width).depth_across_rows(),
                Target::new(&mut db, width),
                Precision::Full,
            );
            Ok((Some(kernel::tensor(da, (n, width))?), Some(kernel::tensor(db, (m, width))?)))
        })
    }
}
