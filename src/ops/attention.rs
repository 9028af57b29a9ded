//! Multi-head attention over packed sequences: every token sees the tokens of its own sequence, nothing is padded.
//!
//! No score matrix is kept for the backward pass; it is computed again from queries and keys.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::composed;
use super::context::{Dropout, keeps};
use super::kernel::{self, Shared, by_dtype, simd_fn};
use super::matmul::{Left, Matrix, Place, Small};
use super::real::{LANES, Real, add_lanes, max_of, sum_by};
use super::relative::Relative;
use super::sight::{QUERIES, Queries, Sight, Span};

/// `dropout(softmax(q kᵀ / sqrt(head_dim))) v` within each sequence and head.
///
/// # Shapes
/// `q`, `k`, `v` `[tokens, heads * head_dim]`, `offsets` `[sequences + 1]`; the result is like `q`.
///
/// # Errors
/// When the shapes, the offsets or the element types do not fit.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    offsets: &Arc<Vec<u32>>,
    heads: usize,
    dropout: Dropout,
) -> Result<Tensor> {
    let &[tokens, width] = q.dims() else {
        bail!("attention: expected [tokens, width], got {:?}", q.dims());
    };
    if k.dims() != q.dims() || v.dims() != q.dims() {
        bail!("attention: q, k, v are {:?}, {:?}, {:?}", q.dims(), k.dims(), v.dims());
    }
    if heads == 0 || !width.is_multiple_of(heads) {
        bail!("attention: {heads} heads do not divide a width of {width}");
    }
    kernel::check_offsets("attention", offsets, tokens)?;
    if composed::wanted(q) {
        return composed::attention(q, k, v, (offsets, &[]), heads, dropout, (Sight::All, None));
    }
    let attention = Attention::new((offsets, &[]), heads, width, dropout, Sight::All, None);
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, attention)
}

/// [`attention`] with something added to each score by how far the key stands from its query, after scores are scaled.
///
/// # Shapes
/// As there.
///
/// # Errors
/// As there, and when the distances do not reach over the longest sequence.
pub fn relative_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    (offsets, attended): (&Arc<Vec<u32>>, &[u32]),
    heads: usize,
    relative: &Relative,
    dropout: Dropout,
) -> Result<Tensor> {
    let &[tokens, width] = q.dims() else {
        bail!("attention: expected [tokens, width], got {:?}", q.dims());
    };
    if k.dims() != q.dims() || v.dims() != q.dims() || heads == 0 || !width.is_multiple_of(heads) {
        bail!("attention: q, k, v are {:?}, {:?}, {:?} of {heads} heads", q.dims(), k.dims(), v.dims());
    }
    kernel::check_offsets("attention", offsets, tokens)?;
    if !attended.is_empty() && attended.len() + 1 != offsets.len() {
        bail!("attention: {} sequences, and {} of their lengths", offsets.len() - 1, attended.len());
    }
    let longest = offsets.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
    relative.check(heads, longest, q.dtype())?;
    if composed::wanted(q) {
        return composed::attention(q, k, v, (offsets, attended), heads, dropout, (Sight::All, Some(relative)));
    }
    let attention = Attention::new((offsets, attended), heads, width, dropout, Sight::All, Some(relative.clone()));
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, attention)
}

/// Offsets `[sequences + 1]`, and how many leading tokens of each sequence are looked at: `[sequences]`, or empty for all.
pub(super) type Attended<'a> = (&'a [u32], &'a [u32]);

/// Attention of packed sequences on host values.
pub(super) struct Attention {
    pub(super) tasks: Tasks,
    pub(super) width: usize,
    pub(super) head_dim: usize,
    dropout: Dropout,
    sight: Sight,
    relative: Option<Relative>,
}

/// What is added to the scores of each head by distance, `[heads, 2 * reach + 1]`, as they are before they are scaled;
/// nothing where distances do not count.
struct Distances<T> {
    values: Vec<T>,
    reach: usize,
}

impl<T> Distances<T> {
    /// Of a head, from the distance of key `key` to query `query` on.
    fn of(&self, head: usize, query: usize, key: usize) -> Option<&[T]> {
        let width = 2 * self.reach + 1;
        let own = self.values.get(head * width..(head + 1) * width)?;
        own.get(self.reach + key - query..)
    }
}

