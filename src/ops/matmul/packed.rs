//! Packing and blocking around a tile.

use std::cell::RefCell;

use super::tile::{MOST_COLUMNS, MOST_DEPTH, MOST_ROWS, Scales, Tile};
use super::{Operand, Product, map_row};
use crate::ops::kernel;
use crate::ops::scratch::Buffer;

/// Values of the depth for which the whole right side is packed at a time: bounds the packed copy.
const PHASE_DEPTH: usize = 4 * MOST_DEPTH;
/// Rows of the left side a thread takes at a time; a multiple of every tile's rows, and small enough for its operands
/// to stay in a second-level cache.
const BLOCK_ROWS: usize = 96;
/// The most columns packed at a time.
const WIDEST: usize = 256;
/// Panels between two calls of `finish`.
const FINISH_PANELS: usize = 8;

/// A stretch of the depth: `[start, start + len)`.
#[derive(Clone, Copy)]
struct Depth {
    start: usize,
    len: usize,
}

impl Depth {
    fn blocks<M: Tile>(self) -> impl Iterator<Item = Self> {
        let end = self.start + self.len;
        (self.start..end).step_by(M::DEPTH).map(move |start| Self { start, len: M::DEPTH.min(end - start) })
    }

    fn units<M: Tile>(self) -> usize {
        self.len.div_ceil(M::PER)
    }
}

/// Thread-local scratch: values after a map, and the left side's elements.
struct Local<E> {
    mapped: Vec<f32>,
    elements: Vec<E>,
}

/// Lends this thread's scratch of at least these lengths.
fn with_local<E: Copy + Default, R>(mapped: usize, elements: usize, f: impl FnOnce(&mut [f32], &mut [E]) -> R) -> R {
    thread_local! {
        // 32 bits each: f32, or two bfloat16
        static LOCAL: RefCell<Option<Local<u32>>> = const { RefCell::new(None) };
    }
    assert_eq!(size_of::<E>(), size_of::<u32>());
    LOCAL.with(|cell| {
        // taken out, so that a nested call (a thread that steals work while it waits) makes its own
        let mut local = cell.take().unwrap_or(Local { mapped: Vec::new(), elements: Vec::new() });
        if local.mapped.len() < mapped {
            local.mapped.resize(mapped, 0.0);
        }
        if local.elements.len() < elements {
            local.elements.resize(elements, 0);
        }
        // SAFETY: E is f32 or u32, for which any 32 bits are a value.
        let view = unsafe { std::slice::from_raw_parts_mut(local.elements.as_mut_ptr().cast::<E>(), elements) };
        let result = f(&mut local.mapped[..mapped], view);
        cell.replace(Some(local));
        result
    })
}

/// `target = a b`, see [`super::multiply`].
pub fn multiply<M: Tile>(product: &Product<'_, f32>) {
    let (m, n, k) = product.dims();
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        return without_depth(product, m, n);
    }
    let panels = n.div_ceil(M::COLUMNS);
    let longest = Depth { start: 0, len: k.min(PHASE_DEPTH) };
    let mut packed = Buffer::<u32>::take(panels * M::COLUMNS * longest.units::<M>());
    let blocks = if M::SCALED { longest.len.div_ceil(M::DEPTH) } else { 0 };
    let mut scales = Buffer::<f32>::take(blocks * panels * M::COLUMNS);
    let rows = m.div_ceil(BLOCK_ROWS);
    // a few tasks for each thread, so that they end together; never fewer than two panels in one
    let wanted = 4 * rayon::current_num_threads();
    let splits = wanted.div_ceil(rows).clamp(1, panels.div_ceil(2));
    let per_split = panels.div_ceil(splits);
    let splits = panels.div_ceil(per_split);
    for start in (0..k).step_by(PHASE_DEPTH) {
        let phase = Depth { start, len: PHASE_DEPTH.min(k - start) };
        // SAFETY: elements are 32 bits wide, and any bits are a value.
        let elements =
            unsafe { std::slice::from_raw_parts_mut(packed.as_mut_ptr().cast::<M::Element>(), packed.len()) };
        pack_panels::<M>(&product.b, phase, panels, n, elements, &mut scales);
        let right = Right { elements: &*elements, scales: &scales, panels };
        let last = phase.start + phase.len == k;
        kernel::each(rows * splits, 1, |task| {
            let (row, split) = (task / splits, task % splits);
            let rows = row * BLOCK_ROWS..m.min((row + 1) * BLOCK_ROWS);
            let columns = split * per_split..panels.min((split + 1) * per_split);
            block::<M>(product, phase, last, rows, columns, &right);
        });
    }
}

