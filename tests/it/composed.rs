//! What a GPU computes equals what the kernels compute: every composed operation, every loss, whole runs, on the CPU.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use tallow::flow::{Encode, EncodeOptions, PackedBatch};
use tallow::model::{ModelOptions, SentenceTransformer, StaticOptions};
use tallow::ops::composed::everywhere;
use tallow::ops::{self, Activation, Context, LateInteraction, Pairs, Param, PoolingMode, Rotary, Sight};
use tallow::train::{self, Event, Options};
use tallow::util::seed::Rng;

use crate::ops::{Layer, offsets, random};
use crate::support::{assert_close, copy_dir, project, values};
use crate::train::{SMALL, plan, run};

// The tests of the kernels, on the other path.

#[test]
fn operations_equal_pytorch() {
    everywhere(crate::ops::values_and_gradients_equal_pytorch);
}

#[test]
fn gradients_equal_finite_differences() {
    everywhere(crate::ops::gradients_equal_finite_differences);
}

#[test]
fn no_nan_and_no_wrong_shape() {
    everywhere(|| {
        crate::ops::infinite_scores_give_no_nan();
        crate::ops::wrong_shapes_are_refused();
    });
}

#[test]
fn losses_equal_the_reference() {
    everywhere(crate::losses::losses_equal_the_reference);
}

#[test]
fn twenty_steps_follow_the_reference() {
    everywhere(crate::train::twenty_steps_follow_the_reference);
}

#[test]
fn runs_resume_stop_and_measure() {
    everywhere(|| {
        crate::train::a_resumed_run_has_the_same_bits();
        crate::train::an_exploding_run_stops_and_names_its_rows();
        crate::train::evaluation_data_gives_a_loss();
        crate::train::a_smoke_test_measures_and_writes_nothing();
        crate::train::a_static_embedding_is_trained_from_scratch();
    });
}

/// The kernels know f32 and f64, candle's operations half precision as well: what computes in f16 is composed.
#[test]
fn the_switch_reaches_every_operation() {
    let x = Tensor::ones((4, 6), DType::F16, &Device::Cpu).unwrap();
    let (offsets, skip) = (offsets(&[1, 3]), Arc::new(Vec::new()));
    let all = |x: &Tensor| {
        let param = |shape: &[usize]| Param::new("p", &Tensor::ones(shape, DType::F16, &Device::Cpu).unwrap()).unwrap();
        let (square, vector) = (param(&[6, 6]), param(&[6]));
        let context = Context::training(DType::F16, Rng::new(0)).unwrap();
        let ids = Arc::new(vec![5, 0, 0, 1]);
        let layer = ops::SelfAttention {
            query: (&square, &vector),
            key: (&square, &vector),
            value: (&square, &vector),
            output: (&square, &vector),
            norm: (&vector, &vector),
            eps: 1e-5,
            heads: 2,
            relative: None,
            attended: &[],
            probability_dropout: context.dropout(0.1),
            dropout: context.dropout(0.1),
        };
        let forward = ops::FeedForward {
            inner: (&square, &vector),
            activation: Activation::Gelu,
            outer: (&square, &vector),
            norm: (&vector, &vector),
            eps: 1e-5,
            dropout: context.dropout(0.1),
        };
        vec![
            ("linear", ops::linear(&context, x, &square, Some(&vector))),
            ("activation", ops::activation(x, Activation::Gelu)),
            ("dropout", ops::dropout(x, context.dropout(0.1))),
            ("embedding sum", ops::embedding_sum(&context, &[(&square, ids.clone())])),
            ("embedding bag", ops::embedding_bag_mean(&context, &square, &ids, &offsets)),
            ("layer norm", ops::layer_norm(x, &vector, &vector, 1e-5)),
            ("residual layer norm", ops::residual_layer_norm(x, x, context.dropout(0.1), &vector, &vector, 1e-5)),
            ("l2 normalise", ops::l2_normalize(x, 1e-5)),
            ("attention", ops::attention(x, x, x, &offsets, 2, context.dropout(0.1))),
            ("rotary attention", {
                let rotary = Arc::new(Rotary::new(10.0, 2, 3));
                ops::rotary_attention(x, &offsets, 1, &rotary, Sight::Near(1), context.dropout(0.1))
            }),
            ("gated", ops::gated(x, Activation::Gelu)),
            ("gated last", ops::gated_last(x, Activation::Gelu)),
            ("linears", ops::linears(&context, x, &[(&square, None), (&square, Some(&vector))])),
            ("disentangled attention", {
                let distances = Arc::new(ops::Disentangled::new(vec![0, 1, 2, 3, 0], true, true).unwrap());
                let positions = x.narrow(1, 0, 4).unwrap().contiguous().unwrap();
                ops::disentangled_attention(x, &positions, &offsets, 1, &distances, context.dropout(0.1))
            }),
            ("self-attention", ops::self_attention(&context, x, &offsets, &layer)),
            ("feed-forward", ops::feed_forward(&context, x, &forward)),
            (
                "encoder",
                ops::encoder(
                    &context,
                    x,
                    &offsets,
                    &[ops::EncoderLayer { attention: layer, feed_forward: forward }],
                    ops::Keep::All,
                ),
            ),
            ("pooling", ops::pool(x, &offsets, &skip, PoolingMode::Mean)),
            ("dot products", ops::dot_products(x, x)),
            ("ranking", ops::ranking_cross_entropy(x, x, 20.0, &[0, 1, 2, 3])),
            ("logsumexp", ops::logsumexp(x)),
            ("cross-entropy", ops::cross_entropy(x, &[0, 1, 2, 3])),
        ]
    };
    for (what, result) in all(&x) {
        assert!(result.is_err(), "{what} has no kernel for f16");
    }
    for (what, result) in everywhere(|| all(&x)) {
        assert_eq!(result.map(|y| y.dtype()).map_err(|e| e.to_string()), Ok(DType::F16), "{what}");
    }
}

