//! Every operation against PyTorch's values and gradients, and against finite differences.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use serde_json::Value;
use tallow::ops::{self, Activation, Context, Dropout, LateInteraction, Pairs, Param, PoolingMode, Rotary, Sight};
use tallow::util::seed::Rng;

use crate::support::{assert_close, golden, tensor, values, whole};

/// Offsets of sequences with the given lengths.
pub fn offsets(lengths: &[u32]) -> Arc<Vec<u32>> {
    let mut all = vec![0];
    for length in lengths {
        all.push(all[all.len() - 1] + length);
    }
    Arc::new(all)
}

/// Inputs of a case: variables for activations, parameters for weights, by name.
struct Case<'a> {
    value: &'a Value,
    dtype: DType,
    variables: Vec<(String, Var)>,
    params: Vec<(String, Arc<Param>)>,
}

impl<'a> Case<'a> {
    fn new(value: &'a Value, dtype: DType) -> Self {
        Self { value, dtype, variables: Vec::new(), params: Vec::new() }
    }

    fn var(&mut self, name: &str) -> Tensor {
        let var = Var::from_tensor(&tensor(&self.value["inputs"][name], self.dtype)).unwrap();
        self.variables.push((name.to_owned(), var.clone()));
        var.as_tensor().clone()
    }

    fn param(&mut self, name: &str) -> Arc<Param> {
        let param = Param::new(name, &tensor(&self.value["inputs"][name], self.dtype)).unwrap();
        self.params.push((name.to_owned(), Arc::clone(&param)));
        param
    }

    fn ids(&self, name: &str) -> Arc<Vec<u32>> {
        Arc::new(whole(&self.value["inputs"][name]))
    }

    fn offsets(&self) -> Arc<Vec<u32>> {
        offsets(&whole(&self.value["inputs"]["lengths"]))
    }

    fn eps(&self) -> f64 {
        self.value["eps"].as_f64().unwrap()
    }
}

fn mode(name: &str) -> PoolingMode {
    serde_json::from_value(Value::from(name)).unwrap()
}

fn run(case: &mut Case<'_>) -> Result<Tensor> {
    let context = Context::training(case.dtype, Rng::new(0))?;
    let op = case.value["op"].as_str().unwrap();
    match op {
        "linear" => {
            ops::linear(&Context::inference(), &case.var("x"), &case.param("weight"), Some(&case.param("bias")))
        }
        "dense_tanh" => {
            let y =
                ops::linear(&Context::inference(), &case.var("x"), &case.param("weight"), Some(&case.param("bias")))?;
            ops::activation(&y, Activation::Tanh)
        }
        "residual_layer_norm" => ops::residual_layer_norm(
            &case.var("x"),
            &case.var("residual"),
            Dropout::NONE,
            &case.param("weight"),
            &case.param("bias"),
            case.eps(),
        ),
        "attention" => {
            let heads = case.value["inputs"]["heads"].as_u64().unwrap() as usize;
            ops::attention(&case.var("q"), &case.var("k"), &case.var("v"), &case.offsets(), heads, Dropout::NONE)
        }
        "gelu_erf" => ops::activation(&case.var("x"), Activation::Gelu),
        "embedding_sum" => {
            let (word, position, kind) = (case.param("word"), case.param("position"), case.param("token_type"));
            let tables = [
                (&word, case.ids("word_ids")),
                (&position, case.ids("position_ids")),
                (&kind, case.ids("token_type_ids")),
            ];
            ops::embedding_sum(&context, &tables)
        }
        "pooling" => {
            let (x, offsets) = (case.var("tokens"), case.offsets());
            let none = Arc::new(Vec::new());
            match &case.value["mode"] {
                Value::String(name) => ops::pool(&x, &offsets, &none, mode(name)),
                modes => {
                    let parts: Result<Vec<Tensor>> = modes
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|m| ops::pool(&x, &offsets, &none, mode(m.as_str().unwrap())))
                        .collect();
                    Tensor::cat(&parts?, 1)
                }
            }
        }
        "l2_normalize" => ops::l2_normalize(&case.var("x"), case.eps()),
        "cross_entropy" => {
            let targets = whole(&case.value["inputs"]["targets"]);
            ops::cross_entropy(&case.var("logits"), &targets)
        }
        "embedding_bag_mean" => {
            let table = case.param("weight");
            ops::embedding_bag_mean(&context, &table, &case.ids("ids"), &case.offsets())
        }
        other => panic!("no test for the operation `{other}`"),
    }
}

