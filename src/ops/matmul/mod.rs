//! `C = A B` by packed tiles: what nearly all of a training step's time goes into.
//!
//! The right side is packed into panels once, a block of its depth at a time, and read by every thread; each thread
//! takes a block of rows of the left side and keeps a tile of the result in registers. Operands may be mapped (an
//! activation applied as they are packed) and results finished (a bias added, say) while they are still in the cache,
//! so that neither costs a pass over memory. The order of additions depends on the shape alone, never on the number
//! of threads. After Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008), and BLIS.
//!
//! Each level of instructions has its own tile: [`tile`]. With bf16 the operands are rounded when packed and multiplied
//! in pairs: to bfloat16 with AVX512-BF16, to block fixed point with AVX2 alone; results stay in f32. Elsewhere, and for
//! f64, [`twin`] does the same work through the `gemm` crate, slower and plainer: it is also what the tiles are tested
//! against. [`small`] has the products of one thread in its cache.

mod packed;
mod small;
mod tile;
mod twin;

pub use small::{Left, Place, Small};

use super::activation::{self, Activation};
use super::kernel::{self, Level, Shared};
use super::real::Real;

/// What the operands of a product are rounded to; sums and results are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As they are.
    #[default]
    Full,
    /// bfloat16 or nearer, by what [`bf16_products`] tells; where it tells of nothing, as [`Precision::Full`].
    Bf16,
}

/// What this machine multiplies faster than f32 with an error not above bfloat16's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bf16Products {
    /// bfloat16 itself, by AVX512-BF16.
    Bfloat16,
    /// Whole numbers of 13 bits with a scale for each block of 128, by AVX2: nearer than bfloat16.
    BlockFixed,
}

impl Bf16Products {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bfloat16 => "bfloat16",
            Self::BlockFixed => "13-bit block fixed point",
        }
    }
}

/// What [`Precision::Bf16`] multiplies with on this machine; `None` where f32 is the fastest it has.
#[must_use]
pub fn bf16_products() -> Option<Bf16Products> {
    #[cfg(target_arch = "x86_64")]
    {
        match kernel::level() {
            Level::Avx512 if std::arch::is_x86_feature_detected!("avx512bf16") => Some(Bf16Products::Bfloat16),
            Level::Avx2 => Some(Bf16Products::BlockFixed),
            _ => None,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        None
    }
}

/// A matrix as it lies in memory: rows of `width` neighbouring values, in one or several parts of equal row counts.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    parts: &'a [&'a [T]],
    rows_per_part: usize,
    stride: usize,
    offset: usize,
    width: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows of `width` values one after the other, in parts that are stacked on each other.
    pub fn stacked(parts: &'a [&'a [T]], width: usize) -> Self {
        let rows_per_part = parts.first().map_or(0, |p| p.len() / width.max(1));
        assert!(parts.iter().all(|p| p.len() == rows_per_part * width), "parts of different sizes");
        Self { parts, rows_per_part, stride: width, offset: 0, width }
    }

    /// The columns from `offset` on, `width` of them.
    pub fn columns(self, offset: usize, width: usize) -> Self {
        assert!(offset + width <= self.width, "columns outside a matrix");
        Self { offset: self.offset + offset, width, ..self }
    }

    /// `count` rows from `first` on; for matrices of one part.
    pub fn rows(self, first: usize, count: usize) -> Self {
        assert!(self.parts.len() == 1 && first + count <= self.rows_per_part, "rows outside a matrix");
        Self { offset: self.offset + first * self.stride, rows_per_part: count, ..self }
    }

    pub fn height(&self) -> usize {
        self.rows_per_part * self.parts.len()
    }

    /// Columns `from..to` of row `i`.
    #[inline(always)]
    fn row(&self, i: usize, from: usize, to: usize) -> &'a [T] {
        let (part, i) = if self.parts.len() == 1 { (0, i) } else { (i / self.rows_per_part, i % self.rows_per_part) };
        let start = self.offset + i * self.stride;
        &self.parts[part][start + from..start + to]
    }

    /// As the left side of a small product; for matrices of one part.
    pub fn left(self) -> Left<'a, T> {
        Left { values: &self.parts[0][self.offset..], row: self.stride, step: 1 }
    }

    /// The product runs along this matrix' rows: as left side it is as it stands, as right side transposed.
    pub fn depth_in_rows(self) -> Operand<'a, T> {
        Operand { matrix: self, across: false, map: None }
    }

    /// The product runs across this matrix' rows: as left side it is transposed, as right side as it stands.
    pub fn depth_across_rows(self) -> Operand<'a, T> {
        Operand { matrix: self, across: true, map: None }
    }
}

