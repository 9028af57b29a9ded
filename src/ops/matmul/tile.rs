//! The innermost loops: a tile of the result in registers, one multiply-add after the other.
//!
//! One long file, so that the tiles of all levels can be compared.

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
    /// Values of the depth in a block; a multiple of [`Tile::PER`], at most [`MOST_DEPTH`].
    const DEPTH: usize = MOST_DEPTH;
    /// Whether elements are whole multiples of a scale, one for each row or column in a block of the depth.
    const SCALED: bool = false;

    /// The scale of values along the depth, and what they are multiplied with.
    fn scale(_values: &[f32]) -> (f32, f32) {
        (1.0, 1.0)
    }

    /// Takes a row of values into account for the scales of its columns.
    fn observe(_values: &[f32], _seen: &mut [u32]) {}

    /// The scale of a column from what was seen of it, and what its values are multiplied with.
    fn seen_scale(_seen: u32) -> (f32, f32) {
        (1.0, 1.0)
    }

    /// Elements of a run of values along the depth, each times `inverse` where they are scaled; a last, incomplete
    /// one is filled with zeros.
    fn along(values: &[f32], inverse: f32, elements: &mut [Self::Element]);

    /// Elements of two rows (or one) that are neighbours in the depth, each times its column's `inverses` where they
    /// are scaled.
    fn across(first: &[f32], second: Option<&[f32]>, inverses: &[f32], elements: &mut [Self::Element]);

    /// `c = a b` or `c += a b` for one tile: `a` has a pointer to each row's first element and `a_step` elements
    /// between neighbours in the depth, `b` is a packed panel. Sums are multiplied with `scales` where there are any.
    ///
    /// # Safety
    /// The machine has the instructions; `units` elements of each row and panel, and the tile at `c` with
    /// `c_stride`, are inside their buffers.
    unsafe fn tile(
        units: usize,
        a: &[*const Self::Element; MOST_ROWS],
        a_step: usize,
        b: *const Self::Element,
        scales: Scales,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    );
}

/// A tile's scales, one for each row and one for each column; nothing for tiles without.
#[derive(Clone, Copy)]
pub struct Scales {
    pub rows: *const f32,
    pub columns: *const f32,
}

impl Scales {
    pub const NONE: Self = Self { rows: std::ptr::null(), columns: std::ptr::null() };
}