#[test]
pub fn values_and_gradients_equal_pytorch() {
    let golden = golden("ops");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 15);
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
        for (i, value) in cases.iter().enumerate() {
            let mut case = Case::new(value, dtype);
            let what = format!("case {i}, {} {} {dtype:?}", value["op"], value["mode"]);
            let y = run(&mut case).unwrap();
            assert_eq!(y.dims(), crate::support::shape(&value["output"]), "{what}");
            assert_close(&what, &values(&y), &values(&tensor(&value["output"], DType::F64)), tolerance);
            let weighted = (&y * tensor(&value["grad_output"], dtype)).unwrap().sum_all().unwrap();
            let grads = weighted.backward().unwrap();
            let params: Vec<Arc<Param>> = case.params.iter().map(|(_, param)| Arc::clone(param)).collect();
            ops::collect(&grads, &params).unwrap();
            let want = value["grads"].as_object().unwrap();
            assert_eq!(want.len(), case.variables.len() + case.params.len(), "{what}");
            for (name, var) in &case.variables {
                let got = values(grads.get(var.as_tensor()).unwrap());
                assert_close(&format!("{what}: d {name}"), &got, &values(&tensor(&want[name], DType::F64)), tolerance);
            }
            for (name, param) in &case.params {
                let got = values(&param.gradient_tensor().unwrap().unwrap());
                assert_close(&format!("{what}: d {name}"), &got, &values(&tensor(&want[name], DType::F64)), tolerance);
            }
        }
    }
}

pub fn random(rng: &mut Rng, shape: &[usize]) -> Tensor {
    let n = shape.iter().product();
    let data: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// Central differences of `Σ f(inputs) * pattern` against what backward gives, for variables and parameters alike.
pub fn check_gradients(
    what: &str,
    variables: &[Tensor],
    params: &[Arc<Param>],
    f: impl Fn(&[Tensor], &Context) -> Result<Tensor>,
) {
    let rng = Rng::new(99);
    let value = |inputs: &[Tensor]| -> (Tensor, f64) {
        let context = Context::training(DType::F64, rng).unwrap();
        let y = f(inputs, &context).unwrap();
        let pattern: Vec<f64> = (0..y.elem_count()).map(|k| (0.7 * k as f64 + 0.3).sin()).collect();
        let pattern = Tensor::from_vec(pattern, y.dims().to_vec(), &Device::Cpu).unwrap();
        let total = (y * pattern).unwrap().sum_all().unwrap();
        let number = total.to_scalar::<f64>().unwrap();
        (total, number)
    };
    params.iter().for_each(|p| p.clear_gradient());
    let vars: Vec<Var> = variables.iter().map(|v| Var::from_tensor(v).unwrap()).collect();
    let inputs: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = value(&inputs).0.backward().unwrap();
    ops::collect(&grads, params).unwrap();
    let analytic: Vec<Vec<f64>> = vars.iter().map(|v| values(grads.get(v.as_tensor()).unwrap())).collect();
    let of_params: Vec<Vec<f64>> = params.iter().map(|p| values(&p.gradient_tensor().unwrap().unwrap())).collect();
    let h = 1e-6;
    for (i, variable) in variables.iter().enumerate() {
        let mut data = values(variable);
        for k in 0..data.len() {
            let mut at = |x: f64| {
                let old = std::mem::replace(&mut data[k], x);
                let mut moved = variables.to_vec();
                moved[i] = Tensor::from_vec(data.clone(), variable.dims().to_vec(), &Device::Cpu).unwrap();
                data[k] = old;
                value(&moved).1
            };
            let x = values(variable)[k];
            let numeric = (at(x + h) - at(x - h)) / (2.0 * h);
            let error = (numeric - analytic[i][k]).abs() / numeric.abs().max(1.0);
            assert!(error < 1e-7, "{what}: input {i}[{k}] is {}, differences say {numeric}", analytic[i][k]);
        }
    }
    for (param, gradient) in params.iter().zip(of_params) {
        for (k, gradient) in gradient.iter().enumerate() {
            let shift = |by: f64| param.update::<f64, _>(|v| v[k] += by).unwrap();
            shift(h);
            let above = value(variables).1;
            shift(-2.0 * h);
            let below = value(variables).1;
            shift(h);
            let numeric = (above - below) / (2.0 * h);
            let error = (numeric - gradient).abs() / numeric.abs().max(1.0);
            assert!(error < 1e-7, "{what}: `{}`[{k}] is {gradient}, differences say {numeric}", param.name());
        }
    }
}

/// The parameters of a transformer layer, by the names of [`NAMES`].
pub struct Layer(pub Vec<Arc<Param>>);

const NAMES: [&str; 12] = ["wq", "bq", "wk", "bk", "wv", "bv", "wo", "bo", "w1", "b1", "w2", "b2"];

impl Layer {
    pub fn random(rng: &mut Rng, width: usize, inner: usize, dtype: DType) -> Self {
        let mut params = Vec::new();
        for name in NAMES {
            let out = if matches!(name, "w1" | "b1") { inner } else { width };
            let input = if name == "w2" { inner } else { width };
            let shape = if name.starts_with('w') { vec![out, input] } else { vec![out] };
            let scale = if name.starts_with('w') { 1.0 / (input as f64).sqrt() } else { 0.1 };
            let value = random(rng, &shape).affine(scale, 0.0).unwrap().to_dtype(dtype).unwrap();
            params.push(Param::new(name, &value).unwrap());
        }
        for name in ["g1", "h1", "g2", "h2"] {
            let value = random(rng, &[width]).affine(0.2, 1.0).unwrap().to_dtype(dtype).unwrap();
            params.push(Param::new(name, &value).unwrap());
        }
        Self(params)
    }

    fn pair(&self, at: usize) -> (&Arc<Param>, &Arc<Param>) {
        (&self.0[at], &self.0[at + 1])
    }

    fn attention_params(&self) -> Vec<Arc<Param>> {
        self.0[..8].iter().chain(&self.0[12..14]).cloned().collect()
    }

    fn forward_params(&self) -> Vec<Arc<Param>> {
        self.0[8..12].iter().chain(&self.0[14..]).cloned().collect()
    }

    pub fn attention_layer(&self, c: &Context, heads: usize, rate: f64) -> ops::SelfAttention<'_> {
        ops::SelfAttention {
            query: self.pair(0),
            key: self.pair(2),
            value: self.pair(4),
            output: self.pair(6),
            norm: self.pair(12),
            eps: 1e-9,
            heads,
            relative: None,
            attended: &[],
            probability_dropout: c.dropout(rate),
            dropout: c.dropout(rate),
        }
    }

    pub fn attention(
        &self,
        c: &Context,
        x: &Tensor,
        offsets: &Arc<Vec<u32>>,
        heads: usize,
        rate: f64,
    ) -> Result<Tensor> {
        ops::self_attention(c, x, offsets, &self.attention_layer(c, heads, rate))
    }

    pub fn forward_layer(&self, c: &Context, activation: Activation, rate: f64) -> ops::FeedForward<'_> {
        ops::FeedForward {
            inner: self.pair(8),
            activation,
            outer: self.pair(10),
            norm: self.pair(14),
            eps: 1e-9,
            dropout: c.dropout(rate),
        }
    }

    pub fn forward(&self, c: &Context, x: &Tensor, activation: Activation, rate: f64) -> Result<Tensor> {
        ops::feed_forward(c, x, &self.forward_layer(c, activation, rate))
    }

    /// The same layer from the single operations: the slow twin of the two blocks.
    fn twin(&self, c: &Context, x: &Tensor, offsets: &Arc<Vec<u32>>, heads: usize, rate: f64) -> Result<Tensor> {
        let linear = |x: &Tensor, at: usize| ops::linear(c, x, &self.0[at], Some(&self.0[at + 1]));
        let seen = ops::attention(&linear(x, 0)?, &linear(x, 2)?, &linear(x, 4)?, offsets, heads, c.dropout(rate))?;
        let (g, h) = self.pair(12);
        let y = ops::residual_layer_norm(&linear(&seen, 6)?, x, c.dropout(rate), g, h, 1e-9)?;
        let inner = ops::activation(&linear(&y, 8)?, Activation::Gelu)?;
        let (g, h) = self.pair(14);
        ops::residual_layer_norm(&linear(&inner, 10)?, &y, c.dropout(rate), g, h, 1e-9)
    }
}

