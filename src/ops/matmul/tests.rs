//! Every tile that this machine can run, and the bf16 one emulated, against the plain product.

use super::*;

fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = crate::util::seed::Rng::new(seed);
    (0..n).map(|_| rng.uniform() as f32 * 2.0 - 1.0).collect()
}

struct Case {
    m: usize,
    n: usize,
    k: usize,
    a_across: bool,
    b_across: bool,
    parts: usize,
    map_a: Option<Activation>,
    map_b: Option<Activation>,
    accumulate: bool,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let sizes = [
        (1, 1, 1),
        (3, 5, 2),
        (6, 16, 7),
        (13, 33, 129),
        (97, 48, 300),
        (104, 70, 1100),
        (31, 12, 257),
        (13, 530, 300),
    ];
    for (i, (m, n, k)) in sizes.into_iter().enumerate() {
        for bits in 0..8usize {
            let gelu = |on: bool| on.then_some(Activation::Gelu);
            cases.push(Case {
                m,
                n,
                k,
                a_across: bits & 1 > 0,
                b_across: bits & 2 > 0,
                parts: 1,
                map_a: gelu(bits == i),
                map_b: gelu((bits + 1) % 8 == i),
                accumulate: bits & 4 > 0,
            });
        }
    }
    // stacked weights: three parts along the columns, and along the depth
    for (b_across, n, k) in [(false, 3 * 24, 40), (true, 24, 3 * 40)] {
        cases.push(Case {
            m: 50,
            n,
            k,
            a_across: false,
            b_across,
            parts: 3,
            map_a: None,
            map_b: None,
            accumulate: false,
        });
    }
    cases
}

fn side<'a>(matrix: Matrix<'a, f32>, across: bool, map: Option<Activation>) -> Operand<'a, f32> {
    let side = if across { matrix.depth_across_rows() } else { matrix.depth_in_rows() };
    side.mapped(map.unwrap_or(Activation::Identity))
}