// Both paths side by side.

/// Variables and parameters in, a result out.
pub type Operation<'a> = &'a dyn Fn(&[Tensor], &[Arc<Param>], &Context) -> Result<Tensor>;

/// Makes parameters, runs `f` on variables, and returns its value and all gradients.
fn results(inputs: &[Tensor], params: &dyn Fn() -> Vec<Arc<Param>>, f: Operation<'_>, dtype: DType) -> Vec<Vec<f64>> {
    let params = params();
    let context = Context::training(dtype, Rng::new(3)).unwrap();
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors, &params, &context).unwrap();
    let pattern: Vec<f64> = (0..y.elem_count()).map(|k| (0.7 * k as f64 + 0.3).sin()).collect();
    let pattern = Tensor::from_vec(pattern, y.dims(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let grads = y.mul(&pattern).unwrap().sum_all().unwrap().backward().unwrap();
    ops::collect(&grads, &params).unwrap();
    let mut all = vec![values(&y)];
    for (var, input) in vars.iter().zip(inputs) {
        all.push(grads.get(var).map_or_else(|| vec![0.0; input.elem_count()], values));
    }
    for param in &params {
        let none = || vec![0.0; param.elements()];
        all.push(param.gradient_tensor().unwrap().map_or_else(none, |g| values(&g)));
    }
    all
}

/// Compares the kernel with the composed operation in both element types.
pub fn compare(what: &str, inputs: &[Tensor], params: &dyn Fn(DType) -> Vec<Arc<Param>>, f: Operation<'_>) {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(dtype).unwrap()).collect();
        let kernel = results(&inputs, &|| params(dtype), f, dtype);
        let composed = everywhere(|| results(&inputs, &|| params(dtype), f, dtype));
        for (i, (composed, kernel)) in composed.iter().zip(&kernel).enumerate() {
            assert_close(&format!("{what} {dtype:?}, result {i}"), composed, kernel, tolerance);
        }
    }
}

pub const NO_PARAMS: &dyn Fn(DType) -> Vec<Arc<Param>> = &|_| Vec::new();