#[test]
fn blocks_equal_the_operations_they_are_made_of() {
    for dtype in [DType::F64, DType::F32] {
        for (rate, lengths) in [(0.0, vec![3u32, 1, 0, 70, 5]), (0.1, vec![40, 33, 7])] {
            let mut rng = Rng::new(9);
            let layer = Layer::random(&mut rng, 48, 192, dtype);
            let tokens: u32 = lengths.iter().sum();
            let x = random(&mut rng, &[tokens as usize, 48]).to_dtype(dtype).unwrap();
            let weights = random(&mut rng, &[tokens as usize, 48]).to_dtype(dtype).unwrap();
            let offsets = offsets(&lengths);
            let run = |fast: bool| {
                let context = Context::training(dtype, Rng::new(3)).unwrap();
                let x = Var::from_tensor(&x).unwrap();
                let y = if fast {
                    let attended = layer.attention(&context, &x, &offsets, 4, rate).unwrap();
                    layer.forward(&context, &attended, Activation::Gelu, rate).unwrap()
                } else {
                    layer.twin(&context, &x, &offsets, 4, rate).unwrap()
                };
                let gradients = y.mul(&weights).unwrap().sum_all().unwrap().backward().unwrap();
                let mut results = vec![y.clone(), gradients.get(&x).unwrap().clone()];
                for param in &layer.0 {
                    results.push(param.gradient_tensor().unwrap().unwrap());
                    param.clear_gradient();
                }
                results
            };
            let tolerance = if dtype == DType::F64 { 1e-11 } else { 2e-4 };
            for (i, (fast, slow)) in run(true).iter().zip(run(false)).enumerate() {
                let [fast, slow] = [fast, &slow].map(values);
                let size = slow.iter().fold(1.0f64, |m, x| m.max(x.abs()));
                for (a, b) in fast.iter().zip(&slow) {
                    assert!((a - b).abs() <= tolerance * size, "{dtype:?} result {i}: {a} against {b}");
                }
            }
        }
    }
}