pub const MOST_ROWS: usize = 8;
pub const MOST_COLUMNS: usize = 32;
/// A panel of 16 columns of f32 then fills half of a first-level cache.
pub const MOST_DEPTH: usize = 256;

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

    fn along(values: &[f32], _: f32, elements: &mut [u32]) {
        pairs_along(values, elements);
    }

    fn across(first: &[f32], second: Option<&[f32]>, _: &[f32], elements: &mut [u32]) {
        pairs_across(first, second, elements);
    }

    unsafe fn tile(
        units: usize,
        a: &[*const u32; MOST_ROWS],
        a_step: usize,
        b: *const u32,
        _: Scales,
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
pub use x86::{Avx2, Avx2Fixed, Avx512, Avx512Bf16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{MOST_ROWS, Scales, Tile, pairs_across, pairs_along};

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
                _: Scales,
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

    macro_rules! f32_elements {
        () => {
            type Element = f32;
            const PER: usize = 1;
            const DIRECT: bool = true;

            fn along(values: &[f32], _: f32, elements: &mut [f32]) {
                elements[..values.len()].copy_from_slice(values);
            }

            fn across(first: &[f32], _: Option<&[f32]>, _: &[f32], elements: &mut [f32]) {
                elements[..first.len()].copy_from_slice(first);
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

        fn along(values: &[f32], _: f32, elements: &mut [u32]) {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn wide(values: &[f32], elements: &mut [u32]) {
                pairs_along(values, elements);
            }
            // SAFETY: this tile is chosen on machines with these instructions only.
            unsafe { wide(values, elements) }
        }

        fn across(first: &[f32], second: Option<&[f32]>, _: &[f32], elements: &mut [u32]) {
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

    /// 6 x 16 in pairs of 13-bit whole numbers with 32-bit sums: block fixed point, for machines whose fastest
    /// product of 16-bit values is that of integers (`vpmaddwd`).
    ///
    /// In each block of [`Tile::DEPTH`] values of the depth a row (or column) has one scale, so that its largest
    /// value becomes [`LARGEST`](Self::LARGEST). Relative to the length of a block of values the rounding error is
    /// then at most `sqrt(128) / (2 * 4095 * sqrt(3))` in the mean, 0.0008 where one value stands out from all the
    /// others and 0.0002 where they are normally distributed; bfloat16's is up to 0.0023.
    pub struct Avx2Fixed;

    impl Avx2Fixed {
        /// 128 products of two such numbers fit in 32 bits.
        pub const LARGEST: f32 = 4095.0;
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn spread_whole(at: *const u32) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_broadcastd_epi32(_mm_loadu_si32(at.cast())) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn whole(values: *const f32, inverse: __m256) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(values), inverse)) }
    }

    /// The bits without sign: those of the largest magnitude, or of a NaN, which are larger.
    #[inline(always)]
    fn widest(values: &[f32], seen: &mut [u32]) {
        for (seen, value) in seen.iter_mut().zip(values) {
            *seen = (*seen).max(value.to_bits() & 0x7fff_ffff);
        }
    }

    /// One number as it is stored.
    #[inline(always)]
    fn one_whole(value: f32, inverse: f32) -> u32 {
        u32::from(((value * inverse).round_ties_even() as i16) as u16)
    }

    impl Tile for Avx2Fixed {
        type Element = u32;
        const ROWS: usize = 6;
        const COLUMNS: usize = 16;
        const PER: usize = 2;
        const DIRECT: bool = false;
        const DEPTH: usize = 128;
        const SCALED: bool = true;

        fn scale(values: &[f32]) -> (f32, f32) {
            #[target_feature(enable = "avx2,fma")]
            fn wide(values: &[f32]) -> u32 {
                let mut lanes = [0u32; 32];
                let (whole, rest) = values.as_chunks::<32>();
                for values in whole {
                    widest(values, &mut lanes);
                }
                widest(rest, &mut lanes);
                lanes.into_iter().fold(0, u32::max)
            }
            // SAFETY: this tile is chosen on machines with these instructions only.
            Self::seen_scale(unsafe { wide(values) })
        }

        fn observe(values: &[f32], seen: &mut [u32]) {
            #[target_feature(enable = "avx2,fma")]
            fn wide(values: &[f32], seen: &mut [u32]) {
                widest(values, seen);
            }
            // SAFETY: as above.
            unsafe { wide(values, seen) }
        }

        fn seen_scale(seen: u32) -> (f32, f32) {
            let largest = f32::from_bits(seen);
            if !largest.is_finite() {
                // whatever it is multiplied with becomes NaN, which is looked for after every step
                return (f32::NAN, 0.0);
            }
            // below it the inverse would overflow; such values are nothing beside any other
            if largest < 1e-30 { (0.0, 0.0) } else { (largest / Self::LARGEST, Self::LARGEST / largest) }
        }

        fn along(values: &[f32], inverse: f32, elements: &mut [u32]) {
            #[target_feature(enable = "avx2,fma")]
            fn wide(values: &[f32], inverse: f32, elements: &mut [u32]) {
                let mut at = 0;
                let scale = _mm256_set1_ps(inverse);
                while at + 16 <= values.len() && at / 2 + 8 <= elements.len() {
                    // SAFETY: the lengths were checked.
                    unsafe {
                        let from = values.as_ptr().add(at);
                        let (low, high) = (whole(from, scale), whole(from.add(8), scale));
                        // packing works on halves of vectors, so its result has to be put in order
                        let numbers = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
                        _mm256_storeu_si256(elements.as_mut_ptr().add(at / 2).cast(), numbers);
                    }
                    at += 16;
                }
                for (element, two) in elements[at / 2..].iter_mut().zip(values[at..].chunks(2)) {
                    let second = two.get(1).map_or(0, |x| one_whole(*x, inverse));
                    *element = one_whole(two[0], inverse) | (second << 16);
                }
            }
            // SAFETY: as above.
            unsafe { wide(values, inverse, elements) }
        }

        fn across(first: &[f32], second: Option<&[f32]>, inverses: &[f32], elements: &mut [u32]) {
            #[target_feature(enable = "avx2,fma")]
            fn wide(first: &[f32], second: Option<&[f32]>, inverses: &[f32], elements: &mut [u32]) {
                let count = first.len().min(inverses.len()).min(elements.len());
                let mut at = 0;
                let low_half = _mm256_set1_epi32(0xffff);
                while at + 8 <= count {
                    // SAFETY: the lengths were checked; a second row is as long as the first.
                    unsafe {
                        let scale = _mm256_loadu_ps(inverses.as_ptr().add(at));
                        let low = _mm256_and_si256(whole(first.as_ptr().add(at), scale), low_half);
                        let high = match second {
                            Some(second) => _mm256_slli_epi32::<16>(whole(second[at..at + 8].as_ptr(), scale)),
                            None => _mm256_setzero_si256(),
                        };
                        _mm256_storeu_si256(elements.as_mut_ptr().add(at).cast(), _mm256_or_si256(low, high));
                    }
                    at += 8;
                }
                for i in at..count {
                    let high = second.map_or(0, |second| one_whole(second[i], inverses[i]));
                    elements[i] = one_whole(first[i], inverses[i]) | (high << 16);
                }
            }
            // SAFETY: as above.
            unsafe { wide(first, second, inverses, elements) }
        }

        #[target_feature(enable = "avx2,fma")]
        unsafe fn tile(
            units: usize,
            a: &[*const u32; MOST_ROWS],
            a_step: usize,
            b: *const u32,
            scales: Scales,
            c: *mut f32,
            c_stride: usize,
            accumulate: bool,
        ) {
            macro_rules! rows {
                ($do:ident) => {
                    $do!(0);
                    $do!(1);
                    $do!(2);
                    $do!(3);
                    $do!(4);
                    $do!(5);
                };
            }
            // SAFETY: the caller's promise.
            unsafe {
                let mut sums = [[_mm256_setzero_si256(); 2]; 6];
                let (mut panel, mut unit, mut at) = (b, 0, 0);
                while unit < units {
                    let (left, right) =
                        (_mm256_loadu_si256(panel.cast()), _mm256_loadu_si256(panel.wrapping_add(8).cast()));
                    panel = panel.wrapping_add(16);
                    macro_rules! multiply {
                        ($row:literal) => {
                            let value = spread_whole(a[$row].wrapping_add(at));
                            sums[$row][0] = _mm256_add_epi32(sums[$row][0], _mm256_madd_epi16(value, left));
                            sums[$row][1] = _mm256_add_epi32(sums[$row][1], _mm256_madd_epi16(value, right));
                        };
                    }
                    rows!(multiply);
                    at += a_step;
                    unit += 1;
                }
                let (left, right) = (_mm256_loadu_ps(scales.columns), _mm256_loadu_ps(scales.columns.add(8)));
                macro_rules! finish {
                    ($row:literal) => {
                        let scale = _mm256_set1_ps(*scales.rows.add($row));
                        let first = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[$row][0]), _mm256_mul_ps(scale, left));
                        let second = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[$row][1]), _mm256_mul_ps(scale, right));
                        let target = c.add($row * c_stride);
                        if accumulate {
                            _mm256_storeu_ps(target, _mm256_add_ps(_mm256_loadu_ps(target), first));
                            _mm256_storeu_ps(target.add(8), _mm256_add_ps(_mm256_loadu_ps(target.add(8)), second));
                        } else {
                            _mm256_storeu_ps(target, first);
                            _mm256_storeu_ps(target.add(8), second);
                        }
                    };
                }
                rows!(finish);
            }
        }
    }
}
