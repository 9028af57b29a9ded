//! Whole runs: the reference's loss curves, resuming, and what a run leaves behind.

use std::path::Path;

use serde_json::Value;
use tallow::flow::{Encode, EncodeOptions};
use tallow::model::SentenceTransformer;
use tallow::recipe::{self, Builtin, Plan};
use tallow::train::{self, Event, Options, TrainLog};

use crate::support::{copy_dir, golden, numbers, project, shared};

/// The plan of a recipe's text, as if it stood in the project's root.
pub fn plan(text: &str, sets: &[&str]) -> Plan {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    let loaded = recipe::parse(&project("test.toml"), text, &sets).unwrap_or_else(|e| panic!("{e}"));
    loaded.resolve(&Builtin).unwrap_or_else(|e| panic!("{e}")).0
}

/// Runs a plan and collects its log lines.
pub fn run(plan: &Plan, dir: &Path, options: Options) -> (tallow::Result<train::Outcome>, Vec<TrainLog>) {
    let mut logs = Vec::new();
    let outcome = train::run(plan, dir, &options, &mut |event: &Event<'_>| match event {
        Event::Log(line) => logs.push(line.clone()),
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
        let gaps: Vec<String> = got.iter().zip(&want).map(|(a, b)| format!("{:.0e}", (a - b).abs())).collect();
        println!("{name}: {key} differ by {}", gaps.join(" "));
        for (i, (a, b)) in got.iter().zip(&want).enumerate() {
            let allowed = if key == "grad_norms" { 1e-3 } else { 1e-4 } * b.abs().max(1.0);
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
pub fn twenty_steps_follow_the_reference() {
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

/// A small run with dropout, epochs that do not divide evenly, evaluations and checkpoints.
pub const SMALL: &str = r#"
run_name = "small"
seed = 3
[model]
base = "tests/fixtures/tiny-bert"
[train_dataset]
path = "tests/golden/curves_pairs.jsonl"
columns = ["anchor", "positive"]
limit = 100
[loss]
name = "MultipleNegativesRankingLoss"
[[evaluator]]
type = "InformationRetrievalEvaluator"
name = "dev"
path = "tests/golden/curves_pairs.jsonl"
columns = ["anchor", "positive"]
limit = 40
[args]
num_train_epochs = 2.5
per_device_train_batch_size = 8
gradient_accumulation_steps = 2
learning_rate = 2e-3
weight_decay = 0.01
warmup_steps = 0.1
batch_sampler = "no_duplicates"
logging_steps = 1
eval_steps = 4
save_steps = 4
load_best_model_at_end = true
metric_for_best_model = "eval_dev_cosine_ndcg@10"
"#;

#[test]
fn cached_gradients_train_as_a_batch_at_once() {
    let fresh = SMALL.replace(
        "base = \"tests/fixtures/tiny-bert\"",
        "[model.static_embedding]\nembedding_dim = 32\ntokenizer = \"tests/fixtures/tiny-bert\"",
    );
    let wrapped = SMALL.replace("[[evaluator]]", "[loss.matryoshka]\ndims = [32, 8]\n[[evaluator]]");
    for (text, sets) in
        [(SMALL, &["model.dropout=0.0"][..]), (&wrapped, &["model.dropout=0.0"]), (&fresh, &["args.bf16=true"])]
    {
        let losses = |more: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let sets: Vec<&str> = sets.iter().chain(more).copied().collect();
            let (outcome, logs) = run(&plan(text, &sets), dir.path(), Options::default());
            (outcome.unwrap().timings, logs.iter().map(|l| (l.loss, l.grad_norm)).collect::<Vec<_>>())
        };
        let (_, plain) = losses(&[]);
        let (timings, cached) = losses(&["args.gradient_cache_tokens=50"]);
        for phase in ["data", "forward", "backward"] {
            assert!(timings[phase] > 0.0, "{phase}");
        }
        assert_ne!(plain, cached, "micro-batches add in another order");
        for (step, (a, b)) in cached.iter().zip(&plain).enumerate() {
            let apart = (a.0 - b.0).abs().max((a.1 - b.1).abs() / b.1.max(1.0));
            assert!(apart < 2e-3, "step {step}: {a:?} cached, {b:?} at once");
        }
    }
}

#[test]
fn losses_named_cached_ask_for_parts() {
    let cached = "MultipleNegativesRankingLoss\"\nmini_batch_num_tokens = 50";
    let text = SMALL.replace("name = \"MultipleNegativesRankingLoss\"", &format!("name = \"Cached{cached}"));
    let tokens = |text: &str, sets: &[&str]| {
        train::smoke_test(&plan(text, sets), &mut |_: &Event<'_>| {}).unwrap().gradient_cache_tokens
    };
    assert_eq!(tokens(&text, &[]), Some(50));
    assert_eq!(tokens(&text, &["args.gradient_cache_tokens=70"]), Some(70), "the arguments decide");
    let losses = |text: &str, sets: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let (outcome, logs) = run(&plan(text, sets), dir.path(), Options::default());
        outcome.unwrap();
        logs.iter().map(|l| l.loss).collect::<Vec<_>>()
    };
    assert_eq!(losses(&text, &[]), losses(SMALL, &["args.gradient_cache_tokens=50"]), "the same steps");
}

#[test]
fn classes_train_in_groups() {
    let data = tempfile::tempdir().unwrap();
    let rows = (0..62).map(|i| {
        let (kind, words) = [("rain", "wet cloud"), ("food", "warm bread"), ("sport", "fast ball")][i % 3];
        format!("{{\"text\": \"{words} number {i}\", \"kind\": \"{kind}\"}}\n")
    });
    std::fs::write(data.path().join("rows.jsonl"), rows.collect::<String>()).unwrap();
    let path = data.path().join("rows.jsonl").display().to_string();
    for loss in ["BatchAllTripletLoss", "BatchHardSoftMarginTripletLoss", "BatchSemiHardTripletLoss"] {
        let text = format!(
            "run_name = \"small\"\n[model]\nbase = \"tests/fixtures/tiny-bert\"\n[train_dataset]\npath = \"{path}\"\n\
             columns = [\"text\"]\nlabel = \"kind\"\n[loss]\nname = \"{loss}\"\n[args]\nnum_train_epochs = 3\n\
             per_device_train_batch_size = 8\nbatch_sampler = \"group_by_label\"\nlearning_rate = 1e-3\nlogging_steps = 1\n"
        );
        let dir = tempfile::tempdir().unwrap();
        let (outcome, logs) = run(&plan(&text, &[]), dir.path(), Options::default());
        // 60 rows in batches of 8: seven of them and one of two pairs.
        assert_eq!((outcome.unwrap().steps, logs.len()), (24, 24));
        let mean = |logs: &[f64]| logs.iter().sum::<f64>() / logs.len() as f64;
        let losses: Vec<f64> = logs.iter().map(|l| l.loss).collect();
        assert!(mean(&losses[16..]) < mean(&losses[..8]), "{loss}: {losses:?}");
    }
}

#[test]
fn a_budget_of_tokens_bounds_every_batch() {
    let smoke = |sets: &[&str]| train::smoke_test(&plan(SMALL, sets), &mut |_: &Event<'_>| {}).unwrap();
    let (all, bounded) = (smoke(&[]), smoke(&PARTS));
    assert_eq!((all.gradient_cache_tokens, bounded.gradient_cache_tokens), (None, Some(50)));
    assert!(bounded.total_steps > all.total_steps, "{} and {}", bounded.total_steps, all.total_steps);
    assert!(bounded.estimated_peak_memory_bytes < all.estimated_peak_memory_bytes);
    assert!(!bounded.warnings.iter().any(|w| w.contains("single row")), "{:?}", bounded.warnings);
    let alone = smoke(&["args.max_tokens_per_batch=1"]);
    let warning = alone.warnings.iter().find(|w| w.contains("`args.max_tokens_per_batch`")).unwrap();
    assert!(warning.contains("100 of 100 batches of the first epoch have a single row"), "{warning}");

    // the whole run takes the steps that were counted, epochs of different length and a half included
    let dir = tempfile::tempdir().unwrap();
    let (outcome, logs) = run(&plan(SMALL, &PARTS), dir.path(), Options::default());
    let outcome = outcome.unwrap();
    assert_eq!((outcome.steps, logs.len() as u64), (bounded.total_steps, bounded.total_steps));
    assert!((outcome.epochs - 2.5).abs() < 0.2, "{}", outcome.epochs);
}

#[test]
fn bf16_stays_close_to_f32() {
    let losses = |sets: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let sets: Vec<&str> = sets.iter().copied().chain(["model.dropout=0.0"]).collect();
        let (outcome, logs) = run(&plan(SMALL, &sets), dir.path(), Options::default());
        (outcome.unwrap().warnings, logs.iter().map(|l| l.loss).collect::<Vec<_>>())
    };
    let (_, full) = losses(&[]);
    let (warnings, half) = losses(&["args.bf16=true"]);
    let warned = warnings.iter().any(|w| w.contains("`args.bf16`") && w.contains("AVX512-BF16"));
    let products = tallow::ops::bf16_products();
    assert_eq!(warned, products.is_none(), "{warnings:?}");
    if products.is_none() {
        assert_eq!(full, half, "without bf16 instructions the run is one in f32");
        return;
    }
    assert_ne!(full, half);
    for (step, (a, b)) in full.iter().zip(&half).enumerate() {
        assert!((a - b).abs() < 0.02 * a.abs().max(1.0), "step {step}: {a} in f32, {b} in bf16");
    }
}

/// Batches ended by their tokens, and taken in micro-batches.
const PARTS: [&str; 2] = ["args.max_tokens_per_batch=120", "args.gradient_cache_tokens=50"];

#[test]
pub fn a_resumed_run_has_the_same_bits() {
    resumes_exactly(SMALL, &[], &[]);
    resumes_exactly(SMALL, &PARTS, &PARTS);
    // micro-batches belong to the run, whatever the memory at the time of resuming would decide
    resumes_exactly(SMALL, &PARTS, &PARTS[..1]);
}

#[test]
fn missing_labels_are_told_when_the_data_is_opened() {
    for (loss, columns) in [
        ("name = \"SoftmaxLoss\"\nnum_labels = 3", r#"["anchor", "positive"]"#),
        ("name = \"AnglELoss\"", r#"["anchor", "positive"]"#),
        ("name = \"MarginMSELoss\"", r#"["anchor", "positive", "anchor"]"#),
        ("name = \"AdaptiveLayerLoss\"\nloss = { name = \"AnglELoss\" }", r#"["anchor", "positive"]"#),
    ] {
        let text = SMALL.replace("name = \"MultipleNegativesRankingLoss\"", loss);
        let text = text.replacen(r#"["anchor", "positive"]"#, columns, 1);
        let error = train::smoke_test(&plan(&text, &[]), &mut |_: &Event<'_>| {}).unwrap_err();
        assert!(error.to_string().contains("has no label column, and the loss needs one"), "{loss}: {error}");
    }
}

/// Three data sets with three losses: one with parameters of its own, one with a guide that has its own tokenizer.
const MIXED: &str = r#"
    seed = 5
    [model]
    base = "tests/fixtures/tiny-bert"
    [[train_dataset]]
    path = "tests/golden/curves_labelled.jsonl"
    columns = ["sentence", "anchor"]
    label = "class"
    limit = 60
    loss = { name = "SoftmaxLoss", num_labels = 5 }
    [[train_dataset]]
    path = "tests/golden/curves_pairs.jsonl"
    limit = 50
    loss = { name = "GISTEmbedLoss", guide = "tests/fixtures/tiny-static", temperature = 0.05 }
    [[train_dataset]]
    path = "tests/golden/curves_scored.jsonl"
    label = "score"
    limit = 40
    loss = { name = "CoSENTLoss" }
    [[eval_dataset]]
    path = "tests/golden/curves_labelled.jsonl"
    columns = ["sentence", "anchor"]
    label = "class"
    name = "classes"
    loss = { name = "SoftmaxLoss", num_labels = 5 }
    [args]
    num_train_epochs = 1
    per_device_train_batch_size = 8
    learning_rate = 2e-3
    logging_steps = 1
    eval_steps = 4
    save_steps = 4
"#;

#[test]
fn losses_with_parameters_and_guides_train_and_resume() {
    resumes_exactly(MIXED, &[], &[]);
    resumes_exactly(
        MIXED,
        &["args.multi_dataset_batch_sampler=\"round_robin\""],
        &["args.multi_dataset_batch_sampler=\"round_robin\""],
    );
}

/// Single texts, two models; in-batch negatives with their learned scale beside it.
const TWINS: &str = r#"
    seed = 5
    [model]
    base = "tests/fixtures/tiny-bert"
    [[train_dataset]]
    path = "tests/golden/curves_pairs.jsonl"
    name = "pairs"
    columns = ["anchor"]
    limit = 90
    loss = { name = "ContrastiveTensionLoss", pos_neg_ratio = 4 }
    [[train_dataset]]
    path = "tests/golden/curves_pairs.jsonl"
    name = "in-batch"
    columns = ["positive"]
    limit = 40
    loss = { name = "ContrastiveTensionLossInBatchNegatives" }
    [[eval_dataset]]
    path = "tests/golden/curves_pairs.jsonl"
    columns = ["anchor"]
    name = "held out"
    loss = { name = "ContrastiveTensionLoss", pos_neg_ratio = 4 }
    [args]
    num_train_epochs = 2
    per_device_train_batch_size = 8
    learning_rate = 1e-4
    logging_steps = 1
    eval_steps = 4
    save_steps = 4
"#;

#[test]
fn second_models_are_trained_and_resume() {
    resumes_exactly(TWINS, &[], &[]);
    resumes_exactly(TWINS, &["args.gradient_cache_tokens=60"], &["args.gradient_cache_tokens=60"]);
    // ninety texts are six batches of eight pairs, which take 14 texts each, and one of what is left
    let smoke = train::smoke_test(&plan(TWINS, &[]), &mut |_: &Event<'_>| {}).unwrap();
    assert_eq!(smoke.total_steps, 2 * (7 + 5));
    let losses = |sets: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let sets: Vec<&str> = sets.iter().copied().chain(["model.dropout=0.0"]).collect();
        let (outcome, logs) = run(&plan(TWINS, &sets), dir.path(), Options::default());
        (outcome.unwrap(), logs.iter().map(|l| l.loss).collect::<Vec<_>>())
    };
    let ((_, plain), (_, cached)) = (losses(&[]), losses(&["args.gradient_cache_tokens=60"]));
    for (step, (a, b)) in plain.iter().zip(&cached).enumerate() {
        assert!((a - b).abs() < 2e-3 * a.abs().max(1.0), "step {step}: {a} at once, {b} in parts");
    }
    let (outcome, losses) = losses(&["args.num_train_epochs=12"]);
    let measured = |metrics: &tallow::flow::Metrics| metrics.get("loss").unwrap();
    let (before, after) = (measured(&outcome.baseline_metrics), measured(&outcome.final_metrics));
    assert!(after < before, "{before} before, {after} after: {losses:?}");
}

#[test]
fn a_loss_on_two_models_is_neither_wrapped_nor_measured_alone() {
    let text = TWINS.replace("pos_neg_ratio = 4 }\n    [args]", "pos_neg_ratio = 3 }\n    [args]");
    let error = train::smoke_test(&plan(&text, &[]), &mut |_: &Event<'_>| {}).unwrap_err();
    assert!(error.to_string().contains("no training data set trains them"), "{error}");
    let text = SMALL.replace("MultipleNegativesRankingLoss\"", "ContrastiveTensionLoss\"");
    let text = text.replacen(r#"["anchor", "positive"]"#, r#"["anchor"]"#, 1);
    let error = train::smoke_test(&plan(&text, &["args.per_device_train_batch_size=1"]), &mut |_: &Event<'_>| {});
    assert!(error.unwrap_err().to_string().contains("of a batch is a text with itself"));
    let text = SMALL.replace("MultipleNegativesRankingLoss\"", "ContrastiveTensionLoss\"\nmatryoshka = { dims = [8] }");
    let error = recipe::parse(&project("test.toml"), &text, &[]).unwrap().resolve(&Builtin).unwrap_err();
    assert!(error.to_string().contains("cannot be wrapped by MatryoshkaLoss"), "{error}");
}

#[test]
fn what_a_loss_learns_is_learned_and_shared_with_its_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let (outcome, _) = run(
        &plan(
            MIXED,
            &["args.num_train_epochs=10", "args.learning_rate=5e-3", "args.eval_steps=1000", "args.save_steps=1000"],
        ),
        dir.path(),
        Options::default(),
    );
    let outcome = outcome.unwrap();
    let loss = |metrics: &tallow::flow::Metrics| metrics.get("loss").unwrap();
    let (before, after) = (loss(&outcome.baseline_metrics), loss(&outcome.final_metrics));
    assert!(after < before - 0.05, "{before} {after}");
    // a classifier that no training data reach
    let text = MIXED.replace("num_labels = 5 }\n    [args]", "num_labels = 6 }\n    [args]");
    let error = run(&plan(&text, &[]), dir.path(), Options::default()).0.unwrap_err();
    assert!(error.to_string().contains("no training data set trains them"), "{error}");
    let loaded = recipe::parse(&project("test.toml"), &MIXED.replace(", num_labels = 5", ""), &[]).unwrap();
    let error = loaded.resolve(&Builtin).unwrap_err();
    assert!(error.to_string().contains("loss.num_labels`: is required but missing"), "{error}");
}

/// A model whose weights lie in its modules' folders, and whose queries and documents go different ways.
const ROUTED: &str = r#"
    seed = 5
    [model]
    base = "tests/fixtures/modules/router"
    [[train_dataset]]
    path = "tests/golden/curves_labelled.jsonl"
    columns = ["anchor", "positive", "negative"]
    [[train_dataset]]
    path = "tests/golden/curves_pairs.jsonl"
    [loss]
    name = "MultipleNegativesRankingLoss"
    [[evaluator]]
    type = "TripletEvaluator"
    path = "tests/golden/curves_labelled.jsonl"
    limit = 20
    [args]
    num_train_epochs = 1
    per_device_train_batch_size = 16
    learning_rate = 1e-2
    logging_steps = 1
    eval_steps = 8
    save_steps = 4
    router_mapping = { anchor = "query", positive = "document", negative = "document" }
"#;

#[test]
fn a_router_trains_and_resumes() {
    resumes_exactly(ROUTED, &[], &[]);
    let dir = tempfile::tempdir().unwrap();
    let wrong = ROUTED.replace("positive = \"document\", negative", "negativ");
    let error = run(&plan(&wrong, &[]), dir.path(), Options::default()).0.unwrap_err();
    assert!(error.to_string().contains("`args.router_mapping`"), "{error}");
}

#[test]
fn a_model_without_anything_to_train_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = ROUTED.replace("modules/router", "modules/bow-once").replace("router_mapping", "#");
    let error = run(&plan(&text, &[]), dir.path(), Options::default()).0.unwrap_err();
    assert!(error.to_string().contains("nothing to train"), "{error}");
}

pub fn resumes_exactly(text: &str, sets: &[&str], resumed_with: &[&str]) {
    let (plan, then) = (plan(text, sets), plan(text, resumed_with));
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    let mut logs = Vec::new();
    let outcome = train::run(&plan, &whole, &Options::default(), &mut |event: &Event<'_>| match event {
        Event::Log(line) => logs.push(line.clone()),
        // what a process killed after this checkpoint would have left
        Event::Checkpoint { step: 8, .. } => copy_dir(&whole.join("checkpoints"), &stopped.join("checkpoints")),
        _ => {}
    })
    .unwrap();
    assert!(outcome.steps > 12, "{}", outcome.steps);
    let mut rest = Vec::new();
    let resumed =
        train::run(&then, &stopped, &Options { resume: true, ..Options::default() }, &mut |event: &Event<'_>| {
            if let Event::Log(line) = event {
                rest.push(line.clone());
            }
        })
        .unwrap();
    assert_eq!(rest.first().map(|l| l.step), Some(9), "it continued, and did not start over");
    for (a, b) in logs[8..].iter().zip(&rest) {
        assert_eq!((a.step, a.loss, a.learning_rate, a.grad_norm), (b.step, b.loss, b.learning_rate, b.grad_norm));
        assert_eq!(a.epoch, b.epoch);
    }
    assert_eq!(resumed.final_metrics, outcome.final_metrics);
    assert_eq!(resumed.baseline_metrics, outcome.baseline_metrics);
    let weights = |dir: &Path| {
        let (mut folders, mut all) = (vec![dir.join("model")], Vec::new());
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "safetensors") {
                    all.push((path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(path).unwrap()));
                }
            }
        }
        all.sort();
        assert!(!all.is_empty());
        all
    };
    assert!(weights(&whole) == weights(&stopped), "the weights differ");
    let last = train_checkpoint(&whole);
    let moments = |checkpoint: &Path| std::fs::read(checkpoint.join("optimizer.safetensors")).unwrap();
    assert!(moments(&last) == moments(&train_checkpoint(&stopped)), "the optimizers differ");
}

fn train_checkpoint(run_dir: &Path) -> std::path::PathBuf {
    let mut all: Vec<_> = std::fs::read_dir(run_dir.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort_by_key(|p| p.to_string_lossy().rsplit('-').next().unwrap().parse::<u64>().unwrap());
    all.pop().unwrap()
}

#[test]
fn the_best_checkpoint_is_kept_and_loaded() {
    let dir = tempfile::tempdir().unwrap();
    // far too high a rate from the middle on: the end is worse than the best
    let sets = ["args.learning_rate=0.02", "args.save_total_limit=2", "args.lr_scheduler_type=\"constant\""];
    let plan = plan(SMALL, &sets);
    let mut evaluations = Vec::new();
    let outcome =
        train::run(&plan, dir.path(), &Options { keep_base: true, ..Options::default() }, &mut |e: &Event<'_>| {
            if let Event::Evaluation { step, metrics, .. } = e {
                evaluations.push((*step, metrics.get("dev_cosine_ndcg@10").unwrap()));
            }
        })
        .unwrap();
    assert_eq!(evaluations[0].0, 0, "the baseline comes first");
    assert_eq!(outcome.baseline, Some(evaluations[0].1));
    let best = evaluations[1..].iter().fold((0, f64::MIN), |best, e| if e.1 > best.1 { *e } else { best });
    assert_eq!(outcome.best_step, Some(best.0));
    assert_eq!(outcome.score, Some(best.1));
    assert_eq!(outcome.metric.as_deref(), Some("eval_dev_cosine_ndcg@10"));
    let kept = std::fs::read_dir(dir.path().join("checkpoints")).unwrap().count();
    assert!(kept <= 2, "{kept} checkpoints");
    let checkpoint = dir.path().join(format!("checkpoints/checkpoint-{}", best.0));
    let read = |path: &Path| std::fs::read(path.join("model.safetensors")).unwrap();
    assert!(read(&checkpoint) == read(&outcome.model_dir), "the saved model is the best checkpoint's");
    let base = SentenceTransformer::load(outcome.base_model_dir.as_deref().unwrap()).unwrap();
    let before = SentenceTransformer::load(&project("tests/fixtures/tiny-bert")).unwrap();
    let options = EncodeOptions::default();
    assert_eq!(base.encode(&["a text"], &options).unwrap(), before.encode(&["a text"], &options).unwrap());
}

#[test]
fn patience_ends_a_run_early() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["args.learning_rate=1e-12", "args.eval_steps=2", "args.save_steps=2", "args.early_stopping_patience=3"];
    let (outcome, _) = run(&plan(SMALL, &sets), dir.path(), Options::default());
    let outcome = outcome.unwrap();
    assert!(outcome.stopped_early);
    // the first evaluation sets the mark, three more do not beat it
    assert_eq!(outcome.steps, 8);
}

#[test]
fn a_wrong_metric_is_refused_before_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(SMALL, &["args.metric_for_best_model=\"eval_dev_cosine_ndcg@7\""]);
    let (outcome, logs) = run(&plan, dir.path(), Options::default());
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("eval_dev_cosine_ndcg@7"), "{error}");
    assert!(error.hint().unwrap().contains("did you mean `eval_dev_cosine_ndcg@1"), "{:?}", error.hint());
    assert!(logs.is_empty());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
pub fn an_exploding_run_stops_and_names_its_rows() {
    let sets = ["args.learning_rate=1e30", "args.max_grad_norm=0.0", "args.lr_scheduler_type=\"constant\""];
    let scored = r#"
        [model]
        base = "tests/fixtures/tiny-bert"
        [train_dataset]
        path = "tests/golden/curves_scored.jsonl"
        [loss]
        name = "CoSENTLoss"
        [args]
        per_device_train_batch_size = 8
    "#;
    for (text, file) in [(SMALL, "curves_pairs"), (scored, "curves_scored")] {
        let dir = tempfile::tempdir().unwrap();
        let (outcome, _) = run(&plan(text, &sets), dir.path(), Options::default());
        let error = outcome.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("step ") && text.contains(&format!("{file}.jsonl` line ")), "{text}");
        assert!(error.hint().unwrap().contains("learning_rate"));
        assert!(!dir.path().join("model").exists());
    }
}

/// Checkpoints that a resumed run has loaded may be removed while it goes on; nothing of the model may be lost by that.
#[test]
fn a_run_resumed_twice_loses_no_file() {
    let plan =
        plan(SMALL, &["args.save_total_limit=1", "args.load_best_model_at_end=false", "args.eval_strategy=\"no\""]);
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let part = |step: u64| dir.path().join(format!("stopped-at-{step}"));
    let resume = Options { resume: true, ..Options::default() };
    train::run(&plan, &whole, &Options::default(), &mut |event: &Event<'_>| {
        if let Event::Checkpoint { step: 4, .. } = event {
            copy_dir(&whole.join("checkpoints"), &part(4).join("checkpoints"));
        }
    })
    .unwrap();
    train::run(&plan, &part(4), &resume, &mut |event: &Event<'_>| {
        if let Event::Checkpoint { step: 8, .. } = event {
            copy_dir(&part(4).join("checkpoints"), &part(8).join("checkpoints"));
        }
    })
    .unwrap();
    std::fs::create_dir_all(part(8).join("checkpoints/.checkpoint-9.tmp-1")).unwrap();
    train::run(&plan, &part(8), &resume, &mut |_: &Event<'_>| {}).unwrap();
    let left = std::fs::read_dir(part(8).join("checkpoints")).unwrap().count();
    assert_eq!(left, 1, "one checkpoint is kept, and nothing half-written");
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json", "modules.json"] {
        let read = |dir: &Path| std::fs::read(dir.join("model").join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(read(&whole) == read(&part(8)), "{file} differs");
    }
}

#[test]
pub fn evaluation_data_gives_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let text = SMALL.split("[[evaluator]]").next().unwrap().to_owned()
        + r#"
        [eval_dataset]
        path = "tests/golden/curves_pairs.jsonl"
        columns = ["anchor", "positive"]
        limit = 32
        [args]
        max_steps = 6
        per_device_train_batch_size = 8
        learning_rate = 2e-3
        "#;
    let (outcome, _) = run(&plan(&text, &[]), dir.path(), Options::default());
    let outcome = outcome.unwrap();
    assert_eq!(outcome.metric.as_deref(), Some("eval_loss"));
    assert!(!outcome.greater_is_better);
    assert!(outcome.score.unwrap() < outcome.baseline.unwrap(), "{:?} {:?}", outcome.score, outcome.baseline);
    // smaller batches have fewer negatives, in evaluation too
    let (bounded, _) = run(&plan(&text, &["args.max_tokens_per_batch=60"]), dir.path(), Options::default());
    assert!(bounded.unwrap().baseline.unwrap() < outcome.baseline.unwrap());
}