fn matrix(rows: &[&[f64]]) -> Tensor {
    let width = rows[0].len();
    Tensor::from_vec(rows.concat(), (rows.len(), width), &Device::Cpu).unwrap()
}

#[test]
fn operations_without_parameters_equal_the_kernels() {
    let rng = &mut Rng::new(11);
    let x = random(rng, &[9, 14]);
    for kind in [Activation::Gelu, Activation::Tanh, Activation::Relu, Activation::Sigmoid, Activation::Identity] {
        compare("activation", std::slice::from_ref(&x), NO_PARAMS, &|x, _, _| ops::activation(&x[0], kind));
        let edges = matrix(&[&[0.0, -0.0, 200.0, -200.0, 1e-30, 6.0, -6.0]]);
        compare("activation at its edges", &[edges], NO_PARAMS, &|x, _, _| ops::activation(&x[0], kind));
    }
    for rate in [0.3, 1.0] {
        compare("dropout", std::slice::from_ref(&x), NO_PARAMS, &|x, _, c| ops::dropout(&x[0], c.dropout(rate)));
    }
    let short = matrix(&[&[0.0, 0.0], &[1e-14, -1e-14], &[3.0, 4.0], &[1e-9, 0.0]]);
    compare("l2 normalise", std::slice::from_ref(&x), NO_PARAMS, &|x, _, _| ops::l2_normalize(&x[0], 1e-12));
    for eps in [1e-12, 1e-8] {
        // gradients there are as large as 1 / eps
        let scaled = move |x: &[Tensor]| ops::l2_normalize(&x[0], eps)?.affine(eps, 0.0);
        compare("l2 normalise short rows", std::slice::from_ref(&short), NO_PARAMS, &|x, _, _| scaled(x));
    }
    let pair = [random(rng, &[5, 7]), random(rng, &[3, 7])];
    compare("dot products", &pair, NO_PARAMS, &|x, _, _| ops::dot_products(&x[0], &x[1]));
    compare("ranking", &pair, NO_PARAMS, &|x, _, _| ops::ranking_cross_entropy(&x[0], &x[1], 3.0, &[2, 0, 1, 1, 2]));
    let (queries, documents) = (offsets(&[2, 3]), offsets(&[1, 2]));
    for scoring in [LateInteraction::MaxSim, LateInteraction::MeanMaxSim, LateInteraction::Xtr { top_k: 2 }] {
        for pairs in [Pairs::All, Pairs::Same] {
            compare("late interaction", &pair, NO_PARAMS, &|x, _, _| {
                ops::late_interaction((&x[0], &queries), (&x[1], &documents), scoring, pairs)
            });
        }
    }
    let infinite = f64::NEG_INFINITY;
    let scores = matrix(&[&[1.0, infinite, 800.0], &[-900.0, -901.0, infinite], &[0.0; 3]]);
    for x in [x.clone(), scores.clone(), random(rng, &[2, 3, 4])] {
        compare("logsumexp", &[x], NO_PARAMS, &|x, _, _| ops::logsumexp(&x[0]));
    }
    compare("cross-entropy", &[scores], NO_PARAMS, &|x, _, _| ops::cross_entropy(&x[0], &[2, 0, 1]));
    let targets = [0u32, 13, 2, 2, 5, 1, 0, 7, 9];
    compare("cross-entropy", &[x], NO_PARAMS, &|x, _, _| ops::cross_entropy(&x[0], &targets));
}

#[test]
fn pooling_equals_the_kernel() {
    let rng = &mut Rng::new(12);
    let modes = [
        PoolingMode::Cls,
        PoolingMode::Max,
        PoolingMode::Mean,
        PoolingMode::MeanSqrtLenTokens,
        PoolingMode::WeightedMean,
        PoolingMode::LastToken,
    ];
    // ties in the maximum: the first token wins
    let ties = random(rng, &[9, 3]).affine(2.0, 0.0).unwrap().round().unwrap();
    for mode in modes {
        for x in [random(rng, &[9, 5]), ties.clone()] {
            for lengths in [&[4u32, 1, 0, 4][..], &[9], &[0, 9, 0]] {
                let offsets = offsets(lengths);
                let skips = [vec![], lengths.iter().map(|n| n / 2).collect(), lengths.to_vec()];
                for skip in skips.map(Arc::new) {
                    let what = format!("{mode:?} of {lengths:?} without {skip:?}");
                    compare(&what, std::slice::from_ref(&x), NO_PARAMS, &|x, _, _| {
                        ops::pool(&x[0], &offsets, &skip, mode)
                    });
                }
            }
        }
    }
}

