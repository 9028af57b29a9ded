#![allow(clippy::unwrap_used)]
use candle_core::{DType, Device, Tensor, Var};

use super::*;

fn var(rows: &[[f64; 3]]) -> Var {
    let flat = rows.concat();
    Var::from_tensor(&Tensor::from_vec(flat, (rows.len(), 3), &Device::Cpu).unwrap()).unwrap()
}

fn gradient(of: &Tensor, by: &Var) -> Vec<Vec<f64>> {
    of.sum_all().unwrap().backward().unwrap().get(by).unwrap().to_vec2().unwrap()
}

#[test]
fn names_and_aliases() {
    for (name, similarity) in [
        ("cos_sim", Similarity::Cosine),
        ("dot_score", Similarity::Dot),
        ("dot", Similarity::Dot),
        ("pairwise_manhattan_sim", Similarity::Manhattan),
        ("euclidean", Similarity::Euclidean),
    ] {
        assert_eq!(name.parse::<Similarity>().unwrap(), similarity);
    }
    for similarity in Similarity::ALL {
        assert_eq!(similarity.name().parse::<Similarity>().unwrap(), similarity);
        assert_eq!(similarity.function_name().parse::<Similarity>().unwrap(), similarity);
        assert_eq!(serde_json::to_value(similarity).unwrap(), similarity.name());
    }
    let error = "cosin".parse::<Similarity>().unwrap_err();
    assert_eq!(error.hint(), Some("did you mean `cosine`?"));
}

#[test]
fn matrices_hold_the_pairs() {
    let mut rng = crate::util::seed::Rng::new(4);
    let mut draw = |rows: usize| {
        Tensor::from_iter((0..rows * 5).map(|_| rng.normal()), &Device::Cpu).unwrap().reshape((rows, 5)).unwrap()
    };
    // Both ways of making a Euclidean matrix.
    for rows in [4, 40] {
        let (a, b) = (draw(rows), draw(rows));
        for similarity in Similarity::ALL {
            let matrix = similarity.matrix(&a, &b).unwrap().to_vec2::<f64>().unwrap();
            let pairs = similarity.pairwise(&a, &b).unwrap().to_vec1::<f64>().unwrap();
            for (i, pair) in pairs.iter().enumerate() {
                assert!((matrix[i][i] - pair).abs() < 1e-12, "{similarity}");
            }
            let host = |t: &Tensor| {
                let flat = t.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
                crate::flow::Embeddings::new(5, flat)
            };
            for (pair, plain) in pairs.iter().zip(blocks::pairwise(similarity, &host(&a), &host(&b))) {
                assert!((pair - f64::from(plain)).abs() < 1e-5, "{similarity}");
            }
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    let a = [[0.3, -1.2, 0.7], [1.1, 0.4, -0.2]];
    let b = [[-0.5, 0.8, 0.9], [0.2, 0.1, 1.4]];
    for similarity in Similarity::ALL {
        for pairwise in [true, false] {
            let score = |x: &Tensor, y: &Tensor| {
                let s = if pairwise { similarity.pairwise(x, y) } else { similarity.matrix(x, y) };
                s.unwrap()
            };
            let (x, y) = (var(&a), var(&b));
            let by_graph = gradient(&score(x.as_tensor(), y.as_tensor()), &x);
            for i in 0..2 {
                for j in 0..3 {
                    let at = |step: f64| {
                        let mut moved = a;
                        moved[i][j] += step;
                        let x = var(&moved);
                        score(x.as_tensor(), y.as_tensor()).sum_all().unwrap().to_scalar::<f64>().unwrap()
                    };
                    let by_difference = (at(1e-5) - at(-1e-5)) / 2e-5;
                    assert!((by_graph[i][j] - by_difference).abs() < 1e-8, "{similarity} {pairwise}");
                }
            }
        }
    }
}

#[test]
fn no_nan_at_zero_vectors_and_equal_points() {
    let (a, b) = (var(&[[0.0; 3], [1.0, 2.0, 3.0]]), var(&[[0.0; 3], [1.0, 2.0, 3.0]]));
    for similarity in Similarity::ALL {
        for score in [similarity.pairwise(&a, &b).unwrap(), similarity.matrix(&a, &b).unwrap()] {
            for by in [&a, &b] {
                assert!(gradient(&score, by).concat().iter().all(|g| g.is_finite()), "{similarity}");
            }
        }
    }
    for similarity in [Similarity::Euclidean, Similarity::Manhattan] {
        let grads = gradient(&similarity.pairwise(&a, &b).unwrap(), &a);
        assert_eq!(grads, [[0.0; 3]; 2], "{similarity}");
    }
    // A row of zeros is divided by eps, and its gradient with it.
    let grads = gradient(&cosine::normalize(&a, 1e-12).unwrap(), &a);
    assert!((grads[0][0] / 1e12 - 1.0).abs() < 1e-12);
}

#[test]
fn nan_is_not_hidden() {
    let (a, b) = (var(&[[f64::NAN, 0.0, 1.0]]), var(&[[0.0, 1.0, 1.0]]));
    for similarity in Similarity::ALL {
        assert!(similarity.pairwise(&a, &b).unwrap().to_vec1::<f64>().unwrap()[0].is_nan(), "{similarity}");
    }
}

#[test]
fn the_stable_functions_have_torchs_subgradients() {
    let x = var(&[[-1.0, 0.0, 4.0]]);
    let check = |f: fn(&Tensor) -> candle_core::Result<Tensor>, values: [f64; 3], grads: [f64; 3]| {
        let y = f(&x).unwrap();
        assert_eq!(y.to_vec2::<f64>().unwrap(), [values]);
        assert_eq!(gradient(&y, &x), [grads]);
    };
    check(stable::sqrt, [0.0, 0.0, 2.0], [0.0, 0.0, 0.25]);
    check(stable::abs, [1.0, 0.0, 4.0], [-1.0, 0.0, 1.0]);
    check(stable::relu, [0.0, 0.0, 4.0], [0.0, 0.0, 1.0]);
    let mask = Tensor::new(&[[0u8, 1, 0]], &Device::Cpu).unwrap();
    let y = stable::masked_fill(&x, &mask, f64::NEG_INFINITY).unwrap();
    assert_eq!(y.to_vec2::<f64>().unwrap(), [[-1.0, f64::NEG_INFINITY, 4.0]]);
    assert_eq!(gradient(&y, &x), [[1.0, 0.0, 1.0]]);
}
