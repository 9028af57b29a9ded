//! Attention whose scores know how far a key stands from its query by what both of them make of that distance (He et
//! al., 2021, <https://arxiv.org/abs/2006.03654>).
//!
//! Of a sequence in a head a thread has the products of its tokens with the rows that its distances have, and a score
//! takes its two from them: `length * rows` values, not one for each pair of tokens and row.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::attention::{Attention, Task, drop_scores, scores_place, softmax_backward_rows, softmax_rows, with_scratch};
use super::composed;
use super::context::Dropout;
use super::kernel::{self, Shared, by_dtype};
use super::matmul::{Left, Matrix, Place, Small};
use super::real::Real;
use super::self_attention::thirds;
use super::sight::{QUERIES, Queries, Sight, Span};

/// Which row of positions a distance has, and what is made of it.
#[derive(Debug)]
pub struct Disentangled {
    /// The row of each distance, from the key `reach` before its query to that `reach` behind it.
    rows: Vec<u32>,
    /// Whether queries meet rows of positions as keys.
    pub(super) content_to_position: bool,
    /// Whether keys meet rows of positions as queries.
    pub(super) position_to_content: bool,
}

impl Disentangled {
    /// `rows` has an entry for each distance from `-reach` to `reach`.
    ///
    /// # Errors
    /// When the distances have no middle.
    pub fn new(rows: Vec<u32>, content_to_position: bool, position_to_content: bool) -> Result<Self> {
        if rows.len().is_multiple_of(2) {
            bail!("disentangled attention: {} distances have no middle", rows.len());
        }
        Ok(Self { rows, content_to_position, position_to_content })
    }

    fn terms(&self) -> usize {
        usize::from(self.content_to_position) + usize::from(self.position_to_content)
    }

    /// Scores are multiplied with it.
    pub(super) fn scale(&self, head_dim: usize) -> f64 {
        1.0 / ((head_dim * (1 + self.terms())) as f64).sqrt()
    }

    /// The rows of the distances in a sequence, from that of its last token's first key on: `2 * length - 1`.
    fn of(&self, length: usize) -> &[u32] {
        let reach = self.rows.len() / 2;
        &self.rows[reach + 1 - length..reach + length]
    }

    /// `[length, length]`: the row of each query's distance to each key.
    pub(super) fn square(&self, length: usize) -> Vec<u32> {
        let rows = self.of(length);
        (0..length).flat_map(|query| rows[length - 1 - query..][..length].iter().copied()).collect()
    }
}

/// `dropout(softmax((q kᵀ + q P₁[distance]ᵀ + k P₂[distance]ᵀ) / sqrt(head_dim * (1 + terms)))) v` within each sequence
/// and head: a score is of query and key, of the query and the distance's row as a key, and of the key and the
/// distance's row as a query.
///
/// # Shapes
/// `qkv` `[tokens, 3 * heads * head_dim]`: queries, keys, values side by side; `positions`
/// `[rows, terms * heads * head_dim]`: the rows as keys, then as queries, of the terms that there are; `offsets`
/// `[sequences + 1]`. The result is `[tokens, heads * head_dim]`.
///
/// # Errors
/// When the shapes, the offsets or the element types do not fit, or a sequence has distances without a row.
pub fn disentangled_attention(
    qkv: &Tensor,
    positions: &Tensor,
    offsets: &Arc<Vec<u32>>,
    heads: usize,
    distances: &Arc<Disentangled>,
    dropout: Dropout,
) -> Result<Tensor> {
    let (&[tokens, all], &[rows, wide]) = (qkv.dims(), positions.dims()) else {
        bail!("disentangled attention: inputs are {:?} and {:?}", qkv.dims(), positions.dims());
    };
    let width = all / 3;
    if all != 3 * width || heads == 0 || !width.is_multiple_of(heads) || wide != distances.terms() * width {
        bail!(
            "disentangled attention: {heads} heads and {} terms do not fit {:?} and {:?}",
            distances.terms(),
            qkv.dims(),
            positions.dims()
        );
    }
    kernel::check_offsets("disentangled attention", offsets, tokens)?;
    kernel::check_dtype("disentangled attention", qkv.dtype(), positions.dtype())?;
    let longest = offsets.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
    if longest > distances.rows.len() / 2 + 1 {
        bail!("disentangled attention: a sequence has {longest} tokens, there are rows for fewer");
    }
    if let Some(row) = distances.rows.iter().find(|row| **row as usize >= rows) {
        bail!("disentangled attention: row {row} is outside positions of {rows} rows");
    }
    if composed::wanted(qkv) {
        return composed::disentangled_attention(qkv, positions, offsets, heads, distances, dropout);
    }
    let attention = Attention::new((offsets, &[]), heads, width, dropout, Sight::All, None);
    let kernel = Kernel { attention, heads, distances: Arc::clone(distances) };
    qkv.contiguous()?.apply_op2(&positions.contiguous()?, kernel)
}

