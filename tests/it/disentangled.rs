//! Scores that know distances: values by hand, gradients by finite differences, both paths, and layers side by side.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use tallow::ops::composed::everywhere;
use tallow::ops::{self, Activation, Context, Disentangled, Dropout, Param};
use tallow::util::seed::Rng;

use crate::composed::{NO_PARAMS, compare};
use crate::ops::{check_gradients, offsets, random};
use crate::support::{assert_close, values};

/// A row for each of the nearer distances; all before and all behind share one.
fn distances(reach: i64, span: i64, terms: (bool, bool)) -> Arc<Disentangled> {
    let rows = (-reach..=reach).map(|behind| (span - behind).clamp(0, 2 * span - 1) as u32).collect();
    Arc::new(Disentangled::new(rows, terms.0, terms.1).unwrap())
}

const TERMS: [(bool, bool); 3] = [(true, true), (true, false), (false, true)];

fn inputs(rng: &mut Rng, tokens: usize, width: usize, span: i64, terms: (bool, bool)) -> [Tensor; 2] {
    let count = usize::from(terms.0) + usize::from(terms.1);
    [random(rng, &[tokens, 3 * width]), random(rng, &[2 * span as usize, count * width])]
}

/// One score after the other, as the paper has them.
#[test]
fn scores_are_of_content_and_of_distance() {
    let (length, heads, head_dim, span) = (7usize, 2usize, 3usize, 2i64);
    let width = heads * head_dim;
    for terms in TERMS {
        let [qkv, positions] = inputs(&mut Rng::new(1), length, width, span, terms);
        let run = || {
            let all = distances(9, span, terms);
            ops::disentangled_attention(&qkv, &positions, &offsets(&[7]), heads, &all, Dropout::NONE).unwrap()
        };
        let rows = |x: &Tensor, part: usize, head: usize| -> Vec<Vec<f64>> {
            let from = part * width + head * head_dim;
            values(x).chunks(x.dim(1).unwrap()).map(|row| row[from..from + head_dim].to_vec()).collect()
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut want = vec![0.0; length * width];
        let count = 1 + usize::from(terms.0) + usize::from(terms.1);
        for head in 0..heads {
            let (q, k, v) = (rows(&qkv, 0, head), rows(&qkv, 1, head), rows(&qkv, 2, head));
            for i in 0..length {
                let score = |j: usize| {
                    let row = (i as i64 - j as i64 + span).clamp(0, 2 * span - 1) as usize;
                    let first = if terms.0 { dot(&q[i], &rows(&positions, 0, head)[row]) } else { 0.0 };
                    let of_queries = usize::from(terms.0);
                    let second = if terms.1 { dot(&k[j], &rows(&positions, of_queries, head)[row]) } else { 0.0 };
                    (dot(&q[i], &k[j]) + first + second) / ((head_dim * count) as f64).sqrt()
                };
                let weights: Vec<f64> = (0..length).map(|j| score(j).exp()).collect();
                for d in 0..head_dim {
                    let seen: f64 = weights.iter().zip(&v).map(|(weight, v)| weight * v[d]).sum();
                    want[i * width + head * head_dim + d] = seen / weights.iter().sum::<f64>();
                }
            }
        }
        assert_close("by hand", &values(&run()), &want, 1e-12);
        assert_close("by hand, composed", &values(&everywhere(run)), &want, 1e-12);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let rng = &mut Rng::new(2);
    let lengths = offsets(&[3, 1, 0, 4]);
    for terms in TERMS {
        for (span, rate) in [(2, 0.0), (3, 0.4), (9, 0.0)] {
            let inputs = inputs(rng, 8, 6, span, terms);
            let distances = distances(6, span, terms);
            let check = || {
                check_gradients("disentangled attention", &inputs, &[], |x, c| {
                    ops::disentangled_attention(&x[0], &x[1], &lengths, 2, &distances, c.dropout(rate))
                });
            };
            check();
            everywhere(check);
        }
    }
}

/// More queries than are computed at a time, heads of whole tiles, rows that no distance has.
#[test]
fn composed_equals_the_kernel() {
    let rng = &mut Rng::new(3);
    for (lengths, heads, width, span) in
        [(&[7u32, 1, 0, 12][..], 4, 8, 3), (&[97, 5], 2, 64, 20), (&[230], 1, 16, 256), (&[193, 96, 30], 2, 48, 40)]
    {
        let (tokens, longest) = (lengths.iter().sum::<u32>(), lengths.iter().copied().max().unwrap());
        let offsets = offsets(lengths);
        for terms in TERMS {
            let inputs = inputs(rng, tokens as usize, width, span, terms);
            let distances = distances(i64::from(longest) + 3, span, terms);
            for rate in [0.0, 0.2] {
                compare("disentangled attention", &inputs, NO_PARAMS, &|x, _, c| {
                    ops::disentangled_attention(&x[0], &x[1], &offsets, heads, &distances, c.dropout(rate))
                });
            }
        }
    }
}

/// Whatever the number of threads, sums are of the same parts.
#[test]
fn gradients_do_not_depend_on_threads() {
    let [qkv, positions] = inputs(&mut Rng::new(4), 300, 32, 30, (true, true)).map(|x| x.to_dtype(DType::F32).unwrap());
    let (lengths, distances) = (offsets(&[40, 7, 100, 3, 60, 21, 9, 30, 11, 19]), distances(99, 30, (true, true)));
    let run = || {
        let [qkv, positions] = [&qkv, &positions].map(|x| candle_core::Var::from_tensor(x).unwrap());
        let y = ops::disentangled_attention(&qkv, &positions, &lengths, 4, &distances, Dropout::NONE).unwrap();
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        [&qkv, &positions].map(|x| values(gradients.get(x).unwrap()))
    };
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run);
    let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap().install(run);
    assert_eq!(one, four);
}

#[test]
fn what_does_not_fit_is_refused() {
    let zeros = |rows: usize, width: usize| Tensor::zeros((rows, width), DType::F32, &Device::Cpu).unwrap();
    let run = |qkv: &Tensor, positions: &Tensor, reach: i64, heads: usize| {
        let lengths = offsets(&[qkv.dim(0).unwrap() as u32]);
        let all = distances(reach, 2, (true, true));
        ops::disentangled_attention(qkv, positions, &lengths, heads, &all, Dropout::NONE).map_err(|e| e.to_string())
    };
    assert!(run(&zeros(3, 12), &zeros(4, 8), 2, 2).is_ok());
    assert!(run(&zeros(3, 12), &zeros(4, 8), 2, 3).unwrap_err().contains("3 heads"));
    assert!(run(&zeros(3, 12), &zeros(4, 4), 2, 2).unwrap_err().contains("2 terms"));
    assert!(run(&zeros(4, 12), &zeros(4, 8), 2, 2).unwrap_err().contains("4 tokens"));
    assert!(run(&zeros(3, 12), &zeros(3, 8), 2, 2).unwrap_err().contains("row 3"));
    assert!(Disentangled::new(vec![0, 1], true, true).is_err());
    assert!(run(&zeros(0, 12), &zeros(4, 8), 2, 2).is_ok_and(|y| y.dims() == [0, 4]));
}

/// Layers as one product, the other half as the gate, and neighbours side by side: each against what it is made of.
#[test]
fn layers_side_by_side_gates_and_windows() {
    let rng = &mut Rng::new(5);
    let make = |dtype: DType| {
        let rng = &mut Rng::new(6);
        let one =
            |rng: &mut Rng, shape: &[usize]| Param::new("p", &random(rng, shape).to_dtype(dtype).unwrap()).unwrap();
        vec![one(rng, &[3, 5]), one(rng, &[3]), one(rng, &[3, 5])]
    };
    let x = [random(rng, &[4, 5])];
    let run =
        |x: &[Tensor], p: &[Arc<Param>], c: &Context| ops::linears(c, &x[0], &[(&p[0], Some(&p[1])), (&p[2], None)]);
    compare("linears", &x, &make, &run);
    let p = make(DType::F64);
    check_gradients("linears", &x, &p, |x, c| run(x, &p, c));
    let context = Context::inference();
    let apart = [(&p[0], Some(&p[1])), (&p[2], None)].map(|(w, b)| ops::linear(&context, &x[0], w, b).unwrap());
    let together = run(&x, &p, &context).unwrap();
    assert_close("side by side", &values(&together), &values(&Tensor::cat(&apart, 1).unwrap()), 1e-12);

    let x = [random(rng, &[3, 14])];
    for kind in [Activation::Gelu, Activation::Silu] {
        compare("gated last", &x, NO_PARAMS, &|x, _, _| ops::gated_last(&x[0], kind));
        check_gradients("gated last", &x, &[], |x, _| ops::gated_last(&x[0], kind));
        let halves = [7, 0].map(|from| x[0].narrow(1, from, 7).unwrap());
        let turned = Tensor::cat(&halves, 1).unwrap();
        assert_eq!(
            values(&ops::gated_last(&x[0], kind).unwrap()),
            values(&ops::gated(&turned, kind).unwrap()),
            "{kind:?}"
        );
    }

    let x = Tensor::new(&[[1.0f64, 10.0], [2.0, 20.0], [3.0, 30.0]], &Device::Cpu).unwrap();
    let windows = ops::windows(&x, &[0, 2, 3], 3).unwrap();
    assert_eq!(
        windows.to_vec2::<f64>().unwrap(),
        [[0.0, 1.0, 2.0, 0.0, 10.0, 20.0], [1.0, 2.0, 0.0, 10.0, 20.0, 0.0], [0.0, 3.0, 0.0, 0.0, 30.0, 0.0]]
    );
    assert!(ops::windows(&x, &[0, 2, 3], 2).is_err() && ops::windows(&x, &[0, 2], 3).is_err());
}
