//! Rerankers: scores, rankings and twenty steps of training as the reference's, and what is refused.

use candle_core::Device;
use serde_json::{Value, json};
use tallow::flow::{ActivationFn, Encode, EncodeOptions, ModelType, Predict};
use tallow::model::{ModelOptions, SentenceTransformer};
use tallow::train::{self, Event, Options};

use crate::curves::{follow, recipe_of};
use crate::support::{assert_close, copy_dir, golden, numbers, project};
use crate::train::{plan, run};

fn load(fixture: &str) -> SentenceTransformer {
    SentenceTransformer::load(&project("tests/fixtures").join(fixture)).unwrap()
}

fn texts(value: &Value) -> Vec<(String, String)> {
    let text = |pair: &Value, i: usize| pair[i].as_str().unwrap().to_owned();
    value.as_array().unwrap().iter().map(|pair| (text(pair, 0), text(pair, 1))).collect()
}

fn predict(model: &SentenceTransformer, pairs: &[(String, String)], case: &Value) -> Vec<f64> {
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let options = EncodeOptions { prompt: case["prompt"].as_str().map(str::to_owned), ..EncodeOptions::default() };
    let activation = case["activation_fn"].as_str().and_then(ActivationFn::of_path);
    model.predict(&pairs, activation, &options).unwrap().data().iter().map(|x| f64::from(*x)).collect()
}