/// Compares what `runs` make of a case with plain sums over operands that went through `rounded`.
fn compare(case: &Case, runs: &[fn(&Product<'_, f32>)], rounded: &dyn Fn(f32) -> f32, tolerance: f64) {
    let Case { m, n, k, .. } = *case;
    let a = values(m * k, 1);
    let b = values(n * k, 2);
    let before = values(m * (n + 3), 3);
    let bias = values(n, 4);
    let (a_width, b_width) = (if case.a_across { m } else { k }, if case.b_across { n } else { k });
    let a_parts = [a.as_slice()];
    let b_parts: Vec<&[f32]> = if b.is_empty() { vec![&b] } else { b.chunks(b.len() / case.parts).collect() };
    let a_matrix = Matrix::stacked(&a_parts, a_width);
    let b_matrix = Matrix::stacked(&b_parts, b_width);
    let mut got = before.clone();
    let finish = |_: usize, column: usize, values: &mut [f32]| {
        for (value, bias) in values.iter_mut().zip(&bias[column..]) {
            *value += bias;
        }
    };
    let want = plain(case, &a, &b, &before, &bias, rounded);
    for run in runs {
        got.copy_from_slice(&before);
        run(&Product {
            a: side(a_matrix, case.a_across, case.map_a),
            b: side(b_matrix, case.b_across, case.map_b),
            target: Target::new(&mut got, n + 3).adding(case.accumulate).finished_by(&finish),
        });
        for (at, (got, want)) in got.iter().zip(&want).enumerate() {
            let error = (f64::from(*got) - want).abs();
            assert!(
                error <= tolerance * (k as f64).sqrt(),
                "[{m}, {n}, {k}] across {} {} at ({}, {}): {got}, wanted {want}",
                case.a_across,
                case.b_across,
                at / (n + 3),
                at % (n + 3)
            );
        }
    }
}

/// The product by three loops in f64; three columns beside it stay what they were.
fn plain(case: &Case, a: &[f32], b: &[f32], before: &[f32], bias: &[f32], rounded: &dyn Fn(f32) -> f32) -> Vec<f64> {
    let Case { m, n, k, .. } = *case;
    let read = |map: Option<Activation>, values: &[f32]| -> Vec<f64> {
        let mut mapped = vec![0.0; values.len()];
        map_row(map.unwrap_or(Activation::Identity), values, &mut mapped);
        mapped.into_iter().map(|x| f64::from(rounded(x))).collect()
    };
    let (a, b) = (read(case.map_a, a), read(case.map_b, b));
    let mut want: Vec<f64> = before.iter().map(|x| f64::from(*x)).collect();
    for i in 0..m {
        for j in 0..n {
            let term = |d: usize| {
                let x = if case.a_across { a[d * m + i] } else { a[i * k + d] };
                let y = if case.b_across { b[d * n + j] } else { b[j * k + d] };
                x * y
            };
            let sum: f64 = (0..k).map(term).sum();
            let at = i * (n + 3) + j;
            want[at] = if case.accumulate { want[at] } else { 0.0 } + sum + f64::from(bias[j]);
        }
    }
    want
}

#[test]
fn tiles_agree_with_plain_sums() {
    let mut full: Vec<fn(&Product<'_, f32>)> = vec![twin::multiply, |p| multiply_f32(p, Precision::Full)];
    let mut half: Vec<fn(&Product<'_, f32>)> = vec![packed::multiply::<tile::Emulated>];
    #[cfg(target_arch = "x86_64")]
    {
        if kernel::level() == Level::Avx512 {
            full.push(packed::multiply::<tile::Avx2>);
        }
        if bf16_products() == Some(Bf16Products::Bfloat16) {
            half.push(|p| multiply_f32(p, Precision::Bf16));
        }
    }
    for case in cases() {
        compare(&case, &full, &|x| x, 2e-6);
        compare(&case, &half, &|x| half::bf16::from_f32(x).to_f32(), 2e-6);
        #[cfg(target_arch = "x86_64")]
        if kernel::level() != Level::Baseline {
            // values below 1 are off by 1/8190 at most, 0.00007 in the mean; six of those cover every sum of `k`
            compare(&case, &[packed::multiply::<tile::Avx2Fixed>], &|x| x, 5e-4);
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn fixed_point_is_nearer_than_bfloat16() {
    if kernel::level() == Level::Baseline {
        return;
    }
    let (m, n, k) = (48, 64, 384);
    let mut rng = crate::util::seed::Rng::new(3);
    // rows of very different sizes; then a few values that stand out far, as some dimensions of transformers do
    for outlier in [1.0, 30.0] {
        let mut normal = |rows: usize| -> Vec<f32> {
            let value = |i: usize| rng.normal() as f32 * 10f32.powi((i / k % 9) as i32 - 4);
            let mut values: Vec<f32> = (0..rows * k).map(value).collect();
            values.iter_mut().step_by(97).for_each(|x| *x *= outlier);
            values
        };
        let (a, b) = (normal(m), normal(n));
        let (left, right) = ([a.as_slice()], [b.as_slice()]);
        let run = |multiply: fn(&Product<'_, f32>)| {
            let mut out = vec![0.0; m * n];
            multiply(&Product {
                a: Matrix::stacked(&left, k).depth_in_rows(),
                b: Matrix::stacked(&right, k).depth_in_rows(),
                target: Target::new(&mut out, n),
            });
            out
        };
        let norm = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let error = |got: &[f32]| {
            let mut sum = 0.0;
            for (i, a) in a.chunks(k).enumerate() {
                for (j, b) in b.chunks(k).enumerate() {
                    let exact: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    sum += ((f64::from(got[i * n + j]) - exact) / (norm(a) * norm(b))).powi(2);
                }
            }
            (sum / (m * n) as f64).sqrt()
        };
        let fixed = error(&run(packed::multiply::<tile::Avx2Fixed>));
        let bf16 = error(&run(packed::multiply::<tile::Emulated>));
        assert!(fixed < 0.6 * bf16, "outliers of {outlier}: {fixed} against {bf16}");
        assert!(fixed > 1e-7, "it is rounded after all");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn fixed_point_passes_on_what_is_no_number() {
    if kernel::level() == Level::Baseline {
        return;
    }
    let a = [vec![1.0f32; 4], vec![f32::NAN, 1.0, 1.0, 1.0], vec![f32::INFINITY, 1.0, 1.0, 1.0], vec![0.0; 4]].concat();
    let b = vec![1e-35f32, 2e-3, 0.5, 0.25];
    let (a, b) = ([a.as_slice()], [b.as_slice()]);
    let mut out = [0.0f32; 4];
    packed::multiply::<tile::Avx2Fixed>(&Product {
        a: Matrix::stacked(&a, 4).depth_in_rows(),
        b: Matrix::stacked(&b, 4).depth_in_rows(),
        target: Target::new(&mut out, 1),
    });
    assert!((out[0] - 0.752).abs() < 1e-3 && out[1].is_nan() && out[2].is_nan() && out[3] == 0.0, "{out:?}");
}

#[test]
fn small_products_agree_with_plain_sums() {
    /// Right sides packed both ways, both forms of the left side, and a place with room or without.
    fn check<T: Real>(small: &Small<T>, tolerance: f64) {
        for (m, n, k) in [(1, 1, 1), (5, 3, 2), (6, 16, 8), (13, 32, 9), (17, 33, 40), (7, 50, 64)] {
            let real = |values: Vec<f32>| values.into_iter().map(|x| T::of(f64::from(x))).collect::<Vec<T>>();
            let (a, b) = (real(values(m * k, 1)), real(values(n * k, 2)));
            for bits in 0..8 {
                let (left_across, right_across, room) = (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
                let parts = [b.as_slice()];
                let mut panels = vec![T::ONE; k * small.padded(n)];
                if right_across {
                    small.pack(Matrix::stacked(&parts, n), &mut panels);
                } else {
                    small.pack_transposed(Matrix::stacked(&parts, k), &mut panels);
                }
                let left =
                    Left { values: &a, row: if left_across { 1 } else { k }, step: if left_across { m } else { 1 } };
                let (rows, columns) = if room { (small.padded_rows(m), small.padded(n)) } else { (m, n) };
                let mut out = vec![T::ZERO; rows * columns];
                let place = Place { data: out.as_mut_ptr(), stride: columns, rows, columns };
                // SAFETY: `out` is as large as its place says.
                unsafe {
                    small.product(left, &panels, (m, n, k), place, false);
                    small.product(left, &panels, (m, n, k), place, true);
                }
                for i in 0..m {
                    for j in 0..n {
                        let term = |d: usize| {
                            let x = if left_across { a[d * m + i] } else { a[i * k + d] };
                            let y = if right_across { b[d * n + j] } else { b[j * k + d] };
                            x.as_f64() * y.as_f64()
                        };
                        let want = 2.0 * (0..k).map(term).sum::<f64>();
                        let got = out[i * columns + j].as_f64();
                        assert!((got - want).abs() < tolerance, "[{m}, {n}, {k}] {bits} at ({i}, {j}): {got}, {want}");
                    }
                }
            }
        }
    }
    check(&Small::<f32>::f32(), 2e-5);
    check(&Small::<f32>::plain(), 2e-5);
    check(&Small::<f64>::plain(), 1e-12);
}

#[test]
fn nothing_to_sum_is_zero() {
    let (a, b): (&[f32], &[f32]) = (&[], &[]);
    let mut out = vec![7.0f32; 6];
    let (a, b) = ([a], [b]);
    let left = Matrix { parts: &a, rows_per_part: 2, stride: 0, offset: 0, width: 0 }.depth_in_rows();
    let right = Matrix { parts: &b, rows_per_part: 3, stride: 0, offset: 0, width: 0 }.depth_in_rows();
    multiply(left, right, Target::new(&mut out, 3), Precision::Full);
    assert_eq!(out, [0.0; 6]);
}

#[test]
fn values_that_are_no_numbers_survive_rounding() {
    let a = vec![f32::NAN, 1.0, f32::INFINITY, 1.0];
    let b = vec![1.0f32, 1.0];
    let (a, b) = ([a.as_slice()], [b.as_slice()]);
    let mut out = [0.0f32; 2];
    let product = Product {
        a: Matrix::stacked(&a, 2).depth_in_rows(),
        b: Matrix::stacked(&b, 2).depth_in_rows(),
        target: Target::new(&mut out, 1),
    };
    packed::multiply::<tile::Emulated>(&product);
    assert!(out[0].is_nan() && out[1].is_infinite(), "{out:?}");
}