#[test]
fn attention_equals_the_kernel() {
    let rng = &mut Rng::new(13);
    for (lengths, heads) in [(&[7u32, 1, 0, 12][..], 4), (&[20], 1), (&[0, 0, 3, 17, 0], 2)] {
        let qkv = [0, 1, 2].map(|_| random(rng, &[20, 8]));
        let offsets = offsets(lengths);
        for rate in [0.0, 0.4] {
            compare("attention", &qkv, NO_PARAMS, &|x, _, c| {
                ops::attention(&x[0], &x[1], &x[2], &offsets, heads, c.dropout(rate))
            });
        }
    }
}

/// Keys at the end of a sequence that are not looked at, and queries that are near to none of those that are.
#[test]
fn attention_to_some_keys_equals_the_kernel() {
    let rng = &mut Rng::new(17);
    let rotary = Arc::new(Rotary::new(10.0, 4, 12));
    for attended in [&[3u32, 1, 9][..], &[7, 1, 12], &[1, 1, 1]] {
        let qkv = random(rng, &[20, 24]);
        let offsets = offsets(&[7, 1, 12]);
        for sight in [Sight::All, Sight::Near(1), Sight::Near(3), Sight::Before, Sight::Last(2)] {
            let what = format!("attention to {attended:?} of {sight:?}");
            compare(&what, std::slice::from_ref(&qkv), NO_PARAMS, &|x, _, c| {
                ops::rotary_attention_to(&x[0], (&offsets, attended), 2, &rotary, sight, c.dropout(0.3))
            });
        }
    }
}

/// More queries than are computed at a time, and heads of whole tiles.
#[test]
fn attention_of_long_sequences_equals_the_kernel() {
    let rng = &mut Rng::new(15);
    for (lengths, heads, width) in [(&[97u32, 5][..], 2, 64), (&[230], 1, 16), (&[193, 96], 2, 48)] {
        let tokens = lengths.iter().sum::<u32>() as usize;
        let qkv = [0, 1, 2].map(|_| random(rng, &[tokens, width]));
        let offsets = offsets(lengths);
        for rate in [0.0, 0.2] {
            compare("long attention", &qkv, NO_PARAMS, &|x, _, c| {
                ops::attention(&x[0], &x[1], &x[2], &offsets, heads, c.dropout(rate))
            });
        }
    }
}

#[test]
fn rotary_attention_and_gates_equal_the_kernels() {
    let rng = &mut Rng::new(16);
    for (lengths, heads, width) in [(&[7u32, 1, 0, 12][..], 4, 8), (&[230], 1, 16), (&[193, 96, 3], 2, 32)] {
        let tokens = lengths.iter().sum::<u32>() as usize;
        let qkv = random(rng, &[tokens, 3 * width]);
        let offsets = offsets(lengths);
        let rotary = Arc::new(Rotary::new(300.0, width / heads, tokens));
        for sight in [
            Sight::All,
            Sight::Before,
            Sight::Near(0),
            Sight::Near(3),
            Sight::Near(64),
            Sight::Last(5),
            Sight::Last(99),
        ] {
            for rate in [0.0, 0.2] {
                compare("rotary attention", std::slice::from_ref(&qkv), NO_PARAMS, &|x, _, c| {
                    ops::rotary_attention(&x[0], &offsets, heads, &rotary, sight, c.dropout(rate))
                });
            }
        }
    }
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu] {
        for shape in [&[5usize, 14][..], &[2, 3, 4]] {
            compare("gated", &[random(rng, shape)], NO_PARAMS, &|x, _, _| ops::gated(&x[0], kind));
        }
    }
}