#[test]
fn scores_are_the_references() {
    let golden = golden("cross_encoder");
    let pairs = texts(&golden["pairs"]);
    let cases = golden["predictions"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    let saved = tempfile::tempdir().unwrap();
    for fixture in ["tiny-cross-encoder", "tiny-classifier"] {
        let model = load(fixture);
        assert_eq!(model.kind(), ModelType::CrossEncoder);
        let folder = saved.path().join(fixture);
        model.save(&folder).unwrap();
        let again = SentenceTransformer::load(&folder).unwrap();
        for case in cases.iter().filter(|case| case["fixture"] == fixture) {
            for model in [&model, &again] {
                let what = format!("{fixture}, prompt {}, activation {}", case["prompt"], case["activation_fn"]);
                assert_close(&what, &predict(model, &pairs, case), &numbers(&case["scores"]), 2e-6);
            }
        }
    }
}

#[test]
fn documents_are_ranked_as_the_reference_ranks_them() {
    let golden = golden("cross_encoder");
    let ranking = &golden["ranking"];
    let documents: Vec<&str> = ranking["documents"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let model = load("tiny-cross-encoder");
    let ranked = model.rank(ranking["query"].as_str().unwrap(), &documents, &EncodeOptions::default()).unwrap();
    let hits = ranking["hits"].as_array().unwrap();
    assert_eq!(ranked.len(), hits.len());
    for (got, want) in ranked.iter().zip(hits) {
        assert_eq!(json!(got.corpus_id), want[0]);
        assert!((f64::from(got.score) - want[1].as_f64().unwrap()).abs() < 2e-6);
    }
    let error = load("tiny-classifier").rank("a", &["b"], &EncodeOptions::default()).unwrap_err();
    assert!(error.to_string().contains("3 scores"), "{error}");
}

#[test]
fn losses_follow_the_reference() {
    let golden = golden("cross_encoder");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 8, "only {} cases", cases.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let text = recipe_of(case, "CrossEncoder");
        // with the loss of all parts together, steps may be taken in parts
        for cache in [&[][..], &["args.gradient_cache_tokens=120"]] {
            let model = follow(name, case, &plan(&text, cache));
            let identity = json!({"activation_fn": "Identity"});
            let got = predict(&model, &texts(&case["probes"]), &identity);
            assert_close(name, &got, &numbers(&case["logits_after"]), 1e-3);
        }
    }
}

/// A recipe whose lines can be changed.
fn recipe(loss: &str, more: &str) -> String {
    format!(
        r#"
        model_type = "CrossEncoder"
        [model]
        base = "tests/fixtures/tiny-bert"
        {more}
        [train_dataset]
        path = "tests/golden/curves_labelled.jsonl"
        columns = ["anchor", "negative"]
        label = "same"
        [loss]
        name = "{loss}"
        [args]
        max_steps = 2
        save_strategy = "no"
        "#
    )
}

fn refused(text: &str) -> String {
    let loaded = tallow::recipe::parse(&project("test.toml"), text, &[]).unwrap_or_else(|e| panic!("{e}"));
    match loaded.resolve(&tallow::recipe::Builtin) {
        Err(error) => error.to_string(),
        Ok((plan, _)) => {
            let dir = tempfile::tempdir().unwrap();
            run(&plan, dir.path(), Options::default()).0.unwrap_err().to_string()
        }
    }
}

#[test]
fn a_bi_encoder_becomes_a_reranker_with_a_new_classifier() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(&recipe("BinaryCrossEntropyLoss", ""), &[]);
    let options = ModelOptions { model_type: Some(ModelType::CrossEncoder), seed: 5, ..ModelOptions::default() };
    let base = project("tests/fixtures/tiny-bert");
    let model = SentenceTransformer::load_with(&base, &options).unwrap();
    assert_eq!(model.new_layers().last().map(String::as_str), Some("classifier"));
    let other = ModelOptions { seed: 6, ..options.clone() };
    let other = SentenceTransformer::load_with(&base, &other).unwrap();
    let score = |model: &SentenceTransformer| {
        model.predict(&[("a red bicycle", "the harbour")], None, &EncodeOptions::default()).unwrap().data()[0]
    };
    assert_eq!(score(&model), score(&SentenceTransformer::load_with(&base, &options).unwrap()));
    assert_ne!(score(&model), score(&other), "another seed, another classifier");

    let (outcome, _) = run(&plan, dir.path(), Options::default());
    let trained = SentenceTransformer::load(&outcome.unwrap().model_dir).unwrap();
    assert_eq!((trained.kind(), trained.num_labels()), (ModelType::CrossEncoder, 1));
    assert_eq!(trained.activation_fn(), ActivationFn::Sigmoid);
    assert!(trained.new_layers().is_empty());
    let error = trained.encode(&["a"], &EncodeOptions::default()).unwrap_err();
    assert!(error.to_string().contains("CrossEncoder"), "{error}");
    let error = SentenceTransformer::load_with(
        &dir.path().join("model"),
        &ModelOptions { model_type: Some(ModelType::SentenceTransformer), ..ModelOptions::default() },
    );
    assert!(error.err().unwrap().to_string().contains("is a CrossEncoder"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let bce = "BinaryCrossEntropyLoss";
    for (text, message) in [
        (recipe("MSELoss", "activation_fn = \"Sigmoid\""), "must be Identity with MSELoss, found Sigmoid"),
        (recipe(bce, "pooling_mode = \"cls\""), "has no embeddings"),
        (recipe(bce, "num_labels = 0"), "must be 1 or more"),
        (recipe(bce, "num_labels = 3"), "BinaryCrossEntropyLoss"),
        (recipe("CoSENTLoss", ""), "`CoSENTLoss` is for a SentenceTransformer, not for a CrossEncoder"),
        (recipe("LambdaLoss", ""), "holds no lists of texts"),
        (recipe(bce, "max_seq_length = 4"), "a pair needs at least 5 tokens"),
        (recipe(bce, "").replace("columns = [\"anchor\", \"negative\"]", "columns = [\"anchor\"]"), "1 input columns"),
        (recipe(bce, "") + IMPATIENT, "must be 3 or more for a CrossEncoder"),
    ] {
        let told = refused(&text);
        assert!(told.contains(message), "{message}: {told}");
    }
}

#[test]
fn scores_are_what_a_loss_compared_with_labels() {
    for (loss, own, wanted) in [
        ("MSELoss", "Sigmoid", ActivationFn::Sigmoid),
        ("MSELoss", "Identity", ActivationFn::Identity),
        ("MultipleNegativesRankingLoss", "Sigmoid", ActivationFn::Identity),
    ] {
        let text = recipe(&format!("{loss}\"\nactivation_fn = \"{own}"), "");
        assert_eq!(plan(&text, &[]).model.activation_fn, Some(wanted), "{loss} {own}");
    }
    let text = recipe("MSELoss\"\nactivation_fn = \"Sigmoid", "activation_fn = \"Identity\"");
    let told = refused(&text);
    assert!(told.contains("must be Sigmoid with MSELoss"), "{told}");
}

#[test]
fn classes_of_data_are_the_models() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("classes.jsonl");
    let evaluate = |rows: &str| {
        std::fs::write(&file, rows).unwrap();
        let text = recipe("CrossEntropyLoss", "num_labels = 2")
            .replace("save_strategy = \"no\"", "save_strategy = \"epoch\"")
            + &format!(
                "[[evaluator]]\ntype = \"CrossEncoderClassificationEvaluator\"\npath = \"{}\"\ncolumns = [\"a\", \"b\"]",
                file.display()
            );
        let out = tempfile::tempdir().unwrap();
        run(&plan(&text, &[]), out.path(), Options::default()).0
    };
    let good = "{\"a\": \"x\", \"b\": \"y\", \"label\": 1}\n{\"a\": \"x\", \"b\": \"z\", \"label\": 0}\n";
    evaluate(good).unwrap();
    let told = evaluate(&good.replace("\"label\": 0", "\"label\": 2")).unwrap_err().to_string();
    assert!(told.contains("the label of row 2 is 2, the model has the classes 0 to 1"), "{told}");
}

#[test]
fn labels_out_of_range_are_told_with_their_row() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.jsonl");
    let told = |loss: &str, more: &str, labels: [&str; 3]| {
        let rows = labels.map(|label| format!("{{\"a\": \"x\", \"b\": \"y\", \"same\": {label}}}\n")).concat();
        std::fs::write(&file, rows).unwrap();
        let text = recipe(loss, more)
            .replace("tests/golden/curves_labelled.jsonl", &file.display().to_string())
            .replace("[\"anchor\", \"negative\"]", "[\"a\", \"b\"]");
        refused(&text)
    };
    for (loss, more, labels, wanted) in [
        (
            "BinaryCrossEntropyLoss",
            "",
            ["1", "0.5", "3"],
            "line 3: the label is 3, and BinaryCrossEntropyLoss takes 0 to 1",
        ),
        (
            "BinaryCrossEntropyLoss",
            "",
            ["1", "-1", "0"],
            "line 2: the label is -1, and BinaryCrossEntropyLoss takes 0 to 1",
        ),
        (
            "CrossEntropyLoss",
            "num_labels = 2",
            ["2", "1", "0"],
            "line 1: the label is 2, and CrossEntropyLoss takes 0 to 1",
        ),
    ] {
        let told = told(loss, more, labels);
        assert!(told.contains("rows.jsonl") && told.contains(wanted), "{told}");
    }
}