struct Kernel {
    attention: Attention,
    heads: usize,
    distances: Arc<Disentangled>,
}

/// The part of the positions that a task's distances have.
struct Near<'a, T> {
    /// Their numbers.
    rows: Range<usize>,
    /// As keys and as queries, `[rows, head_dim]`, where there are such terms.
    keys: Option<Matrix<'a, T>>,
    queries: Option<Matrix<'a, T>>,
    /// The row of each distance in the sequence.
    of_distance: &'a [u32],
}

impl<T> Near<'_, T> {
    /// The places among these rows of the distances from a query to each key.
    fn places(&self, query: usize, length: usize) -> impl Iterator<Item = usize> {
        self.of_distance[length - 1 - query..][..length].iter().map(|row| *row as usize - self.rows.start)
    }
}

/// What a task's tokens make of the rows, padded to whole tiles.
struct Products<'a, T> {
    padded: usize,
    /// The rows as keys, packed; and what a block of queries makes of them.
    keys: &'a [T],
    by_query: &'a mut [T],
    /// What all keys make of the rows as queries.
    by_key: &'a [T],
}

/// Parts of a head's sequences that sums are kept for: enough for threads, few enough for memory.
const PARTS: usize = 8;

impl Kernel {
    fn near<'a, T: Real>(&'a self, positions: Matrix<'a, T>, task: Task) -> Near<'a, T> {
        let of_distance = self.distances.of(task.length);
        let (least, most) =
            of_distance.iter().fold((u32::MAX, 0), |(least, most), row| (least.min(*row), most.max(*row)));
        let rows = least as usize..most as usize + 1;
        let Attention { width, head_dim, .. } = self.attention;
        let term = |number: usize| {
            positions.columns(number * width + task.head * head_dim, head_dim).rows(rows.start, rows.len())
        };
        let Disentangled { content_to_position, position_to_content, .. } = *self.distances;
        Near {
            keys: content_to_position.then(|| term(0)),
            queries: position_to_content.then(|| term(usize::from(content_to_position))),
            rows,
            of_distance,
        }
    }

