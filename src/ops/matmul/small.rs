//! Products that one thread does in its cache, on operands that stay packed for several of them: attention.
//!
//! The tiles are those of the large products; f64 and machines without vector tiles have a plain one.

#[cfg(target_arch = "x86_64")]
use super::tile::{self, Tile};
use super::tile::{MOST_COLUMNS, MOST_ROWS, Scales};
use super::{Level, Matrix};
use crate::ops::kernel;
use crate::ops::real::Real;

/// See [`Tile::tile`].
type TileFn<T> = unsafe fn(usize, &[*const T; MOST_ROWS], usize, *const T, Scales, *mut T, usize, bool);
/// `(from, stride, to, columns)`: eight rows of `from` become eight columns of a panel, eight values deep.
type TransposeFn<T> = unsafe fn(*const T, usize, *mut T, usize);

/// The tile of an element type on this machine.
#[derive(Clone, Copy)]
pub struct Small<T> {
    rows: usize,
    columns: usize,
    tile: TileFn<T>,
    transpose: Option<TransposeFn<T>>,
}

/// The left side: element `(i, k)` is `values[i * row + k * step]`.
#[derive(Clone, Copy)]
pub struct Left<'a, T> {
    pub values: &'a [T],
    pub row: usize,
    pub step: usize,
}

/// Where a product goes, and how much room there is for tiles that reach over its edge.
#[derive(Clone, Copy)]
pub struct Place<T> {
    pub data: *mut T,
    pub stride: usize,
    /// Rows and columns that may be written; at least those of the product.
    pub rows: usize,
    pub columns: usize,
}

impl Small<f32> {
    /// For f32.
    pub fn f32() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let of = |rows, columns, tile| Self { rows, columns, tile, transpose: Some(x86::transpose) };
            match kernel::level() {
                Level::Avx512 => return of(tile::Avx512::ROWS, tile::Avx512::COLUMNS, tile::Avx512::tile),
                Level::Avx2 => return of(tile::Avx2::ROWS, tile::Avx2::COLUMNS, tile::Avx2::tile),
                Level::Baseline => {}
            }
        }
        Self::plain()
    }
}

impl<T: Real> Small<T> {
    /// Without vector instructions of its own.
    pub fn plain() -> Self {
        Self { rows: 4, columns: 16, tile: plain_tile::<T>, transpose: None }
    }

    /// `columns` made a multiple of a tile's.
    pub fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(self.columns)
    }

    /// `rows` made a multiple of a tile's.
    pub fn padded_rows(&self, rows: usize) -> usize {
        rows.next_multiple_of(self.rows)
    }

    /// Packs a right side whose depth runs across the matrix' rows: `[depth, columns]` as it stands.
    pub fn pack(&self, matrix: Matrix<'_, T>, panels: &mut [T]) {
        let (depth, width) = (matrix.height(), matrix.width);
        for (panel, first) in panels.chunks_exact_mut(depth.max(1) * self.columns).zip((0..width).step_by(self.columns))
        {
            let last = width.min(first + self.columns);
            for (k, line) in panel.chunks_exact_mut(self.columns).enumerate() {
                let (values, rest) = line.split_at_mut(last - first);
                values.copy_from_slice(matrix.row(k, first, last));
                rest.fill(T::ZERO);
            }
        }
    }

    /// Packs a right side whose depth runs along the matrix' rows: its rows become columns.
    pub fn pack_transposed(&self, matrix: Matrix<'_, T>, panels: &mut [T]) {
        const SIDE: usize = 8;
        let (columns, depth) = (matrix.height(), matrix.width);
        let size = depth.max(1) * self.columns;
        for (panel, first) in panels.chunks_exact_mut(size).zip((0..columns).step_by(self.columns)) {
            for group in (first..first + self.columns).step_by(SIDE) {
                let mut from = 0;
                if let Some(transpose) = self.transpose
                    && group + SIDE <= columns
                {
                    let blocks = depth / SIDE;
                    for block in 0..blocks {
                        let source = matrix.left().values[group * matrix.stride + block * SIDE..].as_ptr();
                        let target = panel[block * SIDE * self.columns + group - first..].as_mut_ptr();
                        // SAFETY: eight rows of eight values are there on both sides, the panel's rows included.
                        unsafe { transpose(source, matrix.stride, target, self.columns) };
                    }
                    from = blocks * SIDE;
                }
                for row in group..group + SIDE {
                    let values = if row < columns { matrix.row(row, 0, depth) } else { &[] };
                    for k in from..depth {
                        panel[k * self.columns + row - first] = values.get(k).copied().unwrap_or(T::ZERO);
                    }
                }
            }
        }
    }

    /// `place = left panels` or `+=`: `[m, k]` times `[k, n]`.
    ///
    /// # Safety
    /// What `place` says is there and nobody else uses it meanwhile.
    pub unsafe fn product(
        &self,
        left: Left<'_, T>,
        panels: &[T],
        (m, n, k): (usize, usize, usize),
        place: Place<T>,
        accumulate: bool,
    ) {
        if m == 0 || n == 0 {
            return;
        }
        let reach = (m - 1) * left.row + k.saturating_sub(1) * left.step;
        assert!(k == 0 || reach < left.values.len(), "a product's left side is too short");
        assert!(panels.len() >= k * self.padded(n), "a product's right side is too short");
        assert!(place.rows >= m && place.columns >= n, "a product's place is too small");
        let start = left.values.as_ptr();
        for row in (0..m).step_by(self.rows) {
            let mut a = [start; MOST_ROWS];
            for (i, a) in a.iter_mut().enumerate().take(self.rows) {
                // rows past the end repeat the last
                *a = start.wrapping_add((row + i).min(m - 1) * left.row);
            }
            for (panel, column) in (0..n).step_by(self.columns).enumerate() {
                let b = panels[panel * k * self.columns..].as_ptr();
                // SAFETY: the caller's promise and the checks above.
                unsafe {
                    let c = place.data.add(row * place.stride + column);
                    if row + self.rows <= place.rows && column + self.columns <= place.columns {
                        (self.tile)(k, &a, left.step, b, Scales::NONE, c, place.stride, accumulate);
                    } else {
                        let (height, width) = (self.rows.min(m - row), self.columns.min(n - column));
                        self.edge(k, &a, left.step, b, c, place.stride, accumulate, height, width);
                    }
                }
            }
        }
    }

    /// A tile of which only `height` rows and `width` columns have a place.
    unsafe fn edge(
        &self,
        k: usize,
        a: &[*const T; MOST_ROWS],
        step: usize,
        b: *const T,
        c: *mut T,
        stride: usize,
        accumulate: bool,
        height: usize,
        width: usize,
    ) {
        let mut tile = [T::ZERO; MOST_ROWS * MOST_COLUMNS];
        // SAFETY: the caller's promise, and the array holds a whole tile.
        unsafe {
            (self.tile)(k, a, step, b, Scales::NONE, tile.as_mut_ptr(), self.columns, false);
            for (row, values) in tile.chunks_exact(self.columns).enumerate().take(height) {
                let target = std::slice::from_raw_parts_mut(c.add(row * stride), width);
                for (target, value) in target.iter_mut().zip(values) {
                    *target = if accumulate { *target + *value } else { *value };
                }
            }
        }
    }
}

