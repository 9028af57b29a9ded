//! What the tests of all losses share, and the tests of the registry.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};
use serde_json::{Map, Value, json};

use super::*;
use crate::flow::{Labels, Outputs};
use crate::util::seed::Rng;

/// `count` embeddings of `[rows, dim]` in f64, the later ones near the first.
pub fn random_columns(count: usize, rows: usize, dim: usize, seed: u64) -> Vec<Tensor> {
    let mut rng = Rng::new(seed);
    let mut draw = |scale: f64| -> Vec<f64> { (0..rows * dim).map(|_| rng.normal() * scale).collect() };
    let anchor = draw(0.8);
    (0..count)
        .map(|column| {
            let values = match column {
                0 => anchor.clone(),
                _ => anchor.iter().zip(draw(0.6)).map(|(a, x)| 0.5 * a + x).collect(),
            };
            Tensor::from_vec(values, (rows, dim), &Device::Cpu).unwrap()
        })
        .collect()
}

/// Compares the gradient for every embedding with central differences, and f32 with f64.
pub fn check_gradient(loss: &dyn Loss, columns: &[Tensor], labels: Option<&Labels>) {
    check_gradient_of_lists(loss, columns, &[], labels);
}

/// As [`check_gradient`], where rows have lists of texts: how many each.
pub fn check_gradient_of_lists(loss: &dyn Loss, columns: &[Tensor], lists: &[usize], labels: Option<&Labels>) {
    let double = check_gradient_with(loss, columns, lists, labels);
    let single = columns.iter().map(|c| c.to_dtype(candle_core::DType::F32).unwrap()).collect();
    let single = Outputs { lists: lists.to_vec(), ..Outputs::new(single) };
    let single = loss.compute(&single, labels).unwrap().to_scalar::<f32>().unwrap();
    assert!((f64::from(single) - double).abs() < 1e-4 * (1.0 + double.abs()), "{single} {double}");
}

/// Compares the gradient for every embedding with central differences, in f64; returns the loss.
pub fn check_gradient_at(loss: &dyn Loss, columns: &[Tensor], labels: Option<&Labels>) -> f64 {
    check_gradient_with(loss, columns, &[], labels)
}

fn check_gradient_with(loss: &dyn Loss, columns: &[Tensor], lists: &[usize], labels: Option<&Labels>) -> f64 {
    let outputs = |columns: Vec<Tensor>| Outputs { lists: lists.to_vec(), ..Outputs::new(columns) };
    let vars: Vec<Var> = columns.iter().map(|c| Var::from_tensor(c).unwrap()).collect();
    let value = loss.compute(&outputs(vars.iter().map(|v| v.as_tensor().clone()).collect()), labels).unwrap();
    assert_eq!(value.rank(), 0);
    let grads = value.backward().unwrap();
    let at = |columns: Vec<Tensor>| loss.compute(&outputs(columns), labels).unwrap().to_scalar::<f64>().unwrap();
    for (c, column) in columns.iter().enumerate() {
        let grad = grads.get(&vars[c]).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let flat = column.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (i, by_graph) in grad.iter().enumerate() {
            let moved = |step: f64| {
                let mut flat = flat.clone();
                flat[i] += step;
                let mut columns = columns.to_vec();
                columns[c] = Tensor::from_vec(flat, column.dims(), &Device::Cpu).unwrap();
                at(columns)
            };
            let by_difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let tolerance = 1e-7 * (1.0 + by_graph.abs());
            assert!((by_graph - by_difference).abs() < tolerance, "{c} {i}: {by_graph} {by_difference}");
        }
        assert!(grad.iter().any(|g| *g != 0.0), "column {c} gets no gradient");
    }
    value.to_scalar::<f64>().unwrap()
}

fn made(name: &str, settings: Value) -> Result<Box<dyn Loss>> {
    build(name, settings.as_object().unwrap())
}

#[test]
fn every_loss_is_built_from_its_defaults() {
    let types = [ModelType::SentenceTransformer, ModelType::CrossEncoder];
    for (model_type, entry) in types.into_iter().flat_map(|t| entries(t).iter().map(move |entry| (t, entry))) {
        let loss = build_for(model_type, entry.name(), &Map::new()).unwrap();
        assert_eq!(loss.card().name, entry.name());
        assert!(loss.card().model_types.contains(&model_type), "{}", entry.name());
        assert_eq!(loss.config(), (entry.defaults)());
        // What it says of itself makes it again.
        let again = build_for(model_type, entry.name(), loss.config().as_object().unwrap()).unwrap();
        assert_eq!(again.config(), loss.config());
        let fields = loss.config().as_object().unwrap().len();
        assert_eq!((entry.schema)().get("properties").map_or(0, |p| p.as_object().unwrap().len()), fields);
        assert!(!entry.card.summary.is_empty() && !entry.card.inputs.is_empty() && !entry.card.paper.is_empty());
    }
    let mut all: Vec<_> = names().collect();
    all.sort_unstable();
    all.dedup();
    let around = WRAPPERS.iter().filter(|w| w.card.model_types.contains(&ModelType::SentenceTransformer));
    assert_eq!(all.len(), LOSSES.len() + around.count());
}

