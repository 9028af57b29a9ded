//! AdamW against torch, and rows against the whole table.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use tallow::ops::{self, Context, Param};
use tallow::optim::{AdamW, AdamWConfig, clip_coefficient, gradient_norm};
use tallow::util::seed::Rng;

use crate::support::{assert_close, golden, numbers, tensor, values};

/// Leaves `gradient` in `param` as a whole, by a backward pass through a linear layer on the identity.
fn leave_gradient(param: &Arc<Param>, gradient: &Tensor) {
    let identity = Tensor::eye(param.dims()[1], param.dtype(), &Device::Cpu).unwrap();
    let x = Var::from_tensor(&identity).unwrap();
    let y = ops::linear(&Context::inference(), x.as_tensor(), param, None).unwrap();
    let gradient = gradient.t().unwrap().to_dtype(param.dtype()).unwrap();
    (y * gradient).unwrap().sum_all().unwrap().backward().unwrap();
}

fn column(value: &serde_json::Value) -> Tensor {
    let t = tensor(value, DType::F32);
    if t.dims().len() == 1 { t.unsqueeze(1).unwrap() } else { t }
}

#[test]
fn trajectories_equal_torch() {
    let golden = golden("optim");
    for case in golden["cases"].as_array().unwrap() {
        let betas: Vec<f64> = case["betas"].as_array().unwrap().iter().map(|b| b.as_f64().unwrap()).collect();
        let table = Param::new("table", &column(&case["start"]["table"])).unwrap();
        let bias = Param::new("bias", &column(&case["start"]["bias"])).unwrap();
        assert_eq!(case["weight_decay"]["bias"].as_f64(), Some(0.0));
        let config = AdamWConfig {
            beta1: betas[0],
            beta2: betas[1],
            epsilon: case["eps"].as_f64().unwrap(),
            weight_decay: case["weight_decay"]["table"].as_f64().unwrap(),
        };
        let params = [Arc::clone(&table), Arc::clone(&bias)];
        let mut optimizer = AdamW::new(&params, config);
        for (i, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            leave_gradient(&table, &column(&step["grads"]["table"]));
            leave_gradient(&bias, &column(&step["grads"]["bias"]));
            let mut scale = 1.0;
            if let Some(max_norm) = case["max_grad_norm"].as_f64() {
                let norm = gradient_norm(&params).unwrap();
                assert_close("norm", &[norm], &[step["grad_norm"].as_f64().unwrap()], 1e-6);
                scale = clip_coefficient(norm, max_norm);
            }
            optimizer.step(step["lr"].as_f64().unwrap(), scale).unwrap();
            for param in &params {
                let want = numbers(&step["params"][param.name()]);
                assert_close(&format!("{} after step {i}", param.name()), &values(param.value()), &want, 2e-6);
            }
        }
    }
}

/// Gradients for some rows of a table each step: one optimizer gets rows, the other the dense gradient.
#[test]
fn rows_have_the_same_bits_as_a_dense_table() {
    let (rows, width) = (40usize, 6usize);
    for weight_decay in [0.0, 0.01] {
        let mut rng = Rng::new(11);
        let start: Vec<f32> = (0..rows * width).map(|_| rng.normal() as f32).collect();
        let start = Tensor::from_vec(start, (rows, width), &Device::Cpu).unwrap();
        let config = AdamWConfig { weight_decay, ..AdamWConfig::default() };
        let by_row = Param::new("table.weight", &start.copy().unwrap()).unwrap();
        let dense = Param::new("dense.weight", &start.copy().unwrap()).unwrap();
        let mut lazy = AdamW::new(&[Arc::clone(&by_row)], config);
        let mut full = AdamW::new(&[Arc::clone(&dense)], config);
        for step in 0..1000u64 {
            // few rows, some of them rare
            let ids: Vec<u32> = (0..5).map(|_| (rng.below(40) * rng.below(40) / 40) as u32).collect();
            let upstream: Vec<f32> = (0..ids.len() * width).map(|_| rng.normal() as f32).collect();
            let ids = Arc::new(ids);
            lazy.catch_up(&[(Arc::clone(&by_row), ids.to_vec())]).unwrap();
            let current = by_row.read::<f32, _>(|p| p.to_vec()).unwrap();
            let reference = dense.read::<f32, _>(|p| p.to_vec()).unwrap();
            for id in ids.iter() {
                let at = *id as usize * width;
                assert_eq!(current[at..at + width], reference[at..at + width], "step {step}, row {id}");
            }
            let context = Context::training(DType::F32, Rng::new(0)).unwrap();
            let y = ops::embedding_sum(&context, &[(&by_row, Arc::clone(&ids))]).unwrap();
            let g = Tensor::from_vec(upstream, y.dims().to_vec(), &Device::Cpu).unwrap();
            (y * g).unwrap().sum_all().unwrap().backward().unwrap();
            let gradient = by_row.gradient_tensor().unwrap().unwrap();
            leave_gradient(&dense, &gradient);
            let learning_rate = 0.01 * (1.0 - step as f64 / 1000.0);
            lazy.step(learning_rate, 0.5).unwrap();
            full.step(learning_rate, 0.5).unwrap();
            if step == 500 {
                // saving and loading in the middle changes nothing
                lazy.flush().unwrap();
                let file = tempfile::NamedTempFile::new().unwrap();
                lazy.save(file.path()).unwrap();
                lazy = AdamW::new(&[Arc::clone(&by_row)], config);
                lazy.load(file.path()).unwrap();
            }
        }
        lazy.flush().unwrap();
        assert_eq!(
            by_row.read::<f32, _>(|p| p.to_vec()).unwrap(),
            dense.read::<f32, _>(|p| p.to_vec()).unwrap(),
            "weight decay {weight_decay}"
        );
    }
}

#[test]
fn foreign_state_is_refused() {
    let zeros = |n: usize| Tensor::zeros((n, 2), DType::F32, &Device::Cpu).unwrap();
    let (a, b) = (Param::new("a", &zeros(3)).unwrap(), Param::new("a", &zeros(4)).unwrap());
    let mut first = AdamW::new(&[Arc::clone(&a)], AdamWConfig::default());
    leave_gradient(&a, &zeros(3));
    first.step(0.1, 1.0).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    first.save(file.path()).unwrap();
    let mut other = AdamW::new(&[b], AdamWConfig::default());
    let error = other.load(file.path()).unwrap_err();
    assert!(error.to_string().contains("`a`") && error.hint().is_some(), "{error}");
    let bytes = std::fs::read(file.path()).unwrap();
    std::fs::write(file.path(), &bytes[..bytes.len() - 3]).unwrap();
    let mut same = AdamW::new(&[a], AdamWConfig::default());
    assert!(same.load(file.path()).unwrap_err().to_string().contains("is damaged"));
}