/// The (sequence, head) pairs, longest sequences first so that threads end together.
pub(super) struct Tasks(pub(super) Vec<Task>);

#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) start: usize,
    pub(super) length: usize,
    /// The leading tokens that are looked at.
    pub(super) attended: usize,
    pub(super) head: usize,
    /// Position of this task's first score in the numbering that dropout uses.
    pub(super) first_score: u32,
}

impl Tasks {
    fn new((offsets, attended): Attended<'_>, heads: usize) -> Self {
        let mut tasks = Vec::with_capacity((offsets.len() - 1) * heads);
        let mut first_score = 0u32;
        for (i, w) in offsets.windows(2).enumerate() {
            let length = (w[1] - w[0]) as usize;
            if length == 0 {
                continue;
            }
            let attended = attended.get(i).map_or(length, |leading| (*leading as usize).clamp(1, length));
            for head in 0..heads {
                tasks.push(Task { start: w[0] as usize, length, attended, head, first_score });
                first_score = first_score.wrapping_add((length * length) as u32);
            }
        }
        tasks.sort_by_key(|t| std::cmp::Reverse(t.length));
        Self(tasks)
    }
}

simd_fn! {
    /// Rows of `padded` scores become rows of probabilities, `softmax(score * scale)`. Of row `i` those in `seen(i)`
    /// count; where there are none, all are 0.
    pub(super) fn softmax_rows<T>(scores: &mut [T], padded: usize, scale: T, seen: impl Fn(usize) -> Range<usize>) {
        for (i, row) in scores.chunks_exact_mut(padded).enumerate() {
            let seen = seen(i);
            row[..seen.start].fill(T::NEG_INFINITY);
            row[seen.end..].fill(T::NEG_INFINITY);
            if seen.is_empty() {
                row.fill(T::ZERO);
                continue;
            }
            let top = max_of(row);
            let mut sums = [T::ZERO; LANES];
            let (lanes, rest) = row.as_chunks_mut::<LANES>();
            for lane in lanes {
                for (s, sum) in lane.iter_mut().zip(&mut sums) {
                    *s = ((*s - top) * scale).exp();
                    *sum += *s;
                }
            }
            debug_assert!(rest.is_empty(), "rows of scores are padded to whole vectors");
            let inverse = T::ONE / add_lanes(sums);
            for s in row.iter_mut() {
                *s *= inverse;
            }
        }
    }
}

simd_fn! {
    /// `scores *= mask * scale`; `first` is the number that dropout gives the first score.
    pub(super) fn drop_scores<T>(scores: &mut [T], length: usize, padded: usize, first: u32, parts: (u32, u32, u32), scale: T) {
        for (row, scores) in scores.chunks_exact_mut(padded).enumerate() {
            let first = first.wrapping_add((row * length) as u32);
            for (i, s) in scores.iter_mut().enumerate() {
                *s *= if keeps(parts, first.wrapping_add(i as u32)) { scale } else { T::ZERO };
            }
        }
    }
}

simd_fn! {
    /// In place over `d` (the gradient of the probabilities): that of the scores, `p * (d - Σ d p) * scale`.
    pub(super) fn softmax_backward_rows<T>(p: &[T], d: &mut [T], padded: usize, scale: T) {
        for (p, d) in p.chunks_exact(padded).zip(d.chunks_exact_mut(padded)) {
            let along = sum_by(padded, |i| p[i] * d[i]);
            for (d, p) in d.iter_mut().zip(p) {
                *d = *p * (*d - along) * scale;
            }
        }
    }
}

/// Scores a thread takes at a time, at least.
const SCORES_PER_TURN: usize = 4096;