#[test]
fn an_encoder_equals_its_layers_to_the_bit() {
    for rate in [0.0, 0.1] {
        let mut rng = Rng::new(11);
        let layers: Vec<Layer> = (0..3).map(|_| Layer::random(&mut rng, 32, 64, DType::F32)).collect();
        // more queries than are computed at a time
        let offsets = offsets(&[5, 230, 1, 17]);
        let x = random(&mut rng, &[253, 32]).to_dtype(DType::F32).unwrap();
        let weights = random(&mut rng, &[253, 32]).to_dtype(DType::F32).unwrap();
        let run = |whole: Option<ops::Keep>| {
            let context = Context::training(DType::F32, Rng::new(3)).unwrap();
            let x = Var::from_tensor(&x).unwrap();
            let y = if let Some(keep) = whole {
                let layers: Vec<_> = layers
                    .iter()
                    .map(|layer| ops::EncoderLayer {
                        attention: layer.attention_layer(&context, 4, rate),
                        feed_forward: layer.forward_layer(&context, Activation::Gelu, rate),
                    })
                    .collect();
                ops::encoder(&context, &x, &offsets, &layers, keep).unwrap()
            } else {
                layers.iter().fold(x.as_tensor().clone(), |x, layer| {
                    let attended = layer.attention(&context, &x, &offsets, 4, rate).unwrap();
                    layer.forward(&context, &attended, Activation::Gelu, rate).unwrap()
                })
            };
            let gradients = y.mul(&weights).unwrap().sum_all().unwrap().backward().unwrap();
            let mut results = vec![values(&y), values(gradients.get(&x).unwrap())];
            for param in layers.iter().flat_map(|layer| &layer.0) {
                results.push(values(&param.gradient_tensor().unwrap().unwrap()));
                param.clear_gradient();
            }
            results
        };
        assert!(run(Some(ops::Keep::All)) == run(None), "dropout {rate}");
        assert!(run(Some(ops::Keep::Input)) == run(None), "computed again, dropout {rate}");
    }
    let context = Context::inference();
    let x = random(&mut Rng::new(1), &[3, 8]);
    assert_eq!(
        values(&ops::encoder(&context, &x, &offsets(&[3]), &[], ops::Keep::All).unwrap()),
        values(&x),
        "no layers, no change"
    );
}

#[test]
fn ranking_equals_the_operations_it_is_made_of() {
    for dtype in [DType::F64, DType::F32] {
        for (n, m, width, scale) in [(1, 1, 3, 1.0), (5, 5, 8, 20.0), (37, 74, 40, 0.5)] {
            let mut rng = Rng::new(6);
            let [a, b] = [n, m].map(|rows| random(&mut rng, &[rows, width]).to_dtype(dtype).unwrap());
            let targets: Vec<u32> = (0..n as u32).map(|i| (i * 7) % m as u32).collect();
            let run = |fast: bool| {
                let (a, b) = (Var::from_tensor(&a).unwrap(), Var::from_tensor(&b).unwrap());
                let value = if fast {
                    ops::ranking_cross_entropy(&a, &b, scale, &targets).unwrap()
                } else {
                    let scores = ops::dot_products(&a, &b).unwrap().affine(scale, 0.0).unwrap();
                    ops::cross_entropy(&scores, &targets).unwrap()
                };
                let gradients = value.affine(0.3, 0.0).unwrap().backward().unwrap();
                [value, gradients.get(&a).unwrap().clone(), gradients.get(&b).unwrap().clone()]
            };
            let tolerance = if dtype == DType::F64 { 1e-13 } else { 1e-6 };
            for (fast, slow) in run(true).iter().zip(run(false)) {
                for (a, b) in values(fast).iter().zip(values(&slow)) {
                    assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{dtype:?} [{n}, {m}]: {a} against {b}");
                }
            }
        }
    }
    let x = random(&mut Rng::new(1), &[2, 3]);
    assert!(ops::ranking_cross_entropy(&x, &x, 1.0, &[0, 2]).unwrap_err().to_string().contains("target 2"));
}