/// A packed right side.
struct Right<'a, E> {
    elements: &'a [E],
    /// Of each block of the depth, panel and column; empty for tiles without.
    scales: &'a [f32],
    panels: usize,
}

/// A sum over nothing.
fn without_depth(product: &Product<'_, f32>, m: usize, n: usize) {
    for row in 0..m {
        // SAFETY: the target has m rows of n values.
        let values = unsafe { product.target.data.range(row * product.target.stride, n) };
        if !product.target.accumulate {
            values.fill(0.0);
        }
        if let Some(finish) = product.target.finish {
            finish(row, 0, values);
        }
    }
}

/// Packs the right side's `phase`: block after block, in each panel after panel, in each element rows of
/// [`Tile::COLUMNS`].
fn pack_panels<M: Tile>(
    side: &Operand<'_, f32>,
    phase: Depth,
    panels: usize,
    n: usize,
    packed: &mut [M::Element],
    scales: &mut [f32],
) {
    const GROUP: usize = WIDEST / MOST_COLUMNS;
    let groups = panels.div_ceil(GROUP);
    let blocks: Vec<Depth> = phase.blocks::<M>().collect();
    let (target, scales) = (kernel::Shared::new(packed), kernel::Shared::new(scales));
    kernel::each(groups * blocks.len(), 1, |task| {
        let (block, group) = (task / groups, task % groups);
        let depth = blocks[block];
        let units = depth.units::<M>();
        let first = group * GROUP;
        let count = GROUP.min(panels - first);
        let before = (block * M::DEPTH / M::PER * panels + first * units) * M::COLUMNS;
        let scaled = if M::SCALED { count * M::COLUMNS } else { 0 };
        // SAFETY: every (block, group) is its own range.
        let (part, scales) = unsafe {
            let part = target.range(before, count * units * M::COLUMNS);
            (part, scales.range(if M::SCALED { (block * panels + first) * M::COLUMNS } else { 0 }, scaled))
        };
        let columns = first * M::COLUMNS..n.min((first + count) * M::COLUMNS);
        if side.across {
            pack_across::<M>(side, depth, columns, M::COLUMNS, part, scales);
        } else {
            pack_transposed::<M>(side, depth, columns, part, scales);
        }
    });
}

/// Columns of the right side that are rows of its matrix: each is read along and written down a panel's column.
fn pack_transposed<M: Tile>(
    side: &Operand<'_, f32>,
    depth: Depth,
    columns: std::ops::Range<usize>,
    packed: &mut [M::Element],
    scales: &mut [f32],
) {
    let units = depth.units::<M>();
    let panel_size = units * M::COLUMNS;
    let mut line = [M::Element::default(); MOST_DEPTH];
    let mut mapped = [0.0; MOST_DEPTH];
    for (panel, first) in packed.chunks_exact_mut(panel_size).zip(columns.clone().step_by(M::COLUMNS)) {
        for column in 0..M::COLUMNS {
            let source = first + column;
            let mut scale = 0.0;
            if source < columns.end {
                let values = side.matrix.row(source, depth.start, depth.start + depth.len);
                let values = mapped_values(side, values, &mut mapped);
                let inverse;
                (scale, inverse) = if M::SCALED { M::scale(values) } else { (1.0, 1.0) };
                M::along(values, inverse, &mut line[..units]);
            } else {
                line.fill(M::Element::default());
            }
            if M::SCALED {
                scales[source - columns.start] = scale;
            }
            for (unit, element) in line[..units].iter().enumerate() {
                panel[unit * M::COLUMNS + column] = *element;
            }
        }
    }
}