/// Scratch space of a thread, kept between tasks and calls.
pub(super) fn with_scratch<T: Real, const N: usize, R>(lengths: [usize; N], f: impl FnOnce([&mut [T]; N]) -> R) -> R {
    thread_local! {
        static BYTES: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    let total: usize = lengths.iter().sum();
    let words = (total * size_of::<T>()).div_ceil(size_of::<u64>());
    BYTES.with(|cell| {
        let mut store = cell.take();
        if store.len() < words {
            store.resize(words, 0);
        }
        // SAFETY: T is f32 or f64: any bits are a value, alignment of u64 suffices, and the length was checked.
        let mut all = unsafe { std::slice::from_raw_parts_mut(store.as_mut_ptr().cast::<T>(), total) };
        let parts = lengths.map(|length| {
            let (part, rest) = std::mem::take(&mut all).split_at_mut(length);
            all = rest;
            part
        });
        let result = f(parts);
        cell.replace(store);
        result
    })
}

/// Rows of scores in scratch space, padded on both sides to whole tiles.
pub(super) fn scores_place<T>(scores: &mut [T], padded: usize) -> Place<T> {
    Place { stride: padded, rows: scores.len() / padded.max(1), columns: padded, data: scores.as_mut_ptr() }
}

impl Attention {
    /// `heads` divide `width`, and the offsets cover the tokens.
    pub(super) fn new(
        offsets: Attended<'_>,
        heads: usize,
        width: usize,
        dropout: Dropout,
        sight: Sight,
        relative: Option<Relative>,
    ) -> Self {
        Self { tasks: Tasks::new(offsets, heads), width, head_dim: width / heads, dropout, sight, relative }
    }

    fn distances<T: Real>(&self) -> Result<Distances<T>> {
        Ok(match &self.relative {
            None => Distances { values: Vec::new(), reach: 0 },
            Some(relative) => {
                let scale = T::of((self.head_dim as f64).sqrt());
                Distances { values: relative.values(scale)?, reach: relative.reach() }
            }
        })
    }

    pub(super) fn mask(&self) -> Option<((u32, u32, u32), f64)> {
        self.dropout.active().then(|| (self.dropout.parts(), self.dropout.scale()))
    }

    fn scale<T: Real>(&self) -> T {
        T::of(1.0 / (self.head_dim as f64).sqrt())
    }

    /// Runs `work` on every task: one thread each, the longest first.
    pub(super) fn each(&self, work: impl Fn(usize, Task) + Sync) {
        let tasks = &self.tasks.0;
        let scores: usize = tasks.iter().map(|t| t.length * self.sight.most(t.length)).sum();
        let grain = (SCORES_PER_TURN * tasks.len()).div_ceil(scores.max(1)).max(1);
        kernel::each(tasks.len(), grain, |i| work(i, tasks[i]));
    }

    /// The rows and columns of one task.
    pub(super) fn part<'a, T>(&self, all: Matrix<'a, T>, task: Task) -> Matrix<'a, T> {
        all.columns(task.head * self.head_dim, self.head_dim).rows(task.start, task.length)
    }

    /// Where the rows from `first` on of one task's result go, in rows of `stride` values.
    pub(super) fn place<T>(&self, data: Shared<T>, stride: usize, task: Task, first: usize, rows: usize) -> Place<T> {
        let start = data.skip((task.start + first) * stride + task.head * self.head_dim);
        Place { data: start.start(), stride, rows, columns: self.head_dim }
    }

    /// The probabilities of a block of queries, those from number `first` on, before dropout; `keys` are the span's,
    /// packed.
    fn probabilities<T: Real>(
        &self,
        small: &Small<T>,
        (first, q): (usize, Matrix<'_, T>),
        (span, keys): (&Span, &[T]),
        (task, distances): (Task, &Distances<T>),
        scores: &mut [T],
    ) {
        let (start, padded) = (span.keys.start, small.padded(span.keys.len()));
        let place = scores_place(scores, padded);
        // the padding is computed, too: keys are padded with zeros
        // SAFETY: the place is the whole of `scores`.
        unsafe { small.product(q.left(), keys, (q.height(), padded, self.head_dim), place, false) };
        for (i, row) in scores.chunks_exact_mut(padded).take(q.height()).enumerate() {
            if let Some(added) = distances.of(task.head, first + i, start) {
                row.iter_mut().zip(added).take(span.keys.len()).for_each(|(score, added)| *score += *added);
            }
        }
        softmax_rows(&mut scores[..q.height() * padded], padded, self.scale(), |i| {
            let seen = self.sight.of(first + i, task.length);
            // none where what is near is not attended
            seen.start - start..seen.end.min(task.attended).max(seen.start) - start
        });
    }

    /// `q`, `k`, `v` have `width` columns; `out` `[tokens, width]`.
    pub(super) fn forward<T: Real>(&self, [q, k, v]: [Matrix<'_, T>; 3], out: &mut [T]) -> Result<()> {
        let (small, target, head_dim) = (T::small(), Shared::new(out), self.head_dim);
        let distances = self.distances::<T>()?;
        self.each(|_, task| {
            let length = task.length;
            let (q, k, v) = (self.part(q, task), self.part(k, task), self.part(v, task));
            let most = self.sight.spans(length).map(|span| span.keys.len()).max().unwrap_or(0);
            let (padded, rows) = (small.padded(most), small.padded_rows(QUERIES.min(length)));
            let sizes = [padded * head_dim, most * small.padded(head_dim), rows * padded];
            with_scratch(sizes, |[keys, values, scores]| {
                for span in self.sight.spans(length) {
                    let (start, count) = (span.keys.start, span.keys.len());
                    let padded = small.padded(count);
                    small.pack_transposed(k.rows(start, count), keys);
                    small.pack(v.rows(start, count), values);
                    for Queries { first, rows } in span.blocks() {
                        let queries = (first, q.rows(first, rows));
                        self.probabilities(&small, queries, (&span, keys), (task, &distances), scores);
                        if let Some((parts, scale)) = self.mask() {
                            let first = task.first_score.wrapping_add((first * length + start) as u32);
                            drop_scores(&mut scores[..rows * padded], length, padded, first, parts, T::of(scale));
                        }
                        let left = Left { values: &*scores, row: padded, step: 1 };
                        let place = self.place(target, self.width, task, first, rows);
                        // SAFETY: each task writes the columns of its head in the rows of its sequence.
                        unsafe { small.product(left, values, (rows, head_dim, count), place, false) };
                    }
                }
            });
        });
        Ok(())
    }

    /// The gradients of `q`, `k` and `v`, at the given places in rows of `stride` values; where tokens see those near
    /// them, the places of `k` and `v` hold zeros before.
    ///
    /// # Safety
    /// From each of `places` on there are `tokens` rows of `stride` values, and `width` columns of them are free.
    pub(super) unsafe fn backward<T: Real>(
        &self,
        inputs: [Matrix<'_, T>; 3],
        d_out: Matrix<'_, T>,
        places: [Shared<T>; 3],
        stride: usize,
    ) -> Result<()> {
        let small = T::small();
        let distances = self.distances::<T>()?;
        let width = 2 * distances.reach + 1;
        let sums: Mutex<Vec<(usize, usize, Vec<T>)>> = Mutex::new(Vec::new());
        let learnt = self.relative.as_ref().filter(|relative| relative.table().trainable());
        self.each(|number, task| {
            let mut own = vec![T::ZERO; if learnt.is_some() { width } else { 0 }];
            // SAFETY: the caller's promise.
            unsafe { self.backward_task(&small, (task, &distances, &mut own), inputs, d_out, places, stride) };
            if !own.is_empty() {
                sums.lock().unwrap_or_else(PoisonError::into_inner).push((number, task.head, own));
            }
        });
        let Some(relative) = learnt else { return Ok(()) };
        // in the order of the tasks, whichever ended first
        let mut sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        sums.sort_by_key(|(number, _, _)| *number);
        let mut all = vec![T::ZERO; width * relative.heads()];
        for (_, head, own) in sums {
            all[head * width..(head + 1) * width].iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        let scale = T::of((self.head_dim as f64).sqrt());
        all.iter_mut().for_each(|sum| *sum *= scale);
        relative.accumulate(&all)
    }

    /// # Safety
    /// As [`Self::backward`].
    unsafe fn backward_task<T: Real>(
        &self,
        small: &Small<T>,
        (task, distances, sums): (Task, &Distances<T>, &mut [T]),
        [q, k, v]: [Matrix<'_, T>; 3],
        d_out: Matrix<'_, T>,
        [dq, dk, dv]: [Shared<T>; 3],
        stride: usize,
    ) {
        let (length, head_dim, mask) = (task.length, self.head_dim, self.mask());
        let most_keys = self.sight.spans(length).map(|span| span.keys.len()).max().unwrap_or(0);
        let (padded, wide) = (small.padded(most_keys), small.padded(head_dim));
        let most = QUERIES.min(length);
        let square = small.padded_rows(most) * padded;
        let dropped = if mask.is_some() { square } else { 0 };
        let lengths = [padded * head_dim, padded * head_dim, most_keys * wide, most * wide, square, square, dropped];
        let [q, k, v, d_out] = [q, k, v, d_out].map(|m| self.part(m, task));
        with_scratch(lengths, |[keys_down, values_down, keys, queries, p, d, after]| {
            for span in self.sight.spans(length) {
                let (start, count) = (span.keys.start, span.keys.len());
                let padded = small.padded(count);
                small.pack_transposed(k.rows(start, count), keys_down);
                small.pack_transposed(v.rows(start, count), values_down);
                small.pack(k.rows(start, count), keys);
                for Queries { first, rows } in span.blocks() {
                    // spans share keys: none of them is the first to write a gradient
                    let add = first > 0 || self.sight.is_window();
                    let (q, d_out) = (q.rows(first, rows), d_out.rows(first, rows));
                    let first_score = task.first_score.wrapping_add((first * length + start) as u32);
                    self.probabilities(small, (first, q), (&span, keys_down), (task, distances), p);
                    let used: &[T] = match mask {
                        Some((parts, keep)) => {
                            after.copy_from_slice(p);
                            drop_scores(&mut after[..rows * padded], length, padded, first_score, parts, T::of(keep));
                            after
                        }
                        None => p,
                    };
                    // SAFETY: each task writes the columns of its head in the rows of its sequence.
                    unsafe {
                        let panels = &mut queries[..rows * wide];
                        small.pack(d_out, panels);
                        let left = Left { values: used, row: 1, step: padded };
                        let place = self.place(dv, stride, task, start, count);
                        small.product(left, panels, (count, head_dim, rows), place, add);
                        small.product(
                            d_out.left(),
                            values_down,
                            (rows, padded, head_dim),
                            scores_place(d, padded),
                            false,
                        );
                        let d = &mut d[..rows * padded];
                        if let Some((parts, keep)) = mask {
                            drop_scores(d, length, padded, first_score, parts, T::of(keep));
                        }
                        softmax_backward_rows(&p[..rows * padded], d, padded, self.scale());
                        if !sums.is_empty() {
                            for (i, row) in d.chunks_exact(padded).enumerate() {
                                let sums = &mut sums[distances.reach + start - (first + i)..];
                                sums.iter_mut().zip(row).take(count).for_each(|(sum, d)| *sum += *d);
                            }
                        }
                        let left = Left { values: &*d, row: padded, step: 1 };
                        let place = self.place(dq, stride, task, first, rows);
                        small.product(left, keys, (rows, head_dim, count), place, false);
                        small.pack(q, panels);
                        let left = Left { values: &*d, row: 1, step: padded };
                        let place = self.place(dk, stride, task, start, count);
                        small.product(left, panels, (count, head_dim, rows), place, add);
                    }
                }
            }
        });
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(s1), "attention", T => {
            let q = [kernel::slice::<T>(s1, l1)?];
            let k = [kernel::slice::<T>(s2, l2)?];
            let v = [kernel::slice::<T>(s3, l3)?];
            let mut out = kernel::zeros::<T>(q[0].len());
            self.forward([&q, &k, &v].map(|m| Matrix::stacked(m, self.width)), &mut out)?;
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(out), l1.shape().clone()))
        })
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let d_out = d_out.contiguous()?;
        by_dtype!(q.dtype(), "attention", T => {
            let hosts = [kernel::host(q)?, kernel::host(k)?, kernel::host(v)?, kernel::host(&d_out)?];
            let [q_host, k_host, v_host, d_host] = &hosts;
            let (a, b, c, d) = ([q_host.values::<T>()?], [k_host.values::<T>()?], [v_host.values::<T>()?], [d_host.values::<T>()?]);
            let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| kernel::zeros::<T>(x.elem_count()));
            let places = [&mut dq, &mut dk, &mut dv].map(|x| Shared::new(x));
            // SAFETY: the places are arrays of the inputs' size.
            unsafe {
                self.backward(
                    [&a, &b, &c].map(|m| Matrix::stacked(m, self.width)),
                    Matrix::stacked(&d, self.width),
                    places,
                    self.width,
                )?;
            }
            let shape = q.dims().to_vec();
            Ok((
                Some(kernel::tensor(dq, shape.clone())?),
                Some(kernel::tensor(dk, shape.clone())?),
                Some(kernel::tensor(dv, shape)?),
            ))
        })
    }
}
