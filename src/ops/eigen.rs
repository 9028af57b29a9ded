//! Eigenvalues and eigenvectors of a symmetric matrix, in f64.
//!
//! `A = V diag(λ) Vᵀ` by Householder reflections to tridiagonal form and implicit QL (Golub and Van Loan, Matrix
//! Computations, 8.3): about `9 n³` operations, most of them on strips of columns in parallel.

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Columns that are rotated together: what they take of a matrix stays in the cache.
const STRIP: usize = 64;
/// Sweeps for one eigenvalue; two are usual.
const MOST_SWEEPS: usize = 60;

/// The eigenvalues of a symmetric `[n, n]` matrix, largest first, and `[n, n]` with an eigenvector of length 1 a row.
///
/// # Errors
/// When the matrix is not `n` by `n` or has values that are not finite.
pub fn symmetric_eigen(mut a: Vec<f64>, n: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    if a.len() != n * n {
        return Err(Error::Internal(format!("{} values are no matrix of {n} by {n}", a.len())));
    }
    if a.iter().any(|x| !x.is_finite()) {
        return Err(
            Error::model("a covariance is not a finite number").with_hint("does the model give NaN embeddings?")
        );
    }
    let (mut diagonal, mut beside, scales) = tridiagonal(&mut a, n);
    let q = reflections(&a, &scales, n);
    // the transpose of q, cut into strips of columns: every strip is rotated by itself
    let mut strips: Vec<Vec<f64>> = (0..n)
        .step_by(STRIP)
        .map(|from| {
            let width = STRIP.min(n - from);
            let mut strip = vec![0.0; n * width];
            for (row, out) in strip.chunks_exact_mut(width).enumerate() {
                for (column, out) in out.iter_mut().enumerate() {
                    *out = q[(from + column) * n + row];
                }
            }
            strip
        })
        .collect();
    implicit_ql(&mut diagonal, &mut beside, &mut strips)?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| diagonal[*j].total_cmp(&diagonal[*i]));
    let mut vectors = vec![0.0; n * n];
    for (out, row) in vectors.chunks_exact_mut(n.max(1)).zip(&order) {
        for (out, strip) in out.chunks_mut(STRIP).zip(&strips) {
            out.copy_from_slice(&strip[row * out.len()..(row + 1) * out.len()]);
        }
    }
    Ok((order.iter().map(|i| diagonal[*i]).collect(), vectors))
}

