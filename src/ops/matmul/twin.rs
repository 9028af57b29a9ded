//! The same products through the `gemm` crate: operands are copied where they are mapped or in parts, results are
//! finished in a pass of their own.

use std::borrow::Cow;

use rayon::prelude::*;

use super::{Operand, Product, map_row};
use crate::ops::kernel;
use crate::ops::real::Real;

/// `target = a b`, see [`super::multiply`].
pub fn multiply<T: Real>(product: &Product<'_, T>) {
    let (m, n, k) = product.dims();
    if m == 0 || n == 0 {
        return;
    }
    let (a, a_stride) = flat(&product.a);
    let (b, b_stride) = flat(&product.b);
    let (a_row, a_depth) = if product.a.across { (1, a_stride) } else { (a_stride, 1) };
    let (b_depth, b_column) = if product.b.across { (b_stride, 1) } else { (1, b_stride) };
    let target = &product.target;
    // SAFETY: the operands' rows lie inside their buffers, and so do the target's, which nobody else uses.
    unsafe {
        kernel::gemm(
            (m, n, k),
            target.data.at(0),
            (target.stride, 1),
            target.accumulate,
            a.as_ptr(),
            (a_row, a_depth),
            b.as_ptr(),
            (b_depth, b_column),
            T::ONE,
        );
    }
    if let Some(finish) = target.finish {
        let row = |row: usize| {
            // SAFETY: each row is finished once.
            finish(row, 0, unsafe { target.data.range(row * target.stride, n) });
        };
        (0..m).into_par_iter().for_each(row);
    }
}

/// The operand's values in one piece, and the distance of its rows.
fn flat<'a, T: Real>(side: &Operand<'a, T>) -> (Cow<'a, [T]>, usize) {
    let matrix = &side.matrix;
    if let ([part], None) = (matrix.parts, side.map) {
        return (Cow::Borrowed(&part[matrix.offset.min(part.len())..]), matrix.stride);
    }
    let mut all = kernel::zeros::<T>(matrix.height() * matrix.width);
    for (i, row) in all.chunks_exact_mut(matrix.width.max(1)).enumerate() {
        let values = matrix.row(i, 0, matrix.width);
        match side.map {
            Some(map) => map_row(map, values, row),
            None => row.copy_from_slice(values),
        }
    }
    (Cow::Owned(all), matrix.width)
}