/// One side of a product.
#[derive(Clone, Copy)]
pub struct Operand<'a, T> {
    matrix: Matrix<'a, T>,
    across: bool,
    map: Option<Activation>,
}

impl<T> Operand<'_, T> {
    /// The same with an activation applied to every value as it is read.
    pub fn mapped(self, activation: Activation) -> Self {
        Self { map: (activation != Activation::Identity).then_some(activation), ..self }
    }

    /// Length of the dimension that is not summed over.
    fn extent(&self) -> usize {
        if self.across { self.matrix.width } else { self.matrix.height() }
    }

    /// Length of the dimension that is summed over.
    fn depth(&self) -> usize {
        if self.across { self.matrix.height() } else { self.matrix.width }
    }
}

/// Called with (row, first column, values) for finished parts of rows.
pub type Finish<'a, T> = &'a (dyn Fn(usize, usize, &mut [T]) + Sync);

/// Where a product goes.
pub struct Target<'a, T> {
    data: Shared<T>,
    len: usize,
    stride: usize,
    accumulate: bool,
    finish: Option<Finish<'a, T>>,
}

impl<'a, T> Target<'a, T> {
    /// Overwrites `data`, rows of `stride` values of which the product fills the first.
    pub fn new(data: &'a mut [T], stride: usize) -> Self {
        Self { len: data.len(), data: Shared::new(data), stride, accumulate: false, finish: None }
    }

    /// Adds to what is there (when `add`) instead of overwriting it.
    pub fn adding(self, add: bool) -> Self {
        Self { accumulate: add, ..self }
    }

    /// Runs `finish` on the results while they are in the cache.
    pub fn finished_by(self, finish: Finish<'a, T>) -> Self {
        Self { finish: Some(finish), ..self }
    }
}

/// A product to be computed.
pub struct Product<'a, T> {
    a: Operand<'a, T>,
    b: Operand<'a, T>,
    target: Target<'a, T>,
}

impl<'a, T> Product<'a, T> {
    /// Checks what the unsafe code behind it relies on: sizes that fit each other.
    fn new(a: Operand<'a, T>, b: Operand<'a, T>, target: Target<'a, T>) -> Self {
        assert_eq!(a.depth(), b.depth(), "sides of a product of different depths");
        let (rows, columns) = (a.extent(), b.extent());
        let reach = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * target.stride + columns };
        assert!(columns <= target.stride && reach <= target.len, "a product larger than its target");
        Self { a, b, target }
    }

    /// `(m, n, k)`: the result is `[m, n]`, the sums are over `k` terms.
    fn dims(&self) -> (usize, usize, usize) {
        (self.a.extent(), self.b.extent(), self.a.depth())
    }
}

/// `target = a b` (or `+=`), on all threads.
pub fn multiply<T: Real>(a: Operand<'_, T>, b: Operand<'_, T>, target: Target<'_, T>, precision: Precision) {
    T::multiply(&Product::new(a, b, target), precision);
}

/// The product in f32, by the best tile of this machine.
pub(super) fn multiply_f32(product: &Product<'_, f32>, precision: Precision) {
    #[cfg(target_arch = "x86_64")]
    {
        match bf16_products().filter(|_| precision == Precision::Bf16) {
            Some(Bf16Products::Bfloat16) => return packed::multiply::<tile::Avx512Bf16>(product),
            Some(Bf16Products::BlockFixed) => return packed::multiply::<tile::Avx2Fixed>(product),
            None => {}
        }
        match kernel::level() {
            Level::Avx512 => return packed::multiply::<tile::Avx512>(product),
            Level::Avx2 => return packed::multiply::<tile::Avx2>(product),
            Level::Baseline => {}
        }
    }
    let _ = precision;
    twin::multiply(product);
}

/// The product in f64.
pub(super) fn multiply_f64(product: &Product<'_, f64>) {
    twin::multiply(product);
}

/// `dst = activation(src)`.
fn map_row<T: Real>(map: Activation, src: &[T], dst: &mut [T]) {
    activation::forward(map, src, dst);
}

#[cfg(test)]
mod tests;