#[test]
fn a_block_is_differentiated_once() {
    let layer = Layer::random(&mut Rng::new(1), 8, 16, DType::F64);
    let context = Context::training(DType::F64, Rng::new(1)).unwrap();
    let x = Var::from_tensor(&random(&mut Rng::new(2), &[3, 8])).unwrap();
    let y = layer.forward(&context, &x, Activation::Gelu, 0.0).unwrap().sum_all().unwrap();
    assert!(y.backward().is_ok());
    assert!(y.backward().unwrap_err().to_string().contains("differentiated once"));
}

#[test]
pub fn gradients_equal_finite_differences() {
    let mut rng = Rng::new(4);
    let rng = &mut rng;
    let param = |rng: &mut Rng, name: &str, shape: &[usize]| Param::new(name, &random(rng, shape)).unwrap();
    let lengths = offsets(&[3, 1, 0, 4]);
    let skip = Arc::new(vec![1, 0, 0, 2]);

    let (w, b) = (param(rng, "w", &[3, 5]), param(rng, "b", &[3]));
    check_gradients("linear", &[random(rng, &[4, 5])], &[w.clone(), b.clone()], |x, c| {
        ops::linear(c, &x[0], &w, Some(&b))
    });
    check_gradients("linear without bias", &[random(rng, &[2, 2, 5])], std::slice::from_ref(&w), |x, c| {
        ops::linear(c, &x[0], &w, None)
    });

    let (g, b) = (param(rng, "g", &[19]), param(rng, "b", &[19]));
    let pair = [random(rng, &[3, 19]), random(rng, &[3, 19])];
    check_gradients("residual layer norm with dropout", &pair, &[g.clone(), b.clone()], |x, c| {
        ops::residual_layer_norm(&x[0], &x[1], c.dropout(0.3), &g, &b, 1e-12)
    });
    check_gradients("layer norm", &pair[..1], &[g.clone(), b.clone()], |x, _| ops::layer_norm(&x[0], &g, &b, 1e-5));

    let qkv = [random(rng, &[8, 6]), random(rng, &[8, 6]), random(rng, &[8, 6])];
    for rate in [0.0, 0.4] {
        check_gradients("attention", &qkv, &[], |x, c| {
            ops::attention(&x[0], &x[1], &x[2], &lengths, 2, c.dropout(rate))
        });
    }
    let (side_by_side, rotary) = ([random(rng, &[8, 12])], Arc::new(Rotary::new(50.0, 2, 4)));
    for (sight, rate) in [(Sight::All, 0.0), (Sight::Near(1), 0.0), (Sight::Near(2), 0.4), (Sight::Near(0), 0.0)] {
        check_gradients("rotary attention", &side_by_side, &[], |x, c| {
            ops::rotary_attention(&x[0], &lengths, 2, &rotary, sight, c.dropout(rate))
        });
    }
    for sight in [Sight::Before, Sight::Last(1), Sight::Last(0)] {
        check_gradients("attention to what was before", &side_by_side, &[], |x, c| {
            ops::rotary_attention(&x[0], &lengths, 2, &rotary, sight, c.dropout(0.4))
        });
    }
    let (table, rows) = (param(rng, "distances", &[3, 2]), Arc::new(vec![0, 0, 1, 2, 2, 1, 1, 0, 2]));
    let relative = ops::Relative::new(&table, &rows).unwrap();
    check_gradients("relative attention", &qkv, std::slice::from_ref(&table), |x, c| {
        ops::relative_attention(&x[0], &x[1], &x[2], (&lengths, &[]), 2, &relative, c.dropout(0.4))
    });
    for (shift, width) in [(0.0, 6), (1.0, 3)] {
        let weight = param(rng, "w", &[width]);
        check_gradients("rms norm", &qkv[..1], std::slice::from_ref(&weight), |x, _| {
            ops::rms_norm(&x[0], &weight, shift, 1e-6)
        });
    }
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Sigmoid] {
        check_gradients("gated", &qkv[..1], &[], |x, _| ops::gated(&x[0], kind));
    }
    for rate in [0.0, 0.4] {
        let layer = Layer::random(rng, 6, 10, DType::F64);
        let x = [random(rng, &[8, 6])];
        check_gradients("self-attention", &x, &layer.attention_params(), |x, c| {
            layer.attention(c, &x[0], &lengths, 2, rate)
        });
        for kind in [Activation::Gelu, Activation::Tanh, Activation::Sigmoid] {
            check_gradients("feed-forward", &x, &layer.forward_params(), |x, c| layer.forward(c, &x[0], kind, rate));
        }
    }
    for kind in [Activation::Gelu, Activation::Tanh, Activation::Sigmoid, Activation::Relu] {
        check_gradients("activation", &qkv[..1], &[], |x, _| ops::activation(&x[0], kind));
    }
    check_gradients("dropout", &qkv[..1], &[], |x, c| ops::dropout(&x[0], c.dropout(0.5)));
    for kind in [
        PoolingMode::Cls,
        PoolingMode::Max,
        PoolingMode::Mean,
        PoolingMode::MeanSqrtLenTokens,
        PoolingMode::WeightedMean,
        PoolingMode::LastToken,
    ] {
        check_gradients("pooling", &qkv[..1], &[], |x, _| ops::pool(&x[0], &lengths, &skip, kind));
    }
    check_gradients("l2 normalise", &qkv[..1], &[], |x, _| ops::l2_normalize(&x[0], 1e-12));
    check_gradients("logsumexp", &qkv[..1], &[], |x, _| ops::logsumexp(&x[0]));
    check_gradients("cross-entropy", &qkv[..1], &[], |x, _| ops::cross_entropy(&x[0], &[0, 1, 5, 3, 2, 2, 0, 4]));

    let (a, b) = (param(rng, "a", &[7, 3]), param(rng, "b", &[4, 3]));
    let (ids, positions) = (Arc::new(vec![6, 1, 1, 0, 6]), Arc::new(vec![0, 1, 2, 0, 1]));
    check_gradients("embedding sum", &[], &[a.clone(), b.clone()], |_, c| {
        ops::embedding_sum(c, &[(&a, ids.clone()), (&b, positions.clone())])
    });
    check_gradients("embedding bag", &[], std::slice::from_ref(&a), |_, c| {
        ops::embedding_bag_mean(c, &a, &ids, &offsets(&[2, 0, 3]))
    });
}

