//! Every module against the reference: embeddings, gradients, and what is saved.

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use serde_json::Value;
use tallow::flow::{Batch, Encode, EncodeOptions, PackedBatch, Preprocess};
use tallow::model::module::{self, dense};
use tallow::model::{ModelOptions, SentenceTransformer};
use tallow::ops::{self, Context, composed};
use tallow::util::seed::Rng;

use crate::support::{copy_dir, difference, golden, numbers, project, tensor, values};

fn cases() -> Vec<Value> {
    golden("modules")["cases"].as_array().unwrap().clone()
}

fn load(case: &Value) -> SentenceTransformer {
    SentenceTransformer::load(&project("tests").join(case["model"].as_str().unwrap())).unwrap()
}

fn texts(case: &Value) -> Vec<&str> {
    case["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn options(case: &Value) -> EncodeOptions {
    let text = |key: &str| case[key].as_str().map(str::to_owned);
    EncodeOptions { prompt: text("prompt"), task: text("task"), ..EncodeOptions::default() }
}

fn embeddings(model: &SentenceTransformer, case: &Value) -> Vec<f64> {
    let got = model.encode(&texts(case), &options(case)).unwrap();
    got.data().iter().map(|x| f64::from(*x)).collect()
}

#[test]
fn every_module_has_golden_values() {
    let seen: BTreeSet<String> = cases()
        .iter()
        .flat_map(|case| case["modules"].as_array().unwrap().clone())
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    // older names of the Router and of a Transformer; what sparse embeddings are made by is in sparse_encoder.json and
    // sparse_more.json, what token by token comparison needs in multi_vector.json
    let others =
        ["Asym", "MLMTransformer", "SpladePooling", "SparseStaticEmbedding", "SparseAutoEncoder", "MultiVectorMask"];
    for name in module::supported().into_iter().filter(|name| !others.contains(name)) {
        assert!(seen.contains(name), "`{name}` is in the table of modules but not in modules.json");
    }
}

#[test]
fn embeddings_equal_the_reference() {
    for case in cases() {
        let worst = difference(&embeddings(&load(&case), &case), &numbers(&case["embeddings"]));
        assert!(worst < 1e-5, "{} {:?}: {worst:e}", case["model"], case["task"]);
    }
}

/// The golden gradients do without dropout.
fn without_dropout(case: &Value, folder: &Path) -> SentenceTransformer {
    copy_dir(&project("tests").join(case["model"].as_str().unwrap()), folder);
    for file in ["1_LSTM/lstm_config.json", "5_Dropout/config.json"] {
        let file = folder.join(file);
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["dropout"] = 0.0.into();
        std::fs::write(&file, config.to_string()).unwrap();
    }
    let options = ModelOptions { dropout: Some(0.0), ..ModelOptions::default() };
    SentenceTransformer::load_with(folder, &options).unwrap()
}

fn check_gradients(composed: bool) {
    let mut seen = 0;
    for case in cases() {
        let dir = tempfile::tempdir().unwrap();
        let model = without_dropout(&case, dir.path());
        let options = options(&case);
        let task = options.task.as_deref();
        let tokenizer = model.tokenizer_for(task).unwrap();
        let tokens = tokenizer.tokenize(&texts(&case), options.prompt.as_deref()).unwrap();
        let batch = PackedBatch::from_tokens(&tokens);
        let want = case["gradients"].as_object().unwrap();
        if want.is_empty() {
            continue;
        }
        let context = Context::training(DType::F32, Rng::new(0)).unwrap();
        let out = model.forward_task(&batch, task, &context).unwrap();
        let count = out.elem_count();
        let pattern: Vec<f32> = (0..count).map(|k| (0.1 * k as f64).sin() as f32).collect();
        let pattern = Tensor::from_vec(pattern, out.dims().to_vec(), &Device::Cpu).unwrap();
        let gradients = (out * pattern).unwrap().sum_all().unwrap().backward().unwrap();
        ops::collect(&gradients, &model.params()).unwrap();
        for (name, want) in want {
            let params = model.params();
            let param = params.iter().find(|p| p.name() == name).unwrap_or_else(|| panic!("no parameter {name}"));
            let got = values(&param.gradient_tensor().unwrap().unwrap_or_else(|| panic!("{name} has no gradient")));
            let want = numbers(want);
            let worst = difference(&got, &want);
            assert!(worst < 2e-5, "{} {name} (composed: {composed}): {worst:e}", case["model"]);
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen}");
}

#[test]
fn gradients_equal_the_reference() {
    check_gradients(false);
}

#[test]
fn composed_gradients_equal_the_reference() {
    composed::everywhere(|| check_gradients(true));
}

#[test]
fn activations_equal_torch() {
    let golden = golden("modules");
    for composed in [false, true] {
        for case in golden["activations"].as_array().unwrap() {
            let path = case["activation_function"].as_str().unwrap();
            let kind = dense::activation(path).unwrap_or_else(|| panic!("{path} is not known"));
            let check = || {
                let x = Var::from_tensor(&tensor(&case["x"], DType::F64)).unwrap();
                let y = ops::activation(x.as_tensor(), kind).unwrap();
                let gradients = y.sum_all().unwrap().backward().unwrap();
                let dx = gradients.get(&x).unwrap();
                let y = difference(&values(&y), &numbers(&case["y"]));
                let dx = difference(&values(dx), &numbers(&case["dx"]));
                assert!(y < 1e-8 && dx < 1e-8, "{path} (composed: {composed}): {y:e}, gradient {dx:e}");
            };
            if composed { composed::everywhere(check) } else { check() }
        }
    }
}

#[test]
fn what_is_saved_is_the_same_model() {
    for case in cases() {
        let model = load(&case);
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        model.save(&target).unwrap();
        let again = SentenceTransformer::load(&target).unwrap();
        assert_eq!(embeddings(&model, &case), embeddings(&again, &case), "{}", case["model"]);
        assert_eq!(model.module_names(), again.module_names());
        assert_eq!(model.tasks(), again.tasks());
        let names = |m: &SentenceTransformer| m.params().iter().map(|p| p.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&model), names(&again));
        keep_for_the_reference(&case, &model, &target);
    }
}

/// With `TALLOW_SAVED` set to a folder, saved models are kept there for check_saved.py.
fn keep_for_the_reference(case: &Value, model: &SentenceTransformer, saved: &Path) {
    let (Some(folder), None) = (std::env::var_os("TALLOW_SAVED"), case["prompt"].as_str()) else { return };
    let name = case["model"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let task = case["task"].as_str().unwrap_or("none");
    let folder = Path::new(&folder).join(name).join(task);
    copy_dir(saved, &folder.join("model"));
    let got = model.encode(&texts(case), &options(case)).unwrap();
    let lines: Vec<String> = (0..got.rows()).map(|i| serde_json::to_string(got.row(i)).unwrap()).collect();
    std::fs::write(folder.join("embeddings.jsonl"), lines.join("\n")).unwrap();
    std::fs::write(folder.join("texts.txt"), texts(case).join("\n")).unwrap();
}

/// Columns of a training batch take their own routes, and a part of it the same as the whole.
#[test]
fn columns_take_routes() {
    let mut model = SentenceTransformer::load(&project("tests/fixtures/modules/router-mapped")).unwrap();
    let columns = [(["a cat", "red house"], "query"), (["the big dog runs", "stone"], "document")];
    let mut tokens = Vec::new();
    let mut want = Vec::new();
    for (texts, task) in &columns {
        tokens.extend(model.tokenizer_for(Some(task)).unwrap().tokenize(texts, None).unwrap());
        let options = EncodeOptions { task: Some((*task).to_owned()), ..EncodeOptions::default() };
        want.extend(model.encode(texts, &options).unwrap().data().iter().map(|x| f64::from(*x)));
    }
    model.set_column_tasks(columns.iter().map(|(_, task)| Some((*task).to_owned())).collect());
    let batch = Batch {
        packed: PackedBatch::from_tokens(&tokens),
        columns: 2,
        rows: 2,
        lists: Vec::new(),
        text_ids: Vec::new(),
        labels: None,
        row_ids: vec![0, 1],
        dataset: 0,
    };
    let context = Context::inference();
    let whole = model.embed_part(&batch, 0..4, &context).unwrap();
    assert!(difference(&values(&whole), &want) < 1e-6);
    let part = model.embed_part(&batch, 1..3, &context).unwrap();
    assert!(difference(&values(&part), &want[6..18]) < 1e-6);
    assert_eq!(model.rows(&batch).len(), 2, "one table for each route");
}

/// `normalize = false` reaches the modules of a Router's routes, and what is saved is what is left.
#[test]
fn routes_are_not_normalised_where_it_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("routes");
    copy_dir(&project("tests/fixtures/modules/router"), &source);
    let file = source.join("router_config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    config["types"]["query_1_Normalize"] = "sentence_transformers.models.Normalize".into();
    config["structure"]["query"].as_array_mut().unwrap().insert(1, "query_1_Normalize".into());
    std::fs::write(&file, config.to_string()).unwrap();
    std::fs::create_dir(source.join("query_1_Normalize")).unwrap();
    std::fs::write(source.join("query_1_Normalize/config.json"), "{}").unwrap();
    let load = |normalize| {
        let options = ModelOptions { normalize, ..ModelOptions::default() };
        SentenceTransformer::load_with(&source, &options).unwrap()
    };
    let lengths = |model: &SentenceTransformer, task: &str| {
        let options = EncodeOptions { task: Some(task.to_owned()), ..EncodeOptions::default() };
        let rows = model.encode(&["a cat", "the big dog runs"], &options).unwrap();
        [0, 1].map(|i| rows.row(i).iter().map(|x| x * x).sum::<f32>().sqrt())
    };
    let (with, without) = (load(None), load(Some(false)));
    for task in ["query", "document"] {
        assert!(lengths(&with, task).iter().all(|length| (length - 1.0).abs() < 1e-5), "{task}");
        assert!(lengths(&without, task).iter().any(|length| (length - 1.0).abs() > 1e-3), "{task}");
    }
    let target = dir.path().join("saved");
    without.save(&target).unwrap();
    let again = SentenceTransformer::load(&target).unwrap();
    for task in ["query", "document"] {
        assert_eq!(lengths(&again, task), lengths(&without, task), "{task}");
    }
    assert!(!target.join("query_1_Normalize").exists());
}

#[test]
fn bags_of_words_have_no_greatest_length() {
    let options = ModelOptions { max_seq_length: Some(2), ..ModelOptions::default() };
    let error = SentenceTransformer::load_with(&project("tests/fixtures/modules/bow"), &options).err().unwrap();
    assert!(error.hint().unwrap().contains("`model.max_seq_length`"), "{error}");
}

#[test]
fn a_task_without_a_route_is_refused() {
    let model = SentenceTransformer::load(&project("tests/fixtures/modules/router")).unwrap();
    let options = EncodeOptions { task: Some("qeury".to_owned()), ..EncodeOptions::default() };
    let error = model.encode(&["a cat"], &options).unwrap_err();
    assert!(error.to_string().contains("no route for `qeury`"), "{error}");
    assert!(error.hint().unwrap().contains("query, document"), "{error}");
}
