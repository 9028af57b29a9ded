//! Losses equal the reference's, value and gradients, in f64.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use serde_json::{Map, Value, json};
use tallow::flow::{LabelKind, Labels, ModelType, Outputs};
use tallow::loss::{self, Loss, Setup};
use tallow::ops::{self, Param};
use tallow::util::seed::Rng;

use crate::support::{golden, numbers, shape, tensor};

/// Files of golden cases by model type: losses of embeddings alone, those with parameters or a guide; of logits.
const FILES: [(&str, ModelType); 5] = [
    ("losses", ModelType::SentenceTransformer),
    ("losses_labels", ModelType::SentenceTransformer),
    ("losses_own", ModelType::SentenceTransformer),
    ("losses_pairs", ModelType::CrossEncoder),
    ("losses_sparse", ModelType::SparseEncoder),
];

fn settings(case: &Value) -> Map<String, Value> {
    let config = case["config"].as_object().unwrap();
    let mut settings: Map<String, Value> = config
        .iter()
        .filter(|(key, _)| *key != "loss" && *key != "loss_config")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if let Some(inner) = config.get("loss") {
        let mut table = config["loss_config"].as_object().unwrap().clone();
        table.insert("name".into(), inner.clone());
        settings.insert("loss".into(), json!(table));
    }
    settings
}

/// A loss of its own parameters gets those of the case; gives them back to compare their gradients.
fn prepare(loss: &mut Box<dyn Loss>, case: &Value, dim: usize) -> Vec<(Arc<Param>, Vec<f64>)> {
    let setup = Setup { name: "loss".into(), dim, layers: 2, dtype: DType::F64, device: Device::Cpu, rng: Rng::new(1) };
    loss.prepare(&setup).unwrap();
    let params = loss.params();
    let wanted = case["params"].as_array().cloned().unwrap_or_default();
    assert_eq!(params.len(), wanted.len());
    wanted
        .iter()
        .map(|want| {
            let name = format!("loss.{}", want["name"].as_str().unwrap());
            let param = params.iter().find(|p| p.name() == name).unwrap_or_else(|| panic!("no parameter {name}"));
            param.assign(&tensor(&want["value"], DType::F64)).unwrap();
            (Arc::clone(param), numbers(&want["grad"]))
        })
        .collect()
}

/// Labels as the loss takes them: classes, or numbers in one list a row; for `lists`, one for each text.
fn labels(labels: &Value, kind: LabelKind, lists: &[usize]) -> Option<Labels> {
    if !lists.is_empty() {
        let data = numbers(labels).into_iter().map(|x| x as f32).collect();
        return Some(Labels::Lists { lengths: lists.to_vec(), data });
    }
    if let Some(list) = labels.as_array() {
        return Some(match list.first() {
            Some(Value::Array(first)) => Labels::Matrix {
                width: first.len(),
                data: list.iter().flat_map(|row| row.as_array().unwrap()).map(|x| x.as_f64().unwrap() as f32).collect(),
            },
            _ => Labels::Int(list.iter().map(|x| x.as_i64().unwrap()).collect()),
        });
    }
    if labels.is_null() {
        return None;
    }
    let (data, shape) = (numbers(labels), shape(labels));
    if kind == LabelKind::Int {
        return Some(Labels::Int(data.into_iter().map(|x| x as i64).collect()));
    }
    let data: Vec<f32> = data.into_iter().map(|x| x as f32).collect();
    Some(match shape.as_slice() {
        [_] => Labels::Float(data),
        [_, width @ ..] => Labels::Matrix { width: width.iter().product(), data },
        [] => panic!("labels without rows"),
    })
}

fn close(place: &str, what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{place}: {what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let close = (got - expected).abs() <= 1e-6 * expected.abs() + 1e-9;
        assert!(close, "{place}: {what} at {i}: {got}, expected {expected}");
    }
}

fn flat(tensor: Option<&Tensor>, len: usize) -> Vec<f64> {
    tensor.map_or_else(|| vec![0.0; len], |t| t.flatten_all().unwrap().to_vec1::<f64>().unwrap())
}