#[test]
fn every_backbone_is_what_transformers_makes_it() {
    everywhere(|| {
        crate::backbones::hidden_states_and_gradients_are_transformers();
        crate::backbones::classifiers_are_transformers();
        crate::backbones::masked_lm_heads_are_transformers();
    });
}

/// Random parameters of the given shapes, the same at every call.
fn params(shapes: &'static [(&'static str, &'static [usize])]) -> impl Fn(DType) -> Vec<Arc<Param>> {
    move |dtype| {
        let rng = &mut Rng::new(21);
        shapes
            .iter()
            .map(|(name, shape)| Param::new(*name, &random(rng, shape).to_dtype(dtype).unwrap()).unwrap())
            .collect()
    }
}

#[test]
fn operations_with_parameters_equal_the_kernels() {
    let rng = &mut Rng::new(14);
    let dense = params(&[("w", &[3, 5]), ("b", &[3])]);
    for shape in [&[4usize, 5][..], &[2, 3, 5], &[5]] {
        compare("linear", &[random(rng, shape)], &dense, &|x, p, c| ops::linear(c, &x[0], &p[0], Some(&p[1])));
        compare("linear without bias", &[random(rng, shape)], &dense, &|x, p, c| ops::linear(c, &x[0], &p[0], None));
    }
    let norm = params(&[("g", &[19]), ("h", &[19])]);
    let pair = [random(rng, &[6, 19]), random(rng, &[6, 19])];
    compare("layer norm", &pair[..1], &norm, &|x, p, _| ops::layer_norm(&x[0], &p[0], &p[1], 1e-12));
    for (shift, norm) in [(0.0, params(&[("g", &[19])])), (1.0, params(&[("g", &[1])]))] {
        compare("rms norm", &pair[..1], &norm, &|x, p, _| ops::rms_norm(&x[0], &p[0], shift, 1e-6));
    }
    let (table, qkv) = (params(&[("distances", &[3, 2])]), [0, 1, 2].map(|_| random(rng, &[9, 4])));
    let (lengths, rows) = (offsets(&[5, 0, 4]), Arc::new(vec![0, 0, 1, 2, 2, 1, 1, 0, 2]));
    for attended in [&[][..], &[3, 1, 4]] {
        compare("relative attention", &qkv, &table, &|x, p, c| {
            let relative = ops::Relative::new(&p[0], &rows)?;
            ops::relative_attention(&x[0], &x[1], &x[2], (&lengths, attended), 2, &relative, c.dropout(0.3))
        });
    }
    for rate in [0.0, 0.3] {
        compare("residual layer norm", &pair, &norm, &|x, p, c| {
            ops::residual_layer_norm(&x[0], &x[1], c.dropout(rate), &p[0], &p[1], 1e-12)
        });
    }
    let tables = params(&[("a", &[7, 3]), ("b", &[4, 3])]);
    let (ids, positions) = (Arc::new(vec![6, 1, 1, 0, 6]), Arc::new(vec![0, 1, 2, 0, 1]));
    compare("embedding sum", &[], &tables, &|_, p, c| {
        ops::embedding_sum(c, &[(&p[0], ids.clone()), (&p[1], positions.clone())])
    });
    for (ids, lengths) in [(vec![6u32, 1, 1, 0, 6], vec![2u32, 0, 3]), (vec![3], vec![0, 1, 0])] {
        let (ids, offsets) = (Arc::new(ids), offsets(&lengths));
        compare("embedding bag", &[], &tables, &|_, p, c| ops::embedding_bag_mean(c, &p[0], &ids, &offsets));
    }
}

