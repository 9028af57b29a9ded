//! Softmax cross-entropy over dot products as one operation: in-batch negatives without a graph of score matrices.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::composed;
use super::kernel::{self, Shared, simd_fn};
use super::matmul::{self, Matrix, Precision, Target};
use super::real::Real;
use super::scratch::Buffer;
use super::stable::{check_targets, row_logsumexp, row_softmax};

/// The mean over rows of `-log softmax(scale * a bᵀ)[target]`: [`cross_entropy`](super::cross_entropy()) of scaled
/// [`dot_products`](super::dot_products()), with one matrix of scores instead of six.
///
/// # Shapes
/// `a` `[n, dim]`, `b` `[m, dim]`, `targets` `[n]`; the result is a scalar.
///
/// # Errors
/// When a target is not a row of `b`, or the shapes or element types do not fit.
pub fn ranking_cross_entropy(a: &Tensor, b: &Tensor, scale: f64, targets: &[u32]) -> Result<Tensor> {
    let (&[n, width], &[m, other]) = (a.dims(), b.dims()) else {
        bail!("ranking: shapes are {:?} and {:?}", a.dims(), b.dims());
    };
    if width != other {
        bail!("ranking: shapes are {:?} and {:?}", a.dims(), b.dims());
    }
    check_targets("ranking", targets, n, m)?;
    kernel::check_dtype("ranking", b.dtype(), a.dtype())?;
    if composed::wanted(a) {
        return composed::cross_entropy(&a.matmul(&b.t()?)?.affine(scale, 0.0)?, targets);
    }
    let op = Ranking { scale, targets: Arc::from(targets), width, candidates: m, state: Mutex::new(None) };
    a.contiguous()?.apply_op2(&b.contiguous()?, op)
}

struct Ranking {
    scale: f64,
    targets: Arc<[u32]>,
    width: usize,
    candidates: usize,
    /// Filled by the forward pass, emptied by the backward pass.
    state: Mutex<Option<State>>,
}

/// What the backward pass needs, in the element type of the pass.
enum State {
    F32(Kept<f32>),
    F64(Kept<f64>),
}

struct Kept<T: Real> {
    /// `[n, m]`, scaled.
    scores: Buffer<T>,
    /// `[n]`: the log-sum-exp of each row.
    totals: Vec<T>,
}

/// Rows a thread takes at a time.
const ROWS: usize = 16;

simd_fn! {
    fn multiply_by<T>(values: &mut [T], scale: T) {
        values.iter_mut().for_each(|x| *x *= scale);
    }
}

simd_fn! {
    /// Scores become their gradient: `(softmax(x) - [target]) * scale`, nothing where the softmax has no value.
    fn row_gradient<T>(row: &mut [T], total: T, target: usize, scale: T, space: &mut [T]) {
        if !total.is_finite() {
            row.fill(T::ZERO);
            return;
        }
        space.copy_from_slice(row);
        row_softmax(space, total, scale, row);
        row[target] -= scale;
    }
}

impl Ranking {
    fn forward<T: Real>(&self, a: &[T], b: &[T]) -> (T, Kept<T>) {
        let (n, m) = (self.targets.len(), self.candidates);
        let mut scores = Buffer::<T>::take(n * m);
        let scale = T::of(self.scale);
        let (a, b) = ([a], [b]);
        matmul::multiply(
            Matrix::stacked(&a, self.width).depth_in_rows(),
            Matrix::stacked(&b, self.width).depth_in_rows(),
            Target::new(&mut scores, m).finished_by(&|_, _, values| multiply_by(values, scale)),
            Precision::Full,
        );
        let mut totals = kernel::zeros::<T>(n);
        let out = Shared::new(&mut totals);
        kernel::each(n, ROWS, |i| {
            // SAFETY: each row has its own place.
            unsafe { *out.at(i) = row_logsumexp(&scores[i * m..(i + 1) * m]) };
        });
        let mut sum = T::ZERO;
        for (i, (total, target)) in totals.iter().zip(self.targets.iter()).enumerate() {
            sum += *total - scores[i * m + *target as usize];
        }
        (sum / T::of(n as f64), Kept { scores, totals })
    }

    fn backward<T: Real>(&self, kept: Kept<T>, a: &[T], b: &[T], upstream: f64) -> (Vec<T>, Vec<T>) {
        let (n, m) = (self.targets.len(), self.candidates);
        let Kept { mut scores, totals } = kept;
        let scale = T::of(upstream / n as f64 * self.scale);
        let rows = Shared::new(&mut scores);
        let mut space = Buffer::<T>::take(n.div_ceil(ROWS) * m);
        let spaces = Shared::new(&mut space);
        kernel::each(n.div_ceil(ROWS), 1, |block| {
            // SAFETY: each block has its rows and a space of its own.
            let space = unsafe { spaces.range(block * m, m) };
            let first = block * ROWS;
            for (i, (total, target)) in totals.iter().zip(self.targets.iter()).enumerate().skip(first).take(ROWS) {
                // SAFETY: as above.
                row_gradient(unsafe { rows.range(i * m, m) }, *total, *target as usize, scale, space);
            }
        });
        drop(space);
        let (mut da, mut db) = (kernel::zeros::<T>(n * self.width), kernel::zeros::<T>(m * self.width));
        let (a, b, d) = ([a], [b], [&*scores]);
        let d = Matrix::stacked(&d, m);
        matmul::multiply(
            d.depth_in_rows(),
            Matrix::stacked(&b, self.width).depth_across_rows(),
            Target::new(&mut da, self.width),
            Precision::Full,
        );
        matmul::multiply(
            d.depth_across_rows(),
            Matrix::stacked(&a, self.width).depth_across_rows(),
            Target::new(&mut db, self.width),
            Precision::Full,
        );
        (da, db)
    }
}

impl CustomOp2 for Ranking {
    fn name(&self) -> &'static str {
        "ranking-cross-entropy"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (value, state) = match kernel::dtype(s1) {
            DType::F32 => {
                let (a, b) = (kernel::slice(s1, l1)?, kernel::slice(s2, l2)?);
                let (value, kept) = rayon::scope(|_| self.forward::<f32>(a, b));
                (CpuStorage::F32(vec![value]), State::F32(kept))
            }
            DType::F64 => {
                let (value, kept) = self.forward::<f64>(kernel::slice(s1, l1)?, kernel::slice(s2, l2)?);
                (CpuStorage::F64(vec![value]), State::F64(kept))
            }
            other => bail!("ranking: no kernel for {other:?}"),
        };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        Ok((value, Shape::from(())))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let upstream = dy.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (shape_a, shape_b) = (a.dims().to_vec(), b.dims().to_vec());
        let (a, b) = (kernel::host(a)?, kernel::host(b)?);
        Ok(match state {
            Some(State::F32(kept)) => {
                let (a, b) = (a.values()?, b.values()?);
                let (da, db) = rayon::scope(|_| self.backward(kept, a, b, upstream));
                (Some(kernel::tensor(da, shape_a)?), Some(kernel::tensor(db, shape_b)?))
            }
            Some(State::F64(kept)) => {
                let (da, db) = self.backward(kept, a.values()?, b.values()?, upstream);
                (Some(kernel::tensor(da, shape_a)?), Some(kernel::tensor(db, shape_b)?))
            }
            None => bail!("ranking: a graph is differentiated once"),
        })
    }
}
