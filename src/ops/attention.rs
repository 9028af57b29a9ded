//! Multi-head attention over packed sequences: every token sees the tokens of its own sequence, nothing is padded.
//!
//! No score matrix is kept for the backward pass; it is computed again from queries and keys.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::context::{Dropout, keeps};
use super::kernel::{self, Shared, by_dtype, simd_fn};
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
    q.contiguous()?.apply_op3(
        &k.contiguous()?,
        &v.contiguous()?,
        Attention { tasks: Tasks::new(offsets, heads), width, head_dim: width / heads, dropout },
    )
}

struct Attention {
    tasks: Tasks,
    width: usize,
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
    /// Rows of scores become rows of probabilities.
    fn softmax_rows<T>(scores: &mut [T], length: usize) {
        for row in scores.chunks_exact_mut(length) {
            let top = max_of(row);
            for s in row.iter_mut() {
                *s = (*s - top).exp();
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
    /// In place over `d` (the gradient of the probabilities): the gradient of the scores, `p * (d - Σ d p)`.
    fn softmax_backward_rows<T>(p: &[T], d: &mut [T], length: usize) {
        for (p, d) in p.chunks_exact(length).zip(d.chunks_exact_mut(length)) {
            let along = sum_by(length, |i| p[i] * d[i]);
            for (d, p) in d.iter_mut().zip(p) {
                *d = *p * (*d - along);
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
    fn mask(&self) -> Option<((u32, u32, u32), f64)> {
        self.dropout.active().then(|| (self.dropout.parts(), self.dropout.scale()))
    }

    /// The softmax probabilities of one task, before dropout.
    fn probabilities<T: Real>(&self, q: &[T], k: &[T], task: Task, scores: &mut [T]) {
        let (length, dim, width) = (task.length, self.head_dim, self.width);
        let at = task.start * width + task.head * dim;
        // SAFETY: scores is [length, length]; q and k are read inside the rows of this sequence.
        unsafe {
            kernel::gemm(
                (length, length, dim),
                scores.as_mut_ptr(),
                (length, 1),
                false,
                q.as_ptr().add(at),
                (width, 1),
                k.as_ptr().add(at),
                (1, width),
                T::of(1.0 / (dim as f64).sqrt()),
                false,
            );
        }
        softmax_rows(scores, length);
    }

    fn forward<T: Real>(&self, q: &[T], k: &[T], v: &[T]) -> Vec<T> {
        let mut out = kernel::zeros::<T>(q.len());
        let target = Shared::new(&mut out);
        let (dim, width, mask) = (self.head_dim, self.width, self.mask());
        self.tasks.0.par_iter().for_each(|task| {
            let length = task.length;
            with_scratch::<T, _>([length * length, 0, 0], |[scores, _, _]| {
                self.probabilities(q, k, *task, scores);
                if let Some((parts, scale)) = mask {
                    drop_scores(scores, task.first_score, parts, T::of(scale));
                }
                let at = task.start * width + task.head * dim;
                // SAFETY: each task writes the columns of its head in the rows of its sequence.
                unsafe {
                    kernel::gemm(
                        (length, dim, length),
                        target.at(at),
                        (width, 1),
                        false,
                        scores.as_ptr(),
                        (length, 1),
                        v.as_ptr().add(at),
                        (width, 1),
                        T::ONE,
                        false,
                    );
                }
            });
        });
        out
    }

    fn backward<T: Real>(&self, q: &[T], k: &[T], v: &[T], d_out: &[T]) -> [Vec<T>; 3] {
        let mut grads = [kernel::zeros::<T>(q.len()), kernel::zeros::<T>(q.len()), kernel::zeros::<T>(q.len())];
        let [dq, dk, dv] = &mut grads;
        let (dq, dk, dv) = (Shared::new(dq), Shared::new(dk), Shared::new(dv));
        self.tasks.0.par_iter().for_each(|task| {
            self.backward_task(*task, [q, k, v, d_out], [dq, dk, dv]);
        });
        grads
    }

    fn backward_task<T: Real>(&self, task: Task, [q, k, v, d_out]: [&[T]; 4], [dq, dk, dv]: [Shared<T>; 3]) {
        let (length, dim, width, mask) = (task.length, self.head_dim, self.width, self.mask());
        let at = task.start * width + task.head * dim;
        let square = length * length;
        let dropped = if mask.is_some() { square } else { 0 };
        let scale = T::of(1.0 / (dim as f64).sqrt());
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
            // SAFETY: each task writes the columns of its head in the rows of its sequence; scratch is this thread's.
            unsafe {
                // dv = usedᵀ d_out
                kernel::gemm(
                    (length, dim, length),
                    dv.at(at),
                    (width, 1),
                    false,
                    used.as_ptr(),
                    (1, length),
                    d_out.as_ptr().add(at),
                    (width, 1),
                    T::ONE,
                    false,
                );
                // d = d_out vᵀ
                kernel::gemm(
                    (length, length, dim),
                    d.as_mut_ptr(),
                    (length, 1),
                    false,
                    d_out.as_ptr().add(at),
                    (width, 1),
                    v.as_ptr().add(at),
                    (1, width),
                    T::ONE,
                    false,
                );
                if let Some((parts, keep)) = mask {
                    drop_scores(d, task.first_score, parts, T::of(keep));
                }
                softmax_backward_rows(p, d, length);
                // dq = d k / sqrt(dim), dk = dᵀ q / sqrt(dim)
                kernel::gemm(
                    (length, dim, length),
                    dq.at(at),
                    (width, 1),
                    false,
                    d.as_ptr(),
                    (length, 1),
                    k.as_ptr().add(at),
                    (width, 1),
                    scale,
                    false,
                );
                kernel::gemm(
                    (length, dim, length),
                    dk.at(at),
                    (width, 1),
                    false,
                    d.as_ptr(),
                    (1, length),
                    q.as_ptr().add(at),
                    (width, 1),
                    scale,
                    false,
                );
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
            let out = self.forward::<T>(kernel::slice(s1, l1)?, kernel::slice(s2, l2)?, kernel::slice(s3, l3)?);
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
            let [dq, dk, dv] = kernel::read::<T, _>(q, |q| kernel::read::<T, _>(k, |k| {
                kernel::read::<T, _>(v, |v| kernel::read::<T, _>(&d_out, |d_out| self.backward(q, k, v, d_out)))
            }))????;
            let shape = q.dims().to_vec();
            Ok((
                Some(kernel::tensor(dq, shape.clone())?),
                Some(kernel::tensor(dk, shape.clone())?),
                Some(kernel::tensor(dv, shape)?),
            ))
        })
    }
}
