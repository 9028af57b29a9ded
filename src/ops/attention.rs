//! Multi-head attention over packed sequences: every token sees the tokens of its own sequence, nothing is padded.
//!
//! No score matrix is kept for the backward pass; it is computed again from queries and keys.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::context::{Dropout, keeps};
use super::kernel::{self, Shared, by_dtype, simd_fn};
use super::matmul::{self, Matrix, Target};
use super::real::{Real, max_of, sum_by};

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
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, Attention::new(offsets, heads, width, dropout))
}

/// Attention of packed sequences on host values.
pub(super) struct Attention {
    tasks: Tasks,
    pub(super) width: usize,
    head_dim: usize,
    dropout: Dropout,
}

/// The (sequence, head) pairs, longest sequences first so that threads end together.
struct Tasks(Vec<Task>);

#[derive(Clone, Copy)]
struct Task {
    start: usize,
    length: usize,
    head: usize,
    /// Position of this task's first score in the numbering that dropout uses.
    first_score: u32,
}

impl Tasks {
    fn new(offsets: &[u32], heads: usize) -> Self {
        let mut tasks = Vec::with_capacity((offsets.len() - 1) * heads);
        let mut first_score = 0u32;
        for w in offsets.windows(2) {
            let length = (w[1] - w[0]) as usize;
            if length == 0 {
                continue;
            }
            for head in 0..heads {
                tasks.push(Task { start: w[0] as usize, length, head, first_score });
                first_score = first_score.wrapping_add((length * length) as u32);
            }
        }
        tasks.sort_by_key(|t| std::cmp::Reverse(t.length));
        Self(tasks)
    }
}

simd_fn! {
    /// Rows of scores become rows of probabilities, `softmax(score * scale)`.
    fn softmax_rows<T>(scores: &mut [T], length: usize, scale: T) {
        for row in scores.chunks_exact_mut(length) {
            let top = max_of(row);
            for s in row.iter_mut() {
                *s = ((*s - top) * scale).exp();
            }
            let inverse = T::ONE / sum_by(length, |i| row[i]);
            for s in row.iter_mut() {
                *s *= inverse;
            }
        }
    }
}

simd_fn! {
    /// `scores *= mask * scale`
    fn drop_scores<T>(scores: &mut [T], first: u32, parts: (u32, u32, u32), scale: T) {
        for (i, s) in scores.iter_mut().enumerate() {
            *s *= if keeps(parts, first.wrapping_add(i as u32)) { scale } else { T::ZERO };
        }
    }
}

simd_fn! {
    /// In place over `d` (the gradient of the probabilities): that of the scores, `p * (d - Σ d p) * scale`.
    fn softmax_backward_rows<T>(p: &[T], d: &mut [T], length: usize, scale: T) {
        for (p, d) in p.chunks_exact(length).zip(d.chunks_exact_mut(length)) {
            let along = sum_by(length, |i| p[i] * d[i]);
            for (d, p) in d.iter_mut().zip(p) {
                *d = *p * (*d - along) * scale;
            }
        }
    }
}

/// Scratch space of a thread, kept between tasks and calls.
fn with_scratch<T: Real, R>(lengths: [usize; 3], f: impl FnOnce([&mut [T]; 3]) -> R) -> R {
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
        let all = unsafe { std::slice::from_raw_parts_mut(store.as_mut_ptr().cast::<T>(), total) };
        let (a, rest) = all.split_at_mut(lengths[0]);
        let (b, c) = rest.split_at_mut(lengths[1]);
        let result = f([a, b, c]);
        cell.replace(store);
        result
    })
}

impl Attention {
    /// `heads` divide `width`, and the offsets cover the tokens.
    pub(super) fn new(offsets: &[u32], heads: usize, width: usize, dropout: Dropout) -> Self {
        Self { tasks: Tasks::new(offsets, heads), width, head_dim: width / heads, dropout }
    }

    fn mask(&self) -> Option<((u32, u32, u32), f64)> {
        self.dropout.active().then(|| (self.dropout.parts(), self.dropout.scale()))
    }

