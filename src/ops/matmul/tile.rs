//! The innermost loops: a tile of the result in registers, one multiply-add after the other.

/// One level's tile and the way its operands are stored.
pub trait Tile {
    /// What is stored for [`Tile::PER`] neighbouring values of the depth.
    type Element: Copy + Default + Send + Sync;
    /// Rows of a tile; at most [`MOST_ROWS`].
    const ROWS: usize;
    /// Columns of a tile; at most [`MOST_COLUMNS`].
    const COLUMNS: usize;
    /// Values of the depth in an element.
    const PER: usize;
    /// Whether rows of f32 are rows of elements.
    const DIRECT: bool;

    /// Elements of a run of values along the depth; a last, incomplete one is filled with zeros.
    fn along(values: &[f32], elements: &mut [Self::Element]);

    /// Elements of two rows (or one) that are neighbours in the depth.
    fn across(first: &[f32], second: Option<&[f32]>, elements: &mut [Self::Element]);

    /// `c = a b` or `c += a b` for one tile: `a` has a pointer to each row's first element and `a_step` elements
    /// between neighbours in the depth, `b` is a packed panel.
    ///
    /// # Safety
    /// The machine has the instructions; `units` elements of each row and panel, and the tile at `c` with
    /// `c_stride`, are inside their buffers.
    unsafe fn tile(
        units: usize,
        a: &[*const Self::Element; MOST_ROWS],
        a_step: usize,
        b: *const Self::Element,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    );
}

pub const MOST_ROWS: usize = 8;
pub const MOST_COLUMNS: usize = 32;

/// Two bfloat16 in the order AVX512-BF16 wants them: the first in the low half.
#[inline(always)]
fn pair(first: f32, second: f32) -> u32 {
    round(first) | (round(second) << 16)
}

/// The nearest bfloat16, ties to even, as `half::bf16::from_f32` but without branches.
#[inline(always)]
fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    if value.is_nan() { (bits >> 16) | 0x40 } else { rounded }
}

#[inline(always)]
fn pairs_along(values: &[f32], elements: &mut [u32]) {
    let whole = values.chunks_exact(2);
    if let ([last], Some(element)) = (whole.remainder(), elements.get_mut(values.len() / 2)) {
        *element = pair(*last, 0.0);
    }
    for (element, two) in elements.iter_mut().zip(whole) {
        *element = pair(two[0], two[1]);
    }
}

#[inline(always)]
fn pairs_across(first: &[f32], second: Option<&[f32]>, elements: &mut [u32]) {
    match second {
        Some(second) => {
            for ((element, a), b) in elements.iter_mut().zip(first).zip(second) {
                *element = pair(*a, *b);
            }
        }
        None => {
            for (element, a) in elements.iter_mut().zip(first) {
                *element = pair(*a, 0.0);
            }
        }
    }
}

/// What AVX512-BF16 computes, one lane at a time: for tests on machines without it.
#[cfg(test)]
pub struct Emulated;

#[cfg(test)]
impl Tile for Emulated {
    type Element = u32;
    const ROWS: usize = 8;
    const COLUMNS: usize = 32;
    const PER: usize = 2;
    const DIRECT: bool = false;

    fn along(values: &[f32], elements: &mut [u32]) {
        pairs_along(values, elements);
    }

    fn across(first: &[f32], second: Option<&[f32]>, elements: &mut [u32]) {
        pairs_across(first, second, elements);
    }