#[test]
fn layers_equal_the_kernels() {
    for (rate, lengths) in [(0.0, vec![3u32, 1, 0, 40, 5]), (0.1, vec![30, 23, 7])] {
        let tokens: u32 = lengths.iter().sum();
        let offsets = offsets(&lengths);
        for kind in [Activation::Gelu, Activation::Relu] {
            let layer = |dtype| Layer::random(&mut Rng::new(9), 24, 48, dtype).0;
            let x = [random(&mut Rng::new(10), &[tokens as usize, 24])];
            compare("a layer", &x, &layer, &|x, p, c| {
                let layer = Layer(p.to_vec());
                let attended = layer.attention(c, &x[0], &offsets, 4, rate)?;
                layer.forward(c, &attended, kind, rate)
            });
            let attended: Vec<u32> = lengths.iter().map(|length| length.div_ceil(2)).collect();
            compare("a layer that leaves tokens out", &x, &layer, &|x, p, c| {
                let layer = Layer(p.to_vec());
                let parts = ops::SelfAttention { attended: &attended, ..layer.attention_layer(c, 4, rate) };
                ops::self_attention(c, &x[0], &offsets, &parts)
            });
            compare("an encoder", &x, &layer, &|x, p, c| {
                let layer = Layer(p.to_vec());
                let one = || ops::EncoderLayer {
                    attention: layer.attention_layer(c, 4, rate),
                    feed_forward: layer.forward_layer(c, kind, rate),
                };
                ops::encoder(c, &x[0], &offsets, &[one(), one()], ops::Keep::All)
            });
        }
    }
}

#[test]
fn frozen_parameters_do_not_cut_the_graph() {
    everywhere(|| {
        let rng = &mut Rng::new(5);
        let table = Param::frozen("table", &random(rng, &[4, 6])).unwrap();
        let (g, h) = (Param::new("g", &random(rng, &[6])).unwrap(), Param::new("h", &random(rng, &[6])).unwrap());
        let context = Context::training(DType::F64, Rng::new(0)).unwrap();
        let x = ops::embedding_sum(&context, &[(&table, Arc::new(vec![1, 3]))]).unwrap();
        let y = ops::layer_norm(&x, &g, &h, 1e-5).unwrap();
        let all = [table.clone(), g.clone(), h];
        for _ in 0..2 {
            ops::collect(&y.sqr().unwrap().sum_all().unwrap().backward().unwrap(), &all).unwrap();
        }
        assert!(table.gradient_tensor().unwrap().is_none());
        let twice = values(&g.gradient_tensor().unwrap().unwrap());
        g.clear_gradient();
        ops::collect(&y.sqr().unwrap().sum_all().unwrap().backward().unwrap(), &all).unwrap();
        let once: Vec<f64> = values(&g.gradient_tensor().unwrap().unwrap()).iter().map(|x| 2.0 * x).collect();
        assert_close("two passes add up", &twice, &once, 1e-12);
        assert!(once.iter().all(|x| *x != 0.0));
    });
}

#[test]
fn inference_leaves_no_graph() {
    everywhere(|| {
        for name in ["tiny-bert", "tiny-static", "tiny-modules"] {
            let model = SentenceTransformer::load(&project("tests/fixtures").join(name)).unwrap();
            assert!(model.params().iter().all(|p| p.composed()));
            let batch = PackedBatch::pack([(&[2u32, 5, 3][..], 0), (&[2, 3][..], 0)]);
            assert!(!model.forward(&batch, &Context::inference()).unwrap().track_op(), "{name}");
            let context = Context::training(DType::F32, Rng::new(0)).unwrap();
            assert!(model.forward(&batch, &context).unwrap().track_op(), "{name}");
        }
    });
}

#[test]
fn models_encode_and_are_saved_alike() {
    let texts = ["a text", "another, and a longer one", "", "one"];
    let options = EncodeOptions::default();
    for name in ["tiny-bert", "tiny-static", "tiny-modules"] {
        let directory = project("tests/fixtures").join(name);
        let kernels = SentenceTransformer::load(&directory).unwrap().encode(&texts, &options).unwrap();
        let saved = tempfile::tempdir().unwrap();
        let composed = everywhere(|| {
            let model = SentenceTransformer::load(&directory).unwrap();
            model.save(&saved.path().join("model")).unwrap();
            model.encode(&texts, &options).unwrap()
        });
        let again = SentenceTransformer::load(&saved.path().join("model")).unwrap().encode(&texts, &options).unwrap();
        assert_eq!(again, kernels, "{name}");
        let wide = |e: &tallow::flow::Embeddings| e.data().iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        assert_close(name, &wide(&composed), &wide(&kernels), 1e-6);
    }
}