    /// The rows and columns of one task.
    fn part<'a, T>(&self, all: Matrix<'a, T>, task: Task) -> Matrix<'a, T> {
        all.columns(task.head * self.head_dim, self.head_dim).rows(task.start, task.length)
    }

    /// Where one task's result goes in rows of `stride` values.
    ///
    /// # Safety
    /// `data` has room for all tokens, and tasks are written by one thread each.
    unsafe fn place<'a, T>(&self, data: Shared<T>, stride: usize, task: Task) -> Target<'a, T> {
        // SAFETY: the caller's promise.
        unsafe { Target::at(data.at(task.start * stride + task.head * self.head_dim), stride) }
    }

    /// The softmax probabilities of one task, before dropout.
    fn probabilities<T: Real>(&self, q: Matrix<'_, T>, k: Matrix<'_, T>, task: Task, scores: &mut [T]) {
        let length = task.length;
        let (q, k) = (self.part(q, task), self.part(k, task));
        matmul::multiply_here(q.depth_in_rows(), k.depth_in_rows(), Target::new(scores, length));
        softmax_rows(scores, length, T::of(1.0 / (self.head_dim as f64).sqrt()));
    }

    /// `q`, `k`, `v` have `width` columns; `out` `[tokens, width]`.
    pub(super) fn forward<T: Real>(&self, [q, k, v]: [Matrix<'_, T>; 3], out: &mut [T]) {
        let target = Shared::new(out);
        self.tasks.0.par_iter().for_each(|task| {
            let length = task.length;
            with_scratch::<T, _>([length * length, 0, 0], |[scores, _, _]| {
                self.probabilities(q, k, *task, scores);
                if let Some((parts, scale)) = self.mask() {
                    drop_scores(scores, task.first_score, parts, T::of(scale));
                }
                // SAFETY: each task writes the columns of its head in the rows of its sequence.
                let place = unsafe { self.place(target, self.width, *task) };
                let scores = [&*scores];
                let scores = Matrix::stacked(&scores, length);
                matmul::multiply_here(scores.depth_in_rows(), self.part(v, *task).depth_across_rows(), place);
            });
        });
    }

    /// The gradients of `q`, `k` and `v`, at the given places in rows of `stride` values.
    ///
    /// # Safety
    /// From each of `places` on there are `tokens` rows of `stride` values, and `width` columns of them are free.
    pub(super) unsafe fn backward<T: Real>(
        &self,
        inputs: [Matrix<'_, T>; 3],
        d_out: Matrix<'_, T>,
        places: [Shared<T>; 3],
        stride: usize,
    ) {
        self.tasks.0.par_iter().for_each(|task| self.backward_task(*task, inputs, d_out, places, stride));
    }

    fn backward_task<T: Real>(
        &self,
        task: Task,
        [q, k, v]: [Matrix<'_, T>; 3],
        d_out: Matrix<'_, T>,
        [dq, dk, dv]: [Shared<T>; 3],
        stride: usize,
    ) {
        let (length, mask) = (task.length, self.mask());
        let square = length * length;
        let dropped = if mask.is_some() { square } else { 0 };
        let scale = T::of(1.0 / (self.head_dim as f64).sqrt());
        with_scratch::<T, _>([square, square, dropped], |[p, d, after]| {
            self.probabilities(q, k, task, p);
            let used: &[T] = match mask {
                Some((parts, keep)) => {
                    after.copy_from_slice(p);
                    drop_scores(after, task.first_score, parts, T::of(keep));
                    after
                }
                None => p,
            };
            let [q, k, v, d_out] = [q, k, v, d_out].map(|m| self.part(m, task));
            // SAFETY: each task writes the columns of its head in the rows of its sequence.
            let [dq, dk, dv] = [dq, dk, dv].map(|place| unsafe { self.place(place, stride, task) });
            let used = [used];
            let used = Matrix::stacked(&used, length);
            matmul::multiply_here(used.depth_across_rows(), d_out.depth_across_rows(), dv);
            matmul::multiply_here(d_out.depth_in_rows(), v.depth_in_rows(), Target::new(d, length));
            if let Some((parts, keep)) = mask {
                drop_scores(d, task.first_score, parts, T::of(keep));
            }
            softmax_backward_rows(p, d, length, scale);
            let d = [&*d];
            let d = Matrix::stacked(&d, length);
            matmul::multiply_here(d.depth_in_rows(), k.depth_across_rows(), dq);
            matmul::multiply_here(d.depth_across_rows(), q.depth_across_rows(), dk);
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
            self.forward([&q, &k, &v].map(|m| Matrix::stacked(m, self.width)), &mut out);
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
                );
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