#[test]
fn names_of_classes_are_saved_with_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.jsonl");
    let rows = ["rain", "sun", "fog", "sun"]
        .map(|name| format!("{{\"a\": \"x\", \"b\": \"y {name}\", \"same\": \"{name}\"}}\n"));
    std::fs::write(&file, rows.concat()).unwrap();
    let text = recipe("CrossEntropyLoss", "num_labels = 3")
        .replace("tests/golden/curves_labelled.jsonl", &file.display().to_string())
        .replace("[\"anchor\", \"negative\"]", "[\"a\", \"b\"]");
    let outcome = run(&plan(&text, &[]), &dir.path().join("run"), Options::default()).0.unwrap();
    let config = std::fs::read_to_string(outcome.model_dir.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["id2label"], json!({"0": "fog", "1": "rain", "2": "sun"}));
    assert_eq!(config["label2id"], json!({"fog": 0, "rain": 1, "sun": 2}));
    // and survive being loaded and saved
    let again = dir.path().join("again");
    SentenceTransformer::load(&outcome.model_dir).unwrap().save(&again).unwrap();
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(again.join("config.json")).unwrap()).unwrap();
    assert_eq!(kept["id2label"], config["id2label"]);
}

/// Lines under `[args]`, and an evaluator.
const IMPATIENT: &str = r#"
        early_stopping_patience = 2
        eval_steps = 1
        [[evaluator]]
        type = "CrossEncoderCorrelationEvaluator"
        path = "tests/golden/curves_scored.jsonl"
        "#;

#[test]
fn lists_are_checked_row_by_row() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lists.jsonl");
    let text = |rows: &str| {
        std::fs::write(&file, rows).unwrap();
        recipe("LambdaLoss", "")
            .replace("tests/golden/curves_labelled.jsonl", &file.display().to_string())
            .replace("columns = [\"anchor\", \"negative\"]", "columns = [\"query\", \"docs\"]")
            .replace("label = \"same\"", "label = \"labels\"")
    };
    let good = r#"{"query": "a", "docs": ["b", "c"], "labels": [1, 0]}"#;
    for (row, message) in [
        (r#"{"query": "a", "docs": ["b", "c"], "labels": [1]}"#, "1 labels for 2 texts"),
        (r#"{"query": "a", "docs": [], "labels": []}"#, "an empty list"),
        (r#"{"query": "a", "docs": ["b", " "], "labels": [1, 0]}"#, "empty text at place 1"),
    ] {
        let told = refused(&text(&format!("{good}\n{row}\n")));
        assert!(told.contains(message) && told.contains("line 2"), "{message}: {told}");
    }
    let twice = r#"{"query": ["a"], "docs": ["b", "c"], "labels": [1, 0]}"#;
    let told = refused(&text(&format!("{twice}\n")));
    assert!(told.contains("both hold lists"), "{told}");
}

/// A reranker whose classifier sees nothing gives every pair its bias.
#[test]
fn scores_that_are_all_alike_are_an_alarm() {
    let alarms = |zeroed: bool| {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        copy_dir(&project("tests/fixtures/tiny-cross-encoder"), &base);
        if zeroed {
            let file = base.join("model.safetensors");
            let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
            let weight = tensors.get_mut("classifier.weight").unwrap();
            *weight = weight.zeros_like().unwrap();
            candle_core::safetensors::save(&tensors, &file).unwrap();
        }
        let text =
            recipe("BinaryCrossEntropyLoss", "").replace("tests/fixtures/tiny-bert", &base.display().to_string());
        let text = text.replace("save_strategy = \"no\"", "save_steps = 1\nlearning_rate = 1e-12");
        let text = format!("{text}{}", IMPATIENT.replace("patience = 2", "patience = 3"));
        let mut warnings = Vec::new();
        train::run(&plan(&text, &[]), &dir.path().join("run"), &Options::default(), &mut |event: &Event<'_>| {
            if let Event::Warning(text) = event {
                warnings.push((*text).to_owned());
            }
        })
        .unwrap();
        warnings.into_iter().filter(|text| text.contains("all pairs get the same score")).collect::<Vec<_>>()
    };
    assert!(alarms(false).is_empty());
    let told = alarms(true);
    assert!(!told.is_empty() && told[0].contains("after step") && told[0].contains("learning_rate"), "{told:?}");
}