#[test]
pub fn losses_equal_the_reference() {
    let mut counts: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for (file, model_type) in FILES {
        for (number, case) in golden(file)["cases"].as_array().unwrap().iter().enumerate() {
            let name = case["loss"].as_str().unwrap();
            check(&format!("{file} case {number}: {name} {}", case["config"]), model_type, name, case);
            *counts.entry((model_type.name(), name.to_owned())).or_default() += 1;
        }
    }
    // one that needs a whole model: see `denoising.rs`
    let denoising = &golden("denoising");
    let parts = ["cases", "curves"].map(|part| denoising[part].as_array().unwrap().len());
    let bi_encoder = ModelType::SentenceTransformer.name();
    counts.insert((bi_encoder, "DenoisingAutoEncoderLoss".to_owned()), parts.iter().sum());
    // of an autoencoder: see `sparse_more.rs`
    let csr = golden("sparse_more")["csr"]["cases"].as_array().unwrap().len();
    counts.insert((ModelType::SparseEncoder.name(), "CSRLoss".to_owned()), csr);
    // Every loss has its golden cases.
    for model_type in [ModelType::SentenceTransformer, ModelType::CrossEncoder, ModelType::SparseEncoder] {
        for name in loss::names_for(model_type) {
            let count = counts.get(&(model_type.name(), name.to_owned()));
            assert!(count.is_some_and(|count| *count >= 3), "{name}: {counts:?}");
        }
    }
}

fn check(place: &str, model_type: ModelType, name: &str, case: &Value) {
    let list = |key: &str| case[key].as_array().cloned().unwrap_or_default();
    let mut loss = loss::build_for(model_type, name, &settings(case)).unwrap_or_else(|e| panic!("{place}: {e}"));
    let vars: Vec<Var> = list("embeddings").iter().map(|e| Var::from_tensor(&tensor(e, DType::F64)).unwrap()).collect();
    let params = prepare(&mut loss, case, vars[0].dims()[1]);
    let lists: Vec<usize> = list("lists").iter().map(|length| length.as_u64().unwrap() as usize).collect();
    let outputs = Outputs {
        lists: lists.clone(),
        guide: list("guide").iter().map(|g| tensor(g, DType::F64)).collect(),
        ..Outputs::new(vars.iter().map(|v| v.as_tensor().clone()).collect())
    };
    let layers: Vec<Vec<Var>> = list("layers")
        .iter()
        .map(|layer| {
            layer.as_array().unwrap().iter().map(|e| Var::from_tensor(&tensor(e, DType::F64)).unwrap()).collect()
        })
        .collect();
    let seen = |layer: &Vec<Var>| layer.iter().map(|v| v.as_tensor().clone()).collect();
    let outputs = Outputs { layers: layers.iter().map(seen).enumerate().collect(), ..outputs };
    let value = loss
        .compute(&outputs, labels(&case["labels"], loss.base_card().labels, &lists).as_ref())
        .unwrap_or_else(|e| panic!("{place}: {e}"));
    close(place, "value", &[value.to_scalar::<f64>().unwrap()], &[case["value"].as_f64().unwrap()]);
    let grads = value.backward().unwrap();
    ops::collect(&grads, &loss.params()).unwrap();
    for (column, (var, expected)) in vars.iter().zip(&list("grads")).enumerate() {
        let expected = numbers(expected);
        let got = flat(grads.get(var), expected.len());
        close(place, &format!("gradient of column {column}"), &got, &expected);
    }
    for (layer, (vars, expected)) in layers.iter().zip(&list("layer_grads")).enumerate() {
        for (column, (var, expected)) in vars.iter().zip(expected.as_array().unwrap()).enumerate() {
            let expected = numbers(expected);
            let got = flat(grads.get(var), expected.len());
            close(place, &format!("gradient of column {column} after {layer} layers"), &got, &expected);
        }
    }
    for (param, expected) in params {
        let got = flat(param.gradient_tensor().unwrap().as_ref(), expected.len());
        close(place, &format!("gradient of `{}`", param.name()), &got, &expected);
    }
}