    /// The probabilities of a block of queries, those from number `first` on, before dropout.
    fn probabilities<T: Real>(
        &self,
        small: &Small<T>,
        (first, q): (usize, Matrix<'_, T>),
        keys: &[T],
        (task, near): (Task, &Near<'_, T>),
        products: &mut Products<'_, T>,
        scores: &mut [T],
    ) {
        let (length, padded, wide) = (task.length, small.padded(task.length), products.padded);
        let head_dim = self.attention.head_dim;
        // SAFETY: the place is the whole of `scores`; its padding is computed, too.
        unsafe { small.product(q.left(), keys, (q.height(), padded, head_dim), scores_place(scores, padded), false) };
        if near.keys.is_some() {
            let place = scores_place(products.by_query, wide);
            // SAFETY: as above.
            unsafe { small.product(q.left(), products.keys, (q.height(), wide, head_dim), place, false) };
        }
        for (i, scores) in scores.chunks_exact_mut(padded).take(q.height()).enumerate() {
            if near.keys.is_some() {
                let own = &products.by_query[i * wide..(i + 1) * wide];
                let places = near.places(first + i, length);
                scores.iter_mut().zip(places).for_each(|(score, place)| *score += own[place]);
            }
            if near.queries.is_some() {
                let places = near.places(first + i, length);
                let rows = products.by_key.chunks_exact(wide).zip(places);
                scores.iter_mut().zip(rows).for_each(|(score, (own, place))| *score += own[place]);
            }
        }
        let scale = T::of(self.distances.scale(head_dim));
        softmax_rows(&mut scores[..q.height() * padded], padded, scale, |_| 0..length);
    }

    fn forward<T: Real>(&self, [q, k, v]: [Matrix<'_, T>; 3], positions: Matrix<'_, T>, out: &mut [T]) {
        let (small, target) = (T::small(), Shared::new(out));
        let Attention { width, head_dim, .. } = self.attention;
        self.attention.each(|_, task| {
            let near = self.near(positions, task);
            let (length, most) = (task.length, QUERIES.min(task.length));
            let (padded, wide) = (small.padded(length), small.padded(near.rows.len()));
            let of_keys = usize::from(near.keys.is_some());
            let of_queries = usize::from(near.queries.is_some());
            let sizes = [
                padded * head_dim,
                length * small.padded(head_dim),
                small.padded_rows(most) * padded,
                wide * head_dim,
                of_keys * small.padded_rows(most) * wide,
                of_queries * small.padded_rows(length) * wide,
            ];
            let [q, k, v] = [q, k, v].map(|all| self.attention.part(all, task));
            with_scratch(sizes, |[keys, values, scores, rows, by_query, by_key]| {
                if let Some(queries) = near.queries {
                    small.pack_transposed(queries, rows);
                    // SAFETY: the place is the whole of `by_key`.
                    unsafe {
                        small.product(k.left(), rows, (length, wide, head_dim), scores_place(by_key, wide), false);
                    }
                }
                if let Some(keys) = near.keys {
                    small.pack_transposed(keys, rows);
                }
                small.pack_transposed(k, keys);
                small.pack(v, values);
                let mut products = Products { padded: wide, keys: rows, by_query, by_key };
                for Queries { first, rows } in (Span { queries: 0..length, keys: 0..length }).blocks() {
                    let queries = (first, q.rows(first, rows));
                    self.probabilities(&small, queries, keys, (task, &near), &mut products, scores);
                    if let Some((parts, scale)) = self.attention.mask() {
                        let first = task.first_score.wrapping_add((first * length) as u32);
                        drop_scores(&mut scores[..rows * padded], length, padded, first, parts, T::of(scale));
                    }
                    let left = Left { values: &*scores, row: padded, step: 1 };
                    let place = self.attention.place(target, width, task, first, rows);
                    // SAFETY: each task writes the columns of its head in the rows of its sequence.
                    unsafe { small.product(left, values, (rows, head_dim, length), place, false) };
                }
            });
        });
    }

    /// The gradients of queries, keys and values side by side in `d_qkv`, and those of the positions.
    fn backward<T: Real>(
        &self,
        qkv: [Matrix<'_, T>; 3],
        positions: Matrix<'_, T>,
        d_out: Matrix<'_, T>,
        d_qkv: &mut [T],
    ) -> Vec<T> {
        let small = T::small();
        let Attention { width, head_dim, .. } = self.attention;
        let (terms, height) = (self.distances.terms(), positions.height());
        let start = Shared::new(d_qkv);
        let places = [0, 1, 2].map(|i| start.skip(i * width));
        // a head's tasks are dealt out, the longest first, so that sums do not depend on the number of threads
        let sequences = self.attention.tasks.0.len() / self.heads.max(1);
        let parts = PARTS.min(sequences);
        let sums: Mutex<Vec<(usize, Vec<T>)>> = Mutex::new(Vec::new());
        kernel::each(self.heads * parts, 1, |number| {
            let (head, part) = (number / parts, number % parts);
            let mut own = vec![T::ZERO; terms * height * head_dim];
            let tasks = self.attention.tasks.0.iter().filter(|task| task.head == head);
            for task in tasks.skip(part).step_by(parts) {
                // SAFETY: each task writes the columns of its head in the rows of its sequence.
                unsafe { self.backward_task(&small, *task, (qkv, positions), d_out, places, &mut own) };
            }
            sums.lock().unwrap_or_else(PoisonError::into_inner).push((number, own));
        });
        let mut sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        sums.sort_by_key(|(number, _)| *number);
        let mut all = kernel::zeros::<T>(height * terms * width);
        for (number, own) in sums {
            for (i, values) in own.chunks_exact(head_dim).enumerate() {
                let (term, row) = (i / height, i % height);
                let target = (row * terms + term) * width + number / parts * head_dim;
                all[target..target + head_dim].iter_mut().zip(values).for_each(|(sum, value)| *sum += *value);
            }
        }
        all
    }

    /// Adds to `sums`, `[terms, rows, head_dim]`.
    ///
    /// # Safety
    /// From each of `places` on there are `tokens` rows of `3 * width` values, and nobody else writes the columns of
    /// the task's head in the rows of its sequence.
    unsafe fn backward_task<T: Real>(
        &self,
        small: &Small<T>,
        task: Task,
        (qkv, positions): ([Matrix<'_, T>; 3], Matrix<'_, T>),
        d_out: Matrix<'_, T>,
        [dq, dk, dv]: [Shared<T>; 3],
        sums: &mut [T],
    ) {
        let (near, mask) = (self.near(positions, task), self.attention.mask());
        let Attention { width, head_dim, .. } = self.attention;
        let (length, count, stride) = (task.length, near.rows.len(), 3 * width);
        let most = QUERIES.min(length);
        let (padded, wide, across) = (small.padded(length), small.padded(count), small.padded(head_dim));
        let square = small.padded_rows(most) * padded;
        let of_keys = usize::from(near.keys.is_some());
        let of_queries = usize::from(near.queries.is_some());
        let sizes = [
            padded * head_dim,
            padded * head_dim,
            length * across,
            most * across,
            square,
            square,
            if mask.is_some() { square } else { 0 },
            wide * head_dim,
            count * across,
            of_keys * small.padded_rows(most) * wide,
            of_keys * small.padded_rows(most) * wide,
            of_queries * small.padded_rows(length) * wide,
            of_queries * small.padded_rows(length) * wide,
        ];
        let [q, k, v, d_out] = [qkv[0], qkv[1], qkv[2], d_out].map(|all| self.attention.part(all, task));
        // where the gradients of a term's rows go
        let of_term = |sums: &mut [T], term: usize| {
            let first = (term * positions.height() + near.rows.start) * head_dim;
            let data = sums[first..first + count * head_dim].as_mut_ptr();
            Place { data, stride: head_dim, rows: count, columns: head_dim }
        };
        with_scratch(sizes, |scratch| {
            let [keys_down, values_down, keys, panels, p, d, after, rows_down, rows, by_query, d_query, by_key, d_key] =
                scratch;
            small.pack_transposed(k, keys_down);
            small.pack_transposed(v, values_down);
            small.pack(k, keys);
            if let Some(queries) = near.queries {
                small.pack_transposed(queries, rows_down);
                let place = scores_place(by_key, wide);
                // SAFETY: the place is the whole of `by_key`.
                unsafe { small.product(k.left(), rows_down, (length, wide, head_dim), place, false) };
                d_key.fill(T::ZERO);
            }
            if let Some(keys) = near.keys {
                small.pack_transposed(keys, rows_down);
                small.pack(keys, rows);
            }
            let mut products = Products { padded: wide, keys: rows_down, by_query, by_key };
            for Queries { first, rows: height } in (Span { queries: 0..length, keys: 0..length }).blocks() {
                let add = first > 0;
                let (q, d_out) = (q.rows(first, height), d_out.rows(first, height));
                let first_score = task.first_score.wrapping_add((first * length) as u32);
                self.probabilities(small, (first, q), keys_down, (task, &near), &mut products, p);
                let used: &[T] = match mask {
                    Some((parts, keep)) => {
                        after.copy_from_slice(p);
                        drop_scores(&mut after[..height * padded], length, padded, first_score, parts, T::of(keep));
                        after
                    }
                    None => p,
                };
                // SAFETY: the caller's promise; the other places are the whole of their slices.
                unsafe {
                    let panels = &mut panels[..height * across];
                    small.pack(d_out, panels);
                    let left = Left { values: used, row: 1, step: padded };
                    let place = self.attention.place(dv, stride, task, 0, length);
                    small.product(left, panels, (length, head_dim, height), place, add);
                    let place = scores_place(d, padded);
                    small.product(d_out.left(), values_down, (height, padded, head_dim), place, false);
                    let d = &mut d[..height * padded];
                    if let Some((parts, keep)) = mask {
                        drop_scores(d, length, padded, first_score, parts, T::of(keep));
                    }
                    let scale = T::of(self.distances.scale(head_dim));
                    softmax_backward_rows(&p[..height * padded], d, padded, scale);
                    let left = Left { values: &*d, row: padded, step: 1 };
                    let place = self.attention.place(dq, stride, task, first, height);
                    small.product(left, keys, (height, head_dim, length), place, false);
                    small.pack(q, panels);
                    let left = Left { values: &*d, row: 1, step: padded };
                    let place = self.attention.place(dk, stride, task, 0, length);
                    small.product(left, panels, (length, head_dim, height), place, add);
                    if near.keys.is_some() {
                        d_query.fill(T::ZERO);
                        for (i, d) in d.chunks_exact(padded).enumerate() {
                            let own = &mut d_query[i * wide..(i + 1) * wide];
                            d.iter().zip(near.places(first + i, length)).for_each(|(d, place)| own[place] += *d);
                        }
                        let left = Left { values: &*d_query, row: wide, step: 1 };
                        let place = self.attention.place(dq, stride, task, first, height);
                        small.product(left, rows, (height, head_dim, count), place, true);
                        let left = Left { values: &*d_query, row: 1, step: wide };
                        small.product(left, panels, (count, head_dim, height), of_term(sums, 0), true);
                    }
                    if near.queries.is_some() {
                        for (i, d) in d.chunks_exact(padded).enumerate() {
                            let own = d_key.chunks_exact_mut(wide).zip(near.places(first + i, length));
                            d.iter().zip(own).for_each(|(d, (own, place))| own[place] += *d);
                        }
                    }
                }
            }
            if let Some(queries) = near.queries {
                small.pack(queries, rows);
                // SAFETY: the caller's promise.
                unsafe {
                    let left = Left { values: &*d_key, row: wide, step: 1 };
                    let place = self.attention.place(dk, stride, task, 0, length);
                    small.product(left, rows, (length, head_dim, count), place, true);
                    let left = Left { values: &*d_key, row: 1, step: wide };
                    small.product(left, keys, (count, head_dim, length), of_term(sums, of_keys), true);
                }
            }
        });
    }
}

impl CustomOp2 for Kernel {
    fn name(&self) -> &'static str {
        "disentangled-attention"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(kernel::dtype(s1), "disentangled attention", T => {
            let (qkv, positions) = ([kernel::slice::<T>(s1, l1)?], [kernel::slice::<T>(s2, l2)?]);
            let width = self.attention.width;
            let mut out = kernel::zeros::<T>(qkv[0].len() / 3);
            let positions = Matrix::stacked(&positions, self.distances.terms() * width);
            self.forward(thirds(&qkv, width), positions, &mut out);
            let shape = Shape::from((l1.dims().first().copied().unwrap_or(0), width));
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(out), shape))
        })
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        positions: &Tensor,
        _: &Tensor,
        d_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let d_out = d_out.contiguous()?;
        let width = self.attention.width;
        by_dtype!(qkv.dtype(), "disentangled attention", T => {
            let hosts = (kernel::host(qkv)?, kernel::host(positions)?, kernel::host(&d_out)?);
            let (a, b, d) = ([hosts.0.values::<T>()?], [hosts.1.values::<T>()?], [hosts.2.values::<T>()?]);
            let mut d_qkv = kernel::zeros::<T>(qkv.elem_count());
            let rows = Matrix::stacked(&b, self.distances.terms() * width);
            let d_rows = self.backward(thirds(&a, width), rows, Matrix::stacked(&d, width), &mut d_qkv);
            Ok((
                Some(kernel::tensor(d_qkv, qkv.dims().to_vec())?),
                Some(kernel::tensor(d_rows, positions.dims().to_vec())?),
            ))
        })
    }
}