    unsafe fn tile(
        units: usize,
        a: &[*const u32; MOST_ROWS],
        a_step: usize,
        b: *const u32,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    ) {
        let halves = |x: u32| {
            let value = |bits: u16| half::bf16::from_bits(bits).to_f32();
            (value(x as u16), value((x >> 16) as u16))
        };
        for (row, a) in a.iter().enumerate().take(Self::ROWS) {
            for column in 0..Self::COLUMNS {
                let mut sum = 0.0f32;
                for unit in 0..units {
                    // SAFETY: the caller's promise.
                    let (x, y) = unsafe { (*a.add(unit * a_step), *b.add(unit * Self::COLUMNS + column)) };
                    let ((x0, x1), (y0, y1)) = (halves(x), halves(y));
                    sum = x0.mul_add(y0, x1.mul_add(y1, sum));
                }
                // SAFETY: the caller's promise.
                let c = unsafe { &mut *c.add(row * c_stride + column) };
                *c = if accumulate { *c + sum } else { sum };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512, Avx512Bf16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{MOST_ROWS, Tile, pairs_across, pairs_along};

    /// A tile: two vectors of columns for each of the rows listed.
    macro_rules! tile {
        (
            features: $features:literal, element: $element:ty,
            rows: [$($row:tt)*], lanes: $lanes:expr, zero: $zero:expr,
            load: $load:path, spread: $spread:path, multiply_add: $multiply_add:path,
            add: $add:path, store: $store:path, load_c: $load_c:path
        ) => {
            #[target_feature(enable = $features)]
            unsafe fn tile(
                units: usize,
                a: &[*const $element; MOST_ROWS],
                a_step: usize,
                b: *const $element,
                c: *mut f32,
                c_stride: usize,
                accumulate: bool,
            ) {
                // SAFETY: the caller's promise.
                unsafe {
                    let mut sums = [[$zero; 2]; MOST_ROWS];
                    // nothing here that a build with little optimisation would leave as a call or a check
                    let (mut panel, mut unit, mut at) = (b, 0, 0);
                    while unit < units {
                        let (left, right) = ($load(panel), $load(panel.wrapping_add($lanes)));
                        panel = panel.wrapping_add(2 * $lanes);
                        $(
                            let value = $spread(a[$row].wrapping_add(at));
                            sums[$row][0] = $multiply_add(value, left, sums[$row][0]);
                            sums[$row][1] = $multiply_add(value, right, sums[$row][1]);
                        )*
                        at += a_step;
                        unit += 1;
                    }
                    $(
                        let target = c.add($row * c_stride);
                        if accumulate {
                            $store(target, $add($load_c(target), sums[$row][0]));
                            $store(target.add($lanes), $add($load_c(target.add($lanes)), sums[$row][1]));
                        } else {
                            $store(target, sums[$row][0]);
                            $store(target.add($lanes), sums[$row][1]);
                        }
                    )*
                }
            }
        };
    }

    #[inline(always)]
    fn copy<const N: usize>(from: &[f32], to: &mut [f32]) {
        if let (Ok(from), Ok(to)) = (<&[f32; N]>::try_from(from), <&mut [f32; N]>::try_from(to)) {
            *to = *from;
        }
    }

    macro_rules! f32_elements {
        () => {
            type Element = f32;
            const PER: usize = 1;
            const DIRECT: bool = true;

            fn along(values: &[f32], elements: &mut [f32]) {
                elements[..values.len()].copy_from_slice(values);
            }

            fn across(first: &[f32], _: Option<&[f32]>, elements: &mut [f32]) {
                // a length known to the compiler saves a call for each panel's row
                const WIDTHS: [usize; 2] = [Avx2::COLUMNS, Avx512::COLUMNS];
                match (first.len(), elements.len()) {
                    (n, m) if n == WIDTHS[0] && m == n => copy::<{ WIDTHS[0] }>(first, elements),
                    (n, m) if n == WIDTHS[1] && m == n => copy::<{ WIDTHS[1] }>(first, elements),
                    (n, m) if n == Self::ROWS && m == n => copy::<{ Self::ROWS }>(first, elements),
                    (n, _) => elements[..n].copy_from_slice(first),
                }
            }
        };
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn spread_8(at: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_broadcastss_ps(_mm_load_ss(at)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn spread_16(at: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_broadcastss_ps(_mm_load_ss(at)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_pairs(at: *const u32) -> __m512bh {
        // SAFETY: the caller's promise; vectors of one size hold the same bits.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(at.cast())) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn spread_pairs(at: *const u32) -> __m512bh {
        // SAFETY: as above.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_broadcastd_epi32(_mm_loadu_si32(at.cast()))) }
    }

    #[inline]
    #[target_feature(enable = "avx512bf16,avx512f")]
    unsafe fn multiply_pairs(x: __m512bh, y: __m512bh, sum: __m512) -> __m512 {
        _mm512_dpbf16_ps(sum, x, y)
    }

    /// 6 x 16 in f32.
    pub struct Avx2;

    impl Tile for Avx2 {
        const ROWS: usize = 6;
        const COLUMNS: usize = 16;
        f32_elements!();

        tile!(
            features: "avx2,fma", element: f32,
            rows: [0 1 2 3 4 5], lanes: 8, zero: _mm256_setzero_ps(),
            load: _mm256_loadu_ps, spread: spread_8, multiply_add: _mm256_fmadd_ps,
            add: _mm256_add_ps, store: _mm256_storeu_ps, load_c: _mm256_loadu_ps
        );
    }

    /// 8 x 32 in f32.
    pub struct Avx512;

    impl Tile for Avx512 {
        const ROWS: usize = 8;
        const COLUMNS: usize = 32;
        f32_elements!();

        tile!(
            features: "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", element: f32,
            rows: [0 1 2 3 4 5 6 7], lanes: 16, zero: _mm512_setzero_ps(),
            load: _mm512_loadu_ps, spread: spread_16, multiply_add: _mm512_fmadd_ps,
            add: _mm512_add_ps, store: _mm512_storeu_ps, load_c: _mm512_loadu_ps
        );
    }

    /// 8 x 32 in pairs of bfloat16 with f32 sums.
    pub struct Avx512Bf16;

    impl Tile for Avx512Bf16 {
        type Element = u32;
        const ROWS: usize = 8;
        const COLUMNS: usize = 32;
        const PER: usize = 2;
        const DIRECT: bool = false;

        fn along(values: &[f32], elements: &mut [u32]) {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn wide(values: &[f32], elements: &mut [u32]) {
                pairs_along(values, elements);
            }
            // SAFETY: this tile is chosen on machines with these instructions only.
            unsafe { wide(values, elements) }
        }

        fn across(first: &[f32], second: Option<&[f32]>, elements: &mut [u32]) {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn wide(first: &[f32], second: Option<&[f32]>, elements: &mut [u32]) {
                pairs_across(first, second, elements);
            }
            // SAFETY: as above.
            unsafe { wide(first, second, elements) }
        }

        tile!(
            features: "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", element: u32,
            rows: [0 1 2 3 4 5 6 7], lanes: 16, zero: _mm512_setzero_ps(),
            load: load_pairs, spread: spread_pairs, multiply_add: multiply_pairs,
            add: _mm512_add_ps, store: _mm512_storeu_ps, load_c: _mm512_loadu_ps
        );
    }
}