/// Columns (or, for the left side, rows) that run across the rows of a matrix: panels of `width` of them.
fn pack_across<M: Tile>(
    side: &Operand<'_, f32>,
    depth: Depth,
    range: std::ops::Range<usize>,
    width: usize,
    packed: &mut [M::Element],
    scales: &mut [f32],
) {
    let units = depth.units::<M>();
    let end = depth.start + depth.len;
    let mut mapped = [[0.0; WIDEST]; 2];
    let mut inverses = [0.0; WIDEST];
    if M::SCALED {
        let mut seen = [0u32; WIDEST];
        for row in depth.start..end {
            let values = side.matrix.row(row, range.start, range.end);
            M::observe(mapped_values(side, values, &mut mapped[0]), &mut seen);
        }
        scales.fill(0.0);
        for ((scale, inverse), seen) in scales.iter_mut().zip(&mut inverses).zip(&seen[..range.len()]) {
            (*scale, *inverse) = M::seen_scale(*seen);
        }
    }
    let mut line = [M::Element::default(); WIDEST + MOST_COLUMNS];
    for unit in 0..units {
        let row = depth.start + unit * M::PER;
        let [one, two] = &mut mapped;
        let first = mapped_values(side, side.matrix.row(row, range.start, range.end), one);
        let second = (M::PER == 2 && row + 1 < end)
            .then(|| mapped_values(side, side.matrix.row(row + 1, range.start, range.end), two));
        M::across(first, second, &inverses[..range.len()], &mut line);
        // what is left in `line` behind the last column stays zero
        for (panel, at) in packed.chunks_exact_mut(units * width).zip((0..range.len()).step_by(width)) {
            copy(&line[at..at + width], &mut panel[unit * width..(unit + 1) * width]);
        }
    }
}

/// Copies a panel's row; widths that the compiler knows save a call.
#[inline(always)]
fn copy<E: Copy>(from: &[E], to: &mut [E]) {
    fn known<E: Copy, const N: usize>(from: &[E], to: &mut [E]) {
        if let (Ok(from), Ok(to)) = (<&[E; N]>::try_from(from), <&mut [E; N]>::try_from(to)) {
            *to = *from;
        }
    }
    match from.len() {
        6 => known::<E, 6>(from, to),
        8 => known::<E, 8>(from, to),
        16 => known::<E, 16>(from, to),
        32 => known::<E, 32>(from, to),
        _ => to.copy_from_slice(from),
    }
}

fn mapped_values<'v>(side: &Operand<'_, f32>, values: &'v [f32], space: &'v mut [f32]) -> &'v [f32] {
    match side.map {
        Some(map) => {
            let space = &mut space[..values.len()];
            map_row(map, values, space);
            space
        }
        None => values,
    }
}

/// One thread's work: a block of rows by a range of panels.
fn block<M: Tile>(
    product: &Product<'_, f32>,
    phase: Depth,
    last_phase: bool,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    right: &Right<'_, M::Element>,
) {
    let (count, panels) = (rows.len(), right.panels);
    let side = &product.a;
    let direct = M::DIRECT && !side.across && side.map.is_none();
    let space = if direct { 0 } else { count.next_multiple_of(M::ROWS) * M::DEPTH.min(phase.len).div_ceil(M::PER) };
    let mapping = if side.map.is_some() { MOST_DEPTH } else { 0 };
    let (_, n, k) = product.dims();
    with_local::<M::Element, _>(mapping, space, |mapped, elements| {
        let mut starts = [std::ptr::null::<M::Element>(); BLOCK_ROWS + MOST_ROWS];
        let mut row_scales = [0.0; BLOCK_ROWS + MOST_ROWS];
        for (index, depth) in phase.blocks::<M>().enumerate() {
            let units = depth.units::<M>();
            let step = if side.across { M::ROWS } else { 1 };
            prepare::<M>(side, depth, rows.clone(), direct, mapped, elements, &mut starts, &mut row_scales);
            let base = ((depth.start - phase.start) / M::PER * panels) * M::COLUMNS;
            let last = last_phase && depth.start + depth.len == k;
            let accumulate = product.target.accumulate || depth.start > 0;
            for group in columns.clone().step_by(FINISH_PANELS) {
                let group = group..columns.end.min(group + FINISH_PANELS);
                for panel in group.clone() {
                    let b = right.elements[base + panel * units * M::COLUMNS..].as_ptr();
                    let column = panel * M::COLUMNS;
                    for row in (0..count).step_by(M::ROWS) {
                        let mut a = [std::ptr::null(); MOST_ROWS];
                        a[..M::ROWS].copy_from_slice(&starts[row..row + M::ROWS]);
                        let (height, width) = (M::ROWS.min(count - row), M::COLUMNS.min(n - column));
                        let mut scales = Scales::NONE;
                        if M::SCALED {
                            let columns = &right.scales[(index * panels + panel) * M::COLUMNS..];
                            scales = Scales { rows: row_scales[row..].as_ptr(), columns: columns.as_ptr() };
                        }
                        // SAFETY: the tile lies inside the target, which this task has for itself.
                        unsafe {
                            let c = product.target.data.at((rows.start + row) * product.target.stride + column);
                            if height == M::ROWS && width == M::COLUMNS {
                                M::tile(units, &a, step, b, scales, c, product.target.stride, accumulate);
                            } else {
                                edge::<M>(
                                    units,
                                    &a,
                                    step,
                                    b,
                                    scales,
                                    c,
                                    product.target.stride,
                                    accumulate,
                                    height,
                                    width,
                                );
                            }
                        }
                    }
                }
                if last && let Some(finish) = product.target.finish {
                    let first = group.start * M::COLUMNS;
                    let width = n.min(group.end * M::COLUMNS) - first;
                    for row in rows.clone() {
                        // SAFETY: as above.
                        finish(row, first, unsafe {
                            product.target.data.range(row * product.target.stride + first, width)
                        });
                    }
                }
            }
        }
    });
}