/// Reduces `a` to tridiagonal form; the vector of reflection `k` is left in row `k`, right of the diagonal. Returns the
/// diagonal, what stands beside it, and the reflections' scales.
fn tridiagonal(a: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut beside, mut scales) = (vec![0.0; n], vec![0.0; n]);
    for k in 0..n.saturating_sub(2) {
        let mut v = a[k * n + k + 1..(k + 1) * n].to_vec();
        let rest: f64 = v[1..].iter().map(|x| x * x).sum();
        if rest == 0.0 {
            beside[k] = v[0];
            continue;
        }
        // (I - τ v vᵀ) x = |x| e₁
        let length = (v[0] * v[0] + rest).sqrt();
        let first = if v[0] <= 0.0 { v[0] - length } else { -rest / (v[0] + length) };
        let tau = 2.0 * first * first / (rest + first * first);
        v.iter_mut().for_each(|x| *x /= first);
        v[0] = 1.0;
        (beside[k], scales[k]) = (length, tau);
        a[k * n + k + 1..(k + 1) * n].copy_from_slice(&v);
        // A - v wᵀ - w vᵀ, where w = p - τ/2 (pᵀv) v and p = τ A v
        let below = &mut a[(k + 1) * n..];
        let mut w: Vec<f64> = below.par_chunks_exact(n).map(|row| tau * dot(&row[k + 1..], &v)).collect();
        let half = tau / 2.0 * dot(&w, &v);
        w.iter_mut().zip(&v).for_each(|(w, v)| *w -= half * v);
        below.par_chunks_exact_mut(n).enumerate().for_each(|(i, row)| {
            let (vi, wi) = (v[i], w[i]);
            for ((x, v), w) in row[k + 1..].iter_mut().zip(&v).zip(&w) {
                *x -= vi * w + wi * v;
            }
        });
    }
    if n >= 2 {
        beside[n - 2] = a[(n - 2) * n + n - 1];
    }
    ((0..n).map(|i| a[i * n + i]).collect(), beside, scales)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (blocks_a, blocks_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = blocks_a.remainder().iter().zip(blocks_b.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in blocks_a.zip(blocks_b) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// The product of the reflections, `[n, n]`.
fn reflections(a: &[f64], scales: &[f64], n: usize) -> Vec<f64> {
    let mut q = vec![0.0; n * n];
    (0..n).for_each(|i| q[i * n + i] = 1.0);
    for k in (0..n.saturating_sub(2)).rev().filter(|k| scales[*k] != 0.0) {
        let v = &a[k * n + k + 1..(k + 1) * n];
        let mut along = vec![0.0; v.len()];
        for (row, v) in q[(k + 1) * n..].chunks_exact(n).zip(v) {
            along.iter_mut().zip(&row[k + 1..]).for_each(|(sum, x)| *sum += v * x);
        }
        q[(k + 1) * n..].par_chunks_exact_mut(n).zip(v).for_each(|(row, v)| {
            let scaled = scales[k] * v;
            row[k + 1..].iter_mut().zip(&along).for_each(|(x, along)| *x -= scaled * along);
        });
    }
    q
}

/// Brings what stands beside the diagonal to zero; the rows of `strips` are rotated along.
fn implicit_ql(d: &mut [f64], e: &mut [f64], strips: &mut [Vec<f64>]) -> Result<()> {
    let n = d.len();
    let mut rotations: Vec<(f64, f64)> = Vec::with_capacity(n);
    for l in 0..n {
        for sweep in 0.. {
            let small = |m: &usize| e[*m].abs() <= f64::EPSILON * (d[*m].abs() + d[*m + 1].abs());
            let m = (l..n - 1).find(small).unwrap_or(n - 1);
            if m == l {
                break;
            }
            if sweep == MOST_SWEEPS {
                return Err(Error::Internal(format!("eigenvalue {l} of {n} is not found in {MOST_SWEEPS} sweeps")));
            }
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let r = g.hypot(1.0);
            g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            rotations.clear();
            let mut broken = false;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    broken = true;
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[i + 1] - p;
                let r = (d[i] - g) * s + 2.0 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
                rotations.push((c, s));
            }
            // rotation number j turns rows m - 1 - j and m - j
            strips.par_iter_mut().for_each(|strip| {
                let width = strip.len() / n;
                for (j, (c, s)) in rotations.iter().enumerate() {
                    let (upper, lower) = strip[(m - 1 - j) * width..(m + 1 - j) * width].split_at_mut(width);
                    for (x, y) in upper.iter_mut().zip(lower) {
                        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                    }
                }
            });
            if !broken {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::util::seed::Rng;

    /// `Vᵀ V = I` and `A v = λ v`.
    fn check(a: &[f64], n: usize) -> Vec<f64> {
        let (values, vectors) = symmetric_eigen(a.to_vec(), n).unwrap();
        let largest = a.iter().fold(1.0f64, |m, x| m.max(x.abs()));
        let rows: Vec<&[f64]> = vectors.chunks_exact(n).collect();
        for (i, v) in rows.iter().enumerate() {
            for (j, w) in rows.iter().enumerate() {
                let wanted = if i == j { 1.0 } else { 0.0 };
                assert!((dot(v, w) - wanted).abs() < 1e-11 * n as f64, "{i} {j}");
            }
            for (row, x) in a.chunks_exact(n).zip(*v) {
                assert!((dot(row, v) - values[i] * x).abs() < 1e-11 * n as f64 * largest, "vector {i}");
            }
        }
        assert!(values.windows(2).all(|w| w[0] >= w[1]), "{values:?}");
        values
    }

    #[test]
    fn vectors_are_turned_to_multiples_of_themselves() {
        let mut rng = Rng::new(3);
        for n in [1, 2, 3, 17, 64, 65, 130] {
            let rows: Vec<f64> = (0..n * n).map(|_| rng.normal()).collect();
            let mut a = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..n {
                    a[i * n + j] = rows[i * n + j] + rows[j * n + i];
                }
            }
            check(&a, n);
        }
    }

    #[test]
    fn equal_and_vanishing_eigenvalues_are_found() {
        assert_eq!(check(&[0.0; 25], 5), vec![0.0; 5]);
        let mut identity = vec![0.0; 36];
        (0..6).for_each(|i| identity[i * 7] = 2.0);
        assert_eq!(check(&identity, 6), vec![2.0; 6]);
        // of rank one: x xᵀ
        let x: Vec<f64> = (1..=20).map(f64::from).collect();
        let a: Vec<f64> = x.iter().flat_map(|i| x.iter().map(move |j| i * j)).collect();
        let values = check(&a, 20);
        assert!((values[0] - 2870.0).abs() < 1e-9 && values[1..].iter().all(|v| v.abs() < 1e-9), "{values:?}");
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        assert!(symmetric_eigen(vec![f64::NAN], 1).is_err());
        assert!(symmetric_eigen(vec![1.0; 3], 2).is_err());
        assert!(symmetric_eigen(Vec::new(), 0).unwrap().0.is_empty());
    }
}