#[test]
pub fn a_smoke_test_measures_and_writes_nothing() {
    let plan = plan(SMALL, &[]);
    let report = train::smoke_test(&plan, &mut |_: &Event<'_>| {}).unwrap();
    assert_eq!(report.losses.len(), 2);
    assert!(report.losses.iter().all(|l| l.is_finite() && *l > 0.0));
    assert_eq!(report.gradient_coverage.trainable, 37);
    assert_eq!(report.gradient_coverage.with_gradient, 37, "{:?}", report.gradient_coverage.without_gradient);
    assert_eq!(report.train_rows, 100);
    assert!(report.estimated_seconds > 0.0 && report.estimated_peak_memory_bytes > 1 << 20);
    assert!(report.metrics.contains(&"eval_dev_cosine_ndcg@10".to_owned()));
    assert_eq!(report.evaluations, 6, "before training, at 4, 8, 12, 16 and at the end");
}

#[test]
pub fn a_static_embedding_is_trained_from_scratch() {
    let dir = tempfile::tempdir().unwrap();
    let text = SMALL
        .replace(
            "base = \"tests/fixtures/tiny-bert\"",
            "[model.static_embedding]\nembedding_dim = 32\ntokenizer = \"tests/fixtures/tiny-bert\"",
        )
        .replace(
            "name = \"MultipleNegativesRankingLoss\"",
            "name = \"MultipleNegativesRankingLoss\"\n[loss.matryoshka]\ndims = [32, 8]",
        );
    let (outcome, _) = run(&plan(&text, &["args.learning_rate=0.05"]), dir.path(), Options::default());
    let outcome = outcome.unwrap();
    assert!(outcome.score.unwrap() > outcome.baseline.unwrap() + 0.02, "{:?} {:?}", outcome.score, outcome.baseline);
    let model = SentenceTransformer::load(&outcome.model_dir).unwrap();
    assert_eq!(model.dimension(), 32);
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(SMALL, &[]);
    let (outcome, logs) = run(&plan, dir.path(), Options::default());
    let weights = std::fs::read(outcome.unwrap().model_dir.join("model.safetensors")).unwrap();
    let last = train_checkpoint(dir.path());
    let file = last.join("optimizer.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let mut warnings = Vec::new();
    let mut first = None;
    let resume = Options { resume: true, ..Options::default() };
    let outcome = train::run(&plan, dir.path(), &resume, &mut |event: &Event<'_>| match event {
        Event::Warning(text) => warnings.push((*text).to_owned()),
        Event::Log(line) => first = first.or(Some(line.step)),
        _ => {}
    })
    .unwrap();
    assert!(warnings.iter().any(|w| w.contains("optimizer.safetensors") && w.contains("is damaged")), "{warnings:?}");
    assert!(first.unwrap() > 1 && first.unwrap() <= logs.len() as u64, "it went on from the one before");
    assert!(std::fs::read(outcome.model_dir.join("model.safetensors")).unwrap() == weights);
}
