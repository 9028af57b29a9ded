//! Losses equal the reference's, value and gradients, in f64.

use std::collections::BTreeMap;

use candle_core::{DType, Var};
use serde_json::{Map, Value, json};
use tallow::flow::{LabelKind, Labels, Outputs};
use tallow::loss;

use crate::support::{golden, numbers, shape, tensor};

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

/// Labels as the loss takes them: classes, or numbers in one list a row.
fn labels(labels: &Value, kind: LabelKind) -> Option<Labels> {
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

#[test]
pub fn losses_equal_the_reference() {
    let files = ["losses", "losses_labels"].map(golden);
    let cases = files.iter().flat_map(|file| file["cases"].as_array().unwrap());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (number, case) in cases.enumerate() {
        let name = case["loss"].as_str().unwrap();
        let place = format!("case {number}: {name} {}", case["config"]);
        let loss = loss::build(name, &settings(case)).unwrap_or_else(|e| panic!("{place}: {e}"));
        let vars: Vec<Var> = case["embeddings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|embedding| Var::from_tensor(&tensor(embedding, DType::F64)).unwrap())
            .collect();
        let labels = labels(&case["labels"], loss.base_card().labels);
        let outputs = Outputs::new(vars.iter().map(|v| v.as_tensor().clone()).collect());
        let value = loss.compute(&outputs, labels.as_ref()).unwrap_or_else(|e| panic!("{place}: {e}"));
        let (got, expected) = (value.to_scalar::<f64>().unwrap(), case["value"].as_f64().unwrap());
        assert!((got - expected).abs() <= 1e-6 * expected.abs() + 1e-9, "{place}: {got}, expected {expected}");
        let grads = value.backward().unwrap();
        for (column, (var, expected)) in vars.iter().zip(case["grads"].as_array().unwrap()).enumerate() {
            let expected = numbers(expected);
            let got = match grads.get(var) {
                Some(grad) => grad.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
                None => vec![0.0; expected.len()],
            };
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let close = (got - expected).abs() <= 1e-6 * expected.abs() + 1e-9;
                assert!(close, "{place}: gradient of column {column} at {i}: {got}, expected {expected}");
            }
        }
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    // Every loss has its golden cases.
    for name in loss::names() {
        assert!(counts.get(name).is_some_and(|count| *count >= 3), "{name}: {counts:?}");
    }
}