#[test]
pub fn infinite_scores_give_no_nan() {
    let x = Var::new(&[[f64::NEG_INFINITY, 1.0, 2.0], [f64::NEG_INFINITY; 3]], &Device::Cpu).unwrap();
    let y = ops::logsumexp(x.as_tensor()).unwrap();
    let got = y.to_vec1::<f64>().unwrap();
    assert!((got[0] - (1f64.exp() + 2f64.exp()).ln()).abs() < 1e-12);
    assert_eq!(got[1], f64::NEG_INFINITY);
    // NaN is no "minus infinity": it must not vanish
    for row in [[f64::NAN, f64::NEG_INFINITY], [f64::NAN, f64::NAN], [1.0, f64::NAN]] {
        let x = Tensor::new(&row, &Device::Cpu).unwrap();
        assert!(ops::logsumexp(&x).unwrap().to_scalar::<f64>().unwrap().is_nan(), "{row:?}");
    }
    let grads = y.narrow(0, 0, 1).unwrap().sum_all().unwrap().backward().unwrap();
    let d = grads.get(x.as_tensor()).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(d[0][0], 0.0);
    assert_eq!(d[1], [0.0; 3]);
    assert!((d[0][1] + d[0][2] - 1.0).abs() < 1e-12);
}

/// A window as wide as the sequence is no window, and of places only distances count.
#[test]
fn rotary_attention_tells_distances_and_keeps_to_its_window() {
    let mut rng = Rng::new(18);
    let (length, width) = (230usize, 16);
    let rotary = Arc::new(Rotary::new(100.0, width / 2, length));
    let qkv = random(&mut rng, &[length, 3 * width]);
    let attend = |qkv: &Tensor, sight| {
        let offsets = offsets(&[qkv.dim(0).unwrap() as u32]);
        ops::rotary_attention(qkv, &offsets, 2, &rotary, sight, Dropout::NONE).unwrap()
    };
    let all = attend(&qkv, Sight::All);
    assert_close("a wide window", &values(&attend(&qkv, Sight::Near(length))), &values(&all), 1e-12);
    let near = attend(&qkv, Sight::Near(5));
    let at = |y: &Tensor, place: usize| values(&y.narrow(0, place, 1).unwrap());
    for place in [0, 3, 95, 96, 150, 191, 192, 229] {
        assert!(crate::support::difference(&at(&near, place), &at(&all, place)) > 1e-3, "{place}");
        // what lies outside of the window may as well not be there, and the distances to the rest are the same
        let (from, to) = (place.saturating_sub(5), (place + 6).min(length));
        let part = qkv.narrow(0, from, to - from).unwrap().contiguous().unwrap();
        let alone = at(&attend(&part, Sight::All), place - from);
        // angles are as exact as f32
        assert_close(&format!("place {place}"), &at(&near, place), &alone, 1e-4);
    }
    // the same tokens elsewhere are others
    let same = qkv.narrow(0, 0, 1).unwrap().repeat((4, 1)).unwrap();
    let mixed = Tensor::cat(&[&same, &qkv.narrow(0, 1, 3).unwrap()], 0).unwrap();
    let y = attend(&mixed, Sight::All);
    assert!(crate::support::difference(&at(&y, 0), &at(&y, 2)) > 1e-6);
}