/// Points `starts` to the first element of each row of the left side, packing them first where they must be.
fn prepare<M: Tile>(
    side: &Operand<'_, f32>,
    depth: Depth,
    rows: std::ops::Range<usize>,
    direct: bool,
    mapped: &mut [f32],
    elements: &mut [M::Element],
    starts: &mut [*const M::Element],
    scales: &mut [f32],
) {
    let units = depth.units::<M>();
    let count = rows.len();
    let padded = count.next_multiple_of(M::ROWS);
    if side.across {
        let scales = if M::SCALED { &mut scales[..padded] } else { &mut [] };
        pack_across::<M>(side, depth, rows, M::ROWS, elements, scales);
        for (i, start) in starts.iter_mut().enumerate().take(padded) {
            *start = elements[i / M::ROWS * units * M::ROWS + i % M::ROWS..].as_ptr();
        }
        return;
    }
    for (i, row) in rows.enumerate() {
        let values = side.matrix.row(row, depth.start, depth.start + depth.len);
        starts[i] = if direct {
            values.as_ptr().cast()
        } else {
            let line = &mut elements[i * units..(i + 1) * units];
            let values = mapped_values(side, values, mapped);
            let inverse;
            (scales[i], inverse) = if M::SCALED { M::scale(values) } else { (1.0, 1.0) };
            M::along(values, inverse, line);
            line.as_ptr()
        };
    }
    // rows past the end repeat the last: their results are thrown away
    let last = starts[count - 1];
    starts[count..padded].fill(last);
}

/// A tile that reaches over the target's edge: computed beside it, the part inside is copied.
///
/// # Safety
/// As [`Tile::tile`], with `height` rows and `width` columns of `c`.
unsafe fn edge<M: Tile>(
    units: usize,
    a: &[*const M::Element; MOST_ROWS],
    step: usize,
    b: *const M::Element,
    scales: Scales,
    c: *mut f32,
    stride: usize,
    accumulate: bool,
    height: usize,
    width: usize,
) {
    let mut tile = [0.0f32; MOST_ROWS * MOST_COLUMNS];
    // SAFETY: the caller's promise, and the array holds a whole tile.
    unsafe {
        M::tile(units, a, step, b, scales, tile.as_mut_ptr(), M::COLUMNS, false);
        for (row, values) in tile.chunks_exact(M::COLUMNS).enumerate().take(height) {
            let target = std::slice::from_raw_parts_mut(c.add(row * stride), width);
            for (target, value) in target.iter_mut().zip(values) {
                *target = if accumulate { *target + value } else { *value };
            }
        }
    }
}