#[test]
fn wrappers_are_built_either_way() {
    let ours =
        made("CoSENTLoss", json!({"scale": 10.0, "matryoshka": {"dims": [4, 8], "weights": [0.5, 1.0]}})).unwrap();
    let theirs = json!({
        "loss": {"name": "CoSENTLoss", "scale": 10.0},
        "matryoshka_dims": [4, 8],
        "matryoshka_weights": [0.5, 1],
    });
    let theirs = made("MatryoshkaLoss", theirs).unwrap();
    assert_eq!(ours.card().name, "MatryoshkaLoss");
    assert_eq!(ours.base_card().name, "CoSENTLoss");
    assert_eq!(ours.config(), theirs.config());
    assert_eq!(ours.config()["matryoshka_dims"], json!([8, 4]));
    assert_eq!(made("MatryoshkaLoss", ours.config()).unwrap().config(), ours.config());
    assert!(made("MatryoshkaLoss", json!({"loss": "TripletLoss", "dims": [4]})).is_ok());
}

#[test]
fn settings_are_filled_in() {
    let full = |name: &str, given: Value| json!(settings(name, given.as_object().unwrap()).unwrap());
    assert_eq!(full("CoSENTLoss", json!({"scale": 5})), json!({"scale": 5.0, "similarity_fct": "cosine"}));
    let wrapped = full("CoSENTLoss", json!({"matryoshka": {"matryoshka_dims": [2, 4]}}));
    let expected = json!({
        "scale": 20.0,
        "similarity_fct": "cosine",
        "matryoshka": {"matryoshka_dims": [4, 2], "matryoshka_weights": [1.0, 1.0], "n_dims_per_step": -1},
    });
    assert_eq!(wrapped, expected);
    assert_eq!(full("CoSENTLoss", wrapped.clone()), wrapped);
    let theirs = full("MatryoshkaLoss", json!({"loss": "CoSENTLoss", "dims": [4]}));
    assert_eq!(theirs["loss"]["name"], "CoSENTLoss");
    assert_eq!(full("MatryoshkaLoss", theirs.clone()), theirs);
}

#[test]
fn mistakes_are_named() {
    for (name, settings, message, hint) in [
        ("CosentLoss", json!({}), "unknown loss `CosentLoss`", "did you mean `CoSENTLoss`?"),
        (
            "CoSENTLoss",
            json!({"scal": 1}),
            "`CoSENTLoss` has no setting `scal`",
            "did you mean `scale`? Its settings are `scale`, `similarity_fct`",
        ),
        (
            "CoSENTLoss",
            json!({"matryoshka": {"dim": [4]}}),
            "`MatryoshkaLoss` has no setting `dim`",
            "did you mean `dims`? Its settings are `dims`, `weights`, `n_dims_per_step`",
        ),
        (
            "CoSENTLoss",
            json!({"matryoshka": {}}),
            "`MatryoshkaLoss`: `dims` must name at least one embedding size",
            "for a model of 384 dimensions: `dims = [384, 192, 96, 48]`",
        ),
        (
            "CoSENTLoss",
            json!({"matryoshka": [4, 8]}),
            "`CoSENTLoss` setting `matryoshka`: not a table",
            "write it as a table of its own, `[loss.matryoshka]`",
        ),
        (
            "MatryoshkaLoss",
            json!({"dims": [4]}),
            "`MatryoshkaLoss` needs the loss it wraps",
            "name it: `loss = { name = \"MultipleNegativesRankingLoss\" }`",
        ),
    ] {
        let error = made(name, settings).map(|loss| loss.config()).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.hint(), Some(hint));
        assert_eq!(error.kind(), crate::error::Kind::Usage);
    }
    for (settings, part) in [
        (json!({"dims": [4, 0]}), "greater than 0"),
        (json!({"dims": [4], "weights": [1, 2]}), "2 weights, 1 dims"),
        (json!({"dims": [4], "n_dims_per_step": 0}), "must be -1 or at least 1"),
    ] {
        let error = made("CoSENTLoss", json!({"matryoshka": settings})).map(|loss| loss.config()).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}