#[test]
fn a_new_static_model_has_the_same_rows() {
    let from = StaticOptions { tokenizer: project("tests/fixtures/tiny-bert"), embedding_dim: 8 };
    let make = || SentenceTransformer::new_static(&from, &ModelOptions::default(), Rng::new(4)).unwrap();
    let rows = |model: &SentenceTransformer| values(model.params()[0].value());
    assert_eq!(rows(&make()), everywhere(|| rows(&make())));
}

/// Losses, norms and final weights of a run.
fn curve(text: &str, dir: &Path, options: Options) -> (Vec<(u64, f64, f64)>, Vec<f64>) {
    let (outcome, logs) = run(&plan(text, &[]), dir, options);
    let model = SentenceTransformer::load(&outcome.unwrap().model_dir).unwrap();
    let weights = model.encode(&["a text", "what is this", "seven"], &EncodeOptions::default()).unwrap();
    let weights = weights.data().iter().map(|x| f64::from(*x)).collect();
    (logs.iter().map(|l| (l.step, l.loss, l.grad_norm)).collect(), weights)
}

fn assert_alike(what: &str, a: &[(u64, f64, f64)], b: &[(u64, f64, f64)], tolerance: f64) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.0, b.0);
        assert!((a.1 - b.1).abs() < tolerance * b.1.abs().max(1.0), "{what}: loss of step {}: {} {}", a.0, a.1, b.1);
        assert!(
            (a.2 - b.2).abs() < 10.0 * tolerance * b.2.abs().max(1.0),
            "{what}: norm of step {}: {} {}",
            a.0,
            a.2,
            b.2
        );
    }
}

/// With dropout, two batches a step and weight decay: the masks are the same on both paths.
#[test]
fn whole_runs_equal_those_of_the_kernels() {
    let bert = SMALL.replace("load_best_model_at_end = true", "load_best_model_at_end = false");
    let table = bert.replace(
        "base = \"tests/fixtures/tiny-bert\"",
        "[model.static_embedding]\nembedding_dim = 32\ntokenizer = \"tests/fixtures/tiny-bert\"",
    );
    for (what, text) in [("bert", bert), ("static", table)] {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (kernels, end) = curve(&text, a.path(), Options::default());
        let (composed, composed_end) = everywhere(|| curve(&text, b.path(), Options::default()));
        assert!(kernels.len() > 12);
        assert_alike(what, &composed, &kernels, 1e-4);
        assert_close(what, &composed_end, &end, 1e-3);
    }
}

/// A checkpoint does not tell where it was written.
#[test]
fn checkpoints_go_from_one_path_to_the_other() {
    let text = SMALL.replace("load_best_model_at_end = true", "load_best_model_at_end = false");
    let plan = plan(&text, &[]);
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    let mut logs = Vec::new();
    let mut listen = |event: &Event<'_>| match event {
        Event::Log(line) => logs.push((line.step, line.loss, line.grad_norm)),
        Event::Checkpoint { step: 8, .. } => copy_dir(&whole.join("checkpoints"), &stopped.join("checkpoints")),
        _ => {}
    };
    everywhere(|| train::run(&plan, &whole, &Options::default(), &mut listen)).unwrap();
    let other = dir.path().join("other");
    copy_dir(&stopped, &other);
    let resume = Options { resume: true, ..Options::default() };
    let (on_kernels, _) = curve(&text, &stopped, resume);
    let (on_composed, _) = everywhere(|| curve(&text, &other, resume));
    assert_eq!(on_composed, logs[8..], "the same path has the same bits");
    assert_alike("on the kernels", &on_kernels, &logs[8..], 1e-4);
}

#[test]
fn without_a_gpu_the_cpu_is_used() {
    if cfg!(any(feature = "cuda", feature = "metal")) {
        return;
    }
    assert!(ops::device::first().unwrap().is_cpu());
    assert!(ops::device::name(&Device::Cpu).contains(ops::simd_level()));
}