#[test]
fn packed_attention_equals_one_sequence_at_a_time() {
    let mut rng = Rng::new(8);
    let lengths = [40u32, 3, 17, 129];
    let total: u32 = lengths.iter().sum();
    let qkv: Vec<Tensor> =
        (0..3).map(|_| random(&mut rng, &[total as usize, 64]).to_dtype(DType::F32).unwrap()).collect();
    let packed = ops::attention(&qkv[0], &qkv[1], &qkv[2], &offsets(&lengths), 4, Dropout::NONE).unwrap();
    let mut start = 0;
    for length in lengths {
        let part = |t: &Tensor| t.narrow(0, start, length as usize).unwrap().contiguous().unwrap();
        let single =
            ops::attention(&part(&qkv[0]), &part(&qkv[1]), &part(&qkv[2]), &offsets(&[length]), 4, Dropout::NONE)
                .unwrap();
        assert_close("packed attention", &values(&part(&packed)), &values(&single), 1e-7);
        start += length as usize;
    }
}

#[test]
pub fn wrong_shapes_are_refused() {
    let x = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let w = Param::new("dense.weight", &Tensor::zeros((4, 5), DType::F32, &Device::Cpu).unwrap()).unwrap();
    assert!(ops::linear(&Context::inference(), &x, &w, None).unwrap_err().to_string().contains("dense.weight"));
    assert!(ops::attention(&x, &x, &x, &offsets(&[2]), 2, Dropout::NONE).is_err());
    assert!(ops::attention(&x, &x, &x, &offsets(&[3]), 3, Dropout::NONE).is_err());
    let turned = |width: usize, lengths: &[u32], places: usize| {
        let x = Tensor::zeros((2, width), DType::F32, &Device::Cpu).unwrap();
        let rotary = Arc::new(Rotary::new(10.0, 4, places));
        ops::rotary_attention(&x, &offsets(lengths), 1, &rotary, Sight::All, Dropout::NONE)
    };
    assert!(turned(12, &[2], 2).is_ok());
    assert!(turned(13, &[2], 2).is_err() && turned(24, &[2], 2).is_err() && turned(12, &[3], 3).is_err());
    assert!(turned(12, &[2], 1).unwrap_err().to_string().contains("2 tokens"));
    assert!(ops::gated(&x, Activation::Gelu).is_err(), "rows of three values have no halves");
    let table = Param::new("table", &Tensor::zeros((4, 5), DType::F32, &Device::Cpu).unwrap()).unwrap();
    let context = Context::inference();
    let outside = ops::embedding_sum(&context, &[(&table, Arc::new(vec![4]))]).unwrap_err().to_string();
    assert!(outside.contains("id 4 is outside table `table` of 4 rows"), "{outside}");
}