/// 4 x 16, as the compiler makes it.
unsafe fn plain_tile<T: Real>(
    units: usize,
    a: &[*const T; MOST_ROWS],
    step: usize,
    b: *const T,
    _: Scales,
    c: *mut T,
    stride: usize,
    accumulate: bool,
) {
    let mut sums = [[T::ZERO; 16]; 4];
    for unit in 0..units {
        // SAFETY: the caller promises `units` elements of each row and of the panel.
        let (line, left) = unsafe {
            let line = &*b.add(unit * 16).cast::<[T; 16]>();
            (line, [0, 1, 2, 3].map(|row| *a[row].add(unit * step)))
        };
        for (sums, left) in sums.iter_mut().zip(left) {
            for (sum, right) in sums.iter_mut().zip(line) {
                *sum += left * *right;
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: the tile lies inside the target.
        let target = unsafe { std::slice::from_raw_parts_mut(c.add(row * stride), 16) };
        for (target, sum) in target.iter_mut().zip(sums) {
            *target = if accumulate { *target + *sum } else { *sum };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// See [`super::TransposeFn`].
    #[target_feature(enable = "avx2")]
    pub unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, columns: usize) {
        // SAFETY: the caller promises eight rows of eight values on both sides.
        unsafe {
            let row = |i: usize| _mm256_loadu_ps(from.add(i * stride));
            let pairs = |a: __m256, b: __m256| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (a0, a1) = pairs(row(0), row(1));
            let (a2, a3) = pairs(row(2), row(3));
            let (a4, a5) = pairs(row(4), row(5));
            let (a6, a7) = pairs(row(6), row(7));
            // four rows of a column, in each half
            let low = |a: __m256, b: __m256| _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
            let high = |a: __m256, b: __m256| _mm256_shuffle_ps::<0b11_10_11_10>(a, b);
            let top = [low(a0, a2), high(a0, a2), low(a1, a3), high(a1, a3)];
            let bottom = [low(a4, a6), high(a4, a6), low(a5, a7), high(a5, a7)];
            for i in 0..4 {
                let first = _mm256_permute2f128_ps::<0x20>(top[i], bottom[i]);
                let second = _mm256_permute2f128_ps::<0x31>(top[i], bottom[i]);
                _mm256_storeu_ps(to.add(i * columns), first);
                _mm256_storeu_ps(to.add((i + 4) * columns), second);
            }
        }
    }
}
