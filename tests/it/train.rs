//! Whole runs: the reference's loss curves, resuming, and what a run leaves behind.

use std::path::Path;

use serde_json::Value;
use tallow::flow::{Encode, EncodeOptions};
use tallow::model::SentenceTransformer;
use tallow::recipe::{self, Builtin, Plan};
use tallow::train::{self, Event, Options, TrainLog};

use crate::support::{golden, numbers, project, shared};

/// The plan of a recipe's text, as if it stood in the project's root.
pub fn plan(text: &str, sets: &[&str]) -> Plan {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    let loaded = recipe::parse(&project("test.toml"), text, &sets).unwrap_or_else(|e| panic!("{e}"));
    loaded.resolve(&Builtin).unwrap_or_else(|e| panic!("{e}")).0
}

/// Runs a plan and collects its log lines.
fn run(plan: &Plan, dir: &Path, options: Options) -> (tallow::Result<train::Outcome>, Vec<TrainLog>) {
    let mut logs = Vec::new();
    let outcome = train::run(plan, dir, &options, &mut |event: &Event<'_>| match event {
        Event::Log(line) => logs.push(*line),
        Event::Message(text) => println!("{text}"),
        Event::Warning(text) => println!("warning: {text}"),
        _ => {}
    });
    (outcome, logs)
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The recipe of a golden curve.
fn curve_recipe(case: &Value, model: &str, data: &str) -> String {
    let number = |key: &str| case[key].as_f64().unwrap();
    let columns: Vec<&str> =
        case["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).filter(|c| *c != "score").collect();
    let labelled = case["loss"] != "MultipleNegativesRankingLoss";
    format!(
        r#"
        run_name = "curve"
        [model]
        base = "{model}"
        dropout = 0.0
        [train_dataset]
        path = "{data}"
        columns = {columns:?}
        limit = {rows}
        {label}
        [loss]
        name = {loss}
        [args]
        num_train_epochs = 1
        per_device_train_batch_size = {batch}
        gradient_accumulation_steps = {accumulation}
        learning_rate = {rate}
        warmup_steps = {warmup}
        weight_decay = {decay}
        max_grad_norm = {clip}
        lr_scheduler_type = {schedule}
        shuffle = false
        logging_steps = 1
        save_strategy = "no"
        "#,
        rows = case["rows"],
        label = if labelled { "label = \"score\"" } else { "" },
        loss = case["loss"],
        batch = case["batch_size"],
        accumulation = case["gradient_accumulation_steps"],
        rate = number("learning_rate"),
        warmup = number("warmup_steps"),
        decay = number("weight_decay"),
        clip = number("max_grad_norm"),
        schedule = case["lr_scheduler_type"],
    )
}

/// Trains as the reference did and compares losses, rates, norms and the embeddings at the end.
fn follow(case: &Value, model: &str, data: &str, embeddings_within: f64) {
    let name = case["name"].as_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut text = curve_recipe(case, model, data);
    if model.ends_with("tiny-static") {
        text = text.replace("dropout = 0.0", "");
    }
    let (outcome, logs) = run(&plan(&text, &[]), dir.path(), Options::default());
    let outcome = outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
    let wanted = list(&case["logged_losses"]);
    assert_eq!(logs.len(), wanted.len(), "{name}");
    for (key, got) in [
        ("logged_losses", logs.iter().map(|l| l.loss).collect::<Vec<_>>()),
        ("learning_rates", logs.iter().map(|l| l.learning_rate).collect()),
        ("grad_norms", logs.iter().map(|l| l.grad_norm).collect()),
    ] {
        let want = list(&case[key]);
        for (i, (a, b)) in got.iter().zip(&want).enumerate() {
            let allowed = if key == "grad_norms" { 1e-3 * b.abs().max(1.0) } else { 1e-4 };
            assert!((a - b).abs() < allowed, "{name}: {key} of step {} is {a}, the reference has {b}", i + 1);
        }
    }
    let model = SentenceTransformer::load(&outcome.model_dir).unwrap();
    let probes: Vec<&str> = case["probes"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let got = model.encode(&probes, &EncodeOptions::default()).unwrap();
    let want = numbers(&case["embeddings_after"]);
    let worst = got.data().iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(worst < embeddings_within, "{name}: embeddings differ by {worst:e}");
    println!("{name}: embeddings differ by {worst:e}");
}

#[test]
fn twenty_steps_follow_the_reference() {
    let golden = golden("curves");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 3);
    for case in cases {
        let part = |key: &str| case[key].as_str().unwrap().rsplit('/').next().unwrap();
        let model = format!("tests/fixtures/{}", part("model"));
        follow(case, &model, &format!("tests/golden/{}", part("data")), 1e-3);
    }
}

#[test]
fn minilm_follows_the_reference() {
    let Some(model) = shared("models/all-MiniLM-L6-v2") else { return };
    let golden = golden("curves_minilm");
    for case in golden["cases"].as_array().unwrap() {
        let data = case["data"].as_str().unwrap();
        let Some(data) = shared(data.split("shared/").last().unwrap()).or_else(|| shared(&format!("data/{data}")))
        else {
            return;
        };
        follow(case, model.to_str().unwrap(), data.to_str().unwrap(), 1e-3);
    }
}