#[test]
fn same_seed_same_bits() {
    let mut rng = Rng::new(8);
    let x = random(&mut rng, &[300, 64]).to_dtype(DType::F32).unwrap();
    let g = Param::new("g", &Tensor::ones(64, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let once = || {
        let context = Context::training(DType::F32, Rng::new(3)).unwrap();
        g.clear_gradient();
        let root = Var::from_tensor(&x).unwrap();
        let y = ops::residual_layer_norm(root.as_tensor(), &x, context.dropout(0.1), &g, &g, 1e-12).unwrap();
        y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        values(&g.gradient_tensor().unwrap().unwrap())
    };
    assert_eq!(once(), once());
}

#[test]
fn late_interaction_goes_back_through_what_was_found() {
    let mut rng = Rng::new(21);
    let (queries, documents) = (offsets(&[3, 1, 4]), offsets(&[5, 0, 2]));
    let inputs = [random(&mut rng, &[8, 6]), random(&mut rng, &[7, 6])];
    for scoring in [
        LateInteraction::MaxSim,
        LateInteraction::MeanMaxSim,
        LateInteraction::Xtr { top_k: 3 },
        LateInteraction::Xtr { top_k: 100 },
    ] {
        for pairs in [Pairs::All, Pairs::Same] {
            check_gradients(&format!("{scoring:?} {pairs:?}"), &inputs, &[], |x, _| {
                let scores = ops::late_interaction((&x[0], &queries), (&x[1], &documents), scoring, pairs)?;
                // what an empty document scores would drown the differences
                let empty = scores.lt(-1e7)?;
                empty.where_cond(&scores.zeros_like()?, &scores)
            });
        }
        let all = ops::late_interaction((&inputs[0], &queries), (&inputs[1], &documents), scoring, Pairs::All).unwrap();
        let same =
            ops::late_interaction((&inputs[0], &queries), (&inputs[1], &documents), scoring, Pairs::Same).unwrap();
        let (all, same) = (values(&all), values(&same));
        assert_eq!([all[0], all[4], all[8]], same[..], "{scoring:?}");
        assert!(all[1] <= -1e8 && all[2] > -10.0, "{scoring:?}: {all:?}");
    }
    // by hand: the first query's vectors, and what they find in the last document
    let rows = |x: &Tensor| values(x).chunks(6).map(<[f64]>::to_vec).collect::<Vec<_>>();
    let (q, d) = (rows(&inputs[0]), rows(&inputs[1]));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let expected: f64 = q[..3].iter().map(|q| dot(q, &d[5]).max(dot(q, &d[6]))).sum();
    let score = |scoring| {
        let scores = ops::late_interaction((&inputs[0], &queries), (&inputs[1], &documents), scoring, Pairs::All);
        values(&scores.unwrap())[2]
    };
    assert!((score(LateInteraction::MaxSim) - expected).abs() < 1e-12);
    assert!((score(LateInteraction::MeanMaxSim) - expected / 3.0).abs() < 1e-12);
    assert!((score(LateInteraction::Xtr { top_k: 7 }) - expected / 3.0).abs() < 1e-12, "all are found");
    // large enough for several blocks, against the same in parts
    let (n, m) = (600u32, 9u32);
    let (queries, documents) = (offsets(&vec![2; n as usize]), offsets(&vec![1000; m as usize]));
    let [q, d] = [random(&mut rng, &[1200, 4]), random(&mut rng, &[9000, 4])];
    let whole = ops::late_interaction((&q, &queries), (&d, &documents), LateInteraction::MaxSim, Pairs::All).unwrap();
    let last = d.narrow(0, 8000, 1000).unwrap();
    let part = ops::late_interaction((&q, &queries), (&last, &offsets(&[1000])), LateInteraction::MaxSim, Pairs::All);
    let column = whole.narrow(1, 8, 1).unwrap();
    assert_close("blocks", &values(&column), &values(&part.unwrap()), 1e-12);
    // what is no number comes out
    let nan = Tensor::new(&[[f64::NAN, 1.0], [0.0, 2.0]], &Device::Cpu).unwrap();
    for scoring in [LateInteraction::MaxSim, LateInteraction::Xtr { top_k: 1 }] {
        let (one, both) = (offsets(&[1]), offsets(&[2]));
        let query = Tensor::new(&[[1.0, 1.0]], &Device::Cpu).unwrap();
        let score = ops::late_interaction((&query, &one), (&nan, &both), scoring, Pairs::All).unwrap();
        assert!(values(&score)[0].is_nan(), "{scoring:?}");
    }
    assert!(
        ops::late_interaction((&q, &offsets(&[3])), (&d, &documents), LateInteraction::MaxSim, Pairs::All).is_err()
    );
}

#[test]
fn tokens_that_are_not_attended_are_seen_by_nobody() {
    let rng = &mut Rng::new(22);
    let layer = Layer::random(rng, 8, 16, DType::F64);
    let (lengths, attended) = (offsets(&[5, 3]), [3u32, 3]);
    let x = random(rng, &[8, 8]);
    let run = |x: &Tensor, attended: &[u32]| {
        let context = Context::inference();
        let parts = ops::SelfAttention { attended, ..layer.attention_layer(&context, 2, 0.0) };
        ops::self_attention(&context, x, &lengths, &parts).unwrap()
    };
    let rows = |x: &Tensor| values(x).chunks(8).map(<[f64]>::to_vec).collect::<Vec<_>>();
    let before = rows(&run(&x, &attended));
    let mut changed = rows(&x);
    changed[4].iter_mut().for_each(|v| *v += 1.0);
    let changed = Tensor::from_vec(changed.concat(), (8, 8), &Device::Cpu).unwrap();
    let after = rows(&run(&changed, &attended));
    for i in [0, 1, 2, 3, 5, 6, 7] {
        assert_eq!(before[i], after[i], "token {i} saw one that is not attended");
    }
    assert_ne!(before[4], after[4], "it sees others itself");
    assert_ne!(rows(&run(&x, &[]))[0], before[0]);
    // the others are as if it were not there
    let short = Tensor::cat(&[x.narrow(0, 0, 3).unwrap(), x.narrow(0, 5, 3).unwrap()], 0).unwrap();
    let context = Context::inference();
    let alone = ops::self_attention(&context, &short, &offsets(&[3, 3]), &layer.attention_layer(&context, 2, 0.0));
    assert_close("without them", &values(&alone.unwrap())[..24], &before[..3].concat(), 1e-12);
    for rate in [0.0, 0.3] {
        check_gradients("attended", std::slice::from_ref(&x), &layer.attention_params(), |x, c| {
            let parts = ops::SelfAttention { attended: &attended, ..layer.attention_layer(c, 2, rate) };
            ops::self_attention(c, &x[0], &lengths, &parts)
        });
    }
}
