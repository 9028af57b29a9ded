//! Judgement before training: what `choose`, `inspect` and `recommend` answer, and that what is recommended runs.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};
use tallow::recipe::{self, Builtin, Plan};
use tallow::train::{self, Event, Options};

use crate::support::{project, shared};

/// Runs a verb in `dir` and reads its document.
fn tallow(dir: &Path, arguments: &[&str]) -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tallow")).args(arguments).arg("--json").current_dir(dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

/// Questions and passages of the bundled data.
fn pairs(name: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(project("examples/demo").join(name)).unwrap();
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        (row["question"].as_str().unwrap().to_owned(), row["passage"].as_str().unwrap().to_owned())
    };
    text.lines().map(row).collect()
}

/// Writes a data set of a shape, made of the bundled pairs: `train.jsonl` and `dev.jsonl`.
fn write(dir: &Path, shape: &str) {
    for (name, most) in [("train.jsonl", 96), ("dev.jsonl", 32)] {
        let pairs = pairs(name);
        let other = |i: usize| &pairs[(i + 7) % pairs.len()].1;
        let rows: Vec<Value> = (0..most)
            .map(|i| {
                let (question, passage) = &pairs[i];
                let score = f64::from(u8::try_from(i % 5).unwrap()) / 4.0;
                match shape {
                    "pairs" => json!({"question": question, "passage": passage}),
                    "binary" => json!({
                        "query": pairs[i / 4].0,
                        "passage": if i % 4 == 0 { &pairs[i / 4].1 } else { other(i) },
                        "label": u8::from(i % 4 == 0),
                    }),
                    "scored" => json!({"one": question, "two": passage, "similarity": score}),
                    "classes" => json!({"premise": question, "hypothesis": passage, "label": i % 3}),
                    "triplets" => json!({"anchor": question, "positive": passage, "negative": other(i)}),
                    "margins" => json!({"q": question, "p": passage, "n": other(i), "score": 1.0 + score}),
                    "listed" => json!({"q": question, "p": passage, "n": other(i), "scores": [2.0 + score, score]}),
                    "labelled" => json!({"text": question, "label": i % 4}),
                    "lists" => json!({"query": question, "docs": [passage, other(i)], "labels": [1, 0]}),
                    other => panic!("{other}"),
                }
            })
            .collect();
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(dir.join(name), text).unwrap();
    }
}

/// A JSON value as TOML has it on one line.
fn toml_of(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let pairs: Vec<String> =
                table.iter().map(|(key, value)| format!("\"{key}\" = {}", toml_of(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// The plan of recommended settings, as a recipe in `dir`.
fn plan(dir: &Path, settings: &Map<String, Value>, more: &[&str]) -> Plan {
    let sets = settings.iter().map(|(key, value)| format!("{key}={}", toml_of(value)));
    let sets: Vec<String> = sets.chain(more.iter().map(|set| (*set).to_owned())).collect();
    let loaded = recipe::parse(&dir.join("recipe.toml"), "", &sets).unwrap_or_else(|e| panic!("{e}\n{sets:#?}"));
    loaded.resolve(&Builtin).unwrap_or_else(|e| panic!("{e}\n{sets:#?}")).0
}

#[test]
fn what_is_recommended_resolves_and_passes_a_smoke_test() {
    let cases = [
        ("SentenceTransformer", "tiny-bert", "pairs", "MultipleNegativesRankingLoss", Some("eval_dev_cosine_ndcg@10")),
        ("SentenceTransformer", "tiny-bert", "scored", "CoSENTLoss", Some("eval_dev_spearman_cosine")),
        ("SentenceTransformer", "tiny-bert", "classes", "SoftmaxLoss", Some("eval_dev_accuracy")),
        (
            "SentenceTransformer",
            "tiny-bert",
            "triplets",
            "MultipleNegativesRankingLoss",
            Some("eval_dev_cosine_accuracy"),
        ),
        ("SentenceTransformer", "tiny-bert", "margins", "MarginMSELoss", Some("eval_dev_cosine_accuracy")),
        ("SentenceTransformer", "tiny-bert", "listed", "DistillKLDivLoss", Some("eval_dev_cosine_accuracy")),
        ("SentenceTransformer", "tiny-bert", "labelled", "BatchAllTripletLoss", Some("eval_loss")),
        (
            "SentenceTransformer",
            "tiny-static",
            "pairs",
            "MultipleNegativesRankingLoss",
            Some("eval_dev_cosine_ndcg@10"),
        ),
        ("CrossEncoder", "tiny-bert", "binary", "BinaryCrossEntropyLoss", Some("eval_dev_ndcg@10")),
        ("CrossEncoder", "tiny-bert", "pairs", "BinaryCrossEntropyLoss", None),
        ("CrossEncoder", "tiny-bert", "classes", "CrossEntropyLoss", Some("eval_dev_f1_macro")),
        ("CrossEncoder", "tiny-bert", "scored", "BinaryCrossEntropyLoss", Some("eval_dev_spearman")),
        ("CrossEncoder", "tiny-cross-encoder", "lists", "LambdaLoss", None),
        ("SparseEncoder", "tiny-splade", "pairs", "SparseMultipleNegativesRankingLoss", Some("eval_dev_dot_ndcg@10")),
        (
            "SparseEncoder",
            "tiny-splade",
            "triplets",
            "SparseMultipleNegativesRankingLoss",
            Some("eval_dev_dot_accuracy"),
        ),
        (
            "MultiVectorEncoder",
            "tiny-colbert",
            "pairs",
            "MultiVectorMultipleNegativesRankingLoss",
            Some("eval_dev_maxsim_ndcg@10"),
        ),
        ("MultiVectorEncoder", "tiny-colbert", "listed", "MultiVectorDistillKLDivLoss", Some("eval_dev_spearman")),
    ];
    for (model_type, base, shape, loss, metric) in cases {
        let what = format!("{model_type} {base} {shape}");
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), shape);
        let base = project("tests/fixtures").join(base);
        let mut arguments =
            vec!["recommend", "--model-type", model_type, "--data", "train.jsonl", "--eval", "dev.jsonl"];
        arguments.extend(["--base", base.to_str().unwrap()]);
        if shape == "scored" {
            arguments.extend(["--label", "similarity"]);
        }
        // the label of data to measure on is found by its name only
        if shape == "scored" {
            let text = std::fs::read_to_string(dir.path().join("dev.jsonl")).unwrap();
            std::fs::write(dir.path().join("dev.jsonl"), text.replace("similarity", "score")).unwrap();
        }
        let advice = tallow(dir.path(), &arguments);
        let settings = advice["settings"].as_object().unwrap();
        assert_eq!(settings["loss.name"], loss, "{what}");
        assert_eq!(settings.get("args.metric_for_best_model").and_then(Value::as_str), metric, "{what}: {advice:#}");
        let quick = ["args.num_train_epochs=1", "args.max_steps=2"];
        let plan = plan(dir.path(), settings, &quick);
        let report = train::smoke_test(&plan, &mut |_: &Event<'_>| {}).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(report.losses.iter().all(|loss| loss.is_finite()), "{what}: {:?}", report.losses);
        assert_eq!(report.metric.as_deref(), metric, "{what}");
    }
}

#[test]
fn a_run_logs_the_metric_that_was_named() {
    for (model_type, base, shape) in [
        ("SentenceTransformer", "tiny-bert", "pairs"),
        ("CrossEncoder", "tiny-bert", "classes"),
        ("SparseEncoder", "tiny-splade", "pairs"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), shape);
        let base = project("tests/fixtures").join(base);
        let advice = tallow(
            dir.path(),
            &[
                "recommend",
                "--model-type",
                model_type,
                "--data",
                "train.jsonl",
                "--eval",
                "dev.jsonl",
                "--base",
                base.to_str().unwrap(),
            ],
        );
        let plan = plan(dir.path(), advice["settings"].as_object().unwrap(), &["args.max_steps=2"]);
        let run_dir = tempfile::tempdir().unwrap();
        let outcome = train::run(&plan, run_dir.path(), &Options::default(), &mut |_: &Event<'_>| {}).unwrap();
        let named = advice["evaluator"]["metric"].as_str().unwrap();
        assert_eq!(outcome.metric.as_deref(), Some(named));
        assert!(outcome.final_metrics.get(named.trim_start_matches("eval_")).is_some(), "{named}");
    }
}

#[test]
fn answers_keep_their_shape() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "pairs");
    let mut rows = std::fs::read_to_string(dir.path().join("train.jsonl")).unwrap();
    rows += "{\"question\": \"\", \"passage\": \"no question\"}\n";
    rows += std::fs::read_to_string(dir.path().join("dev.jsonl")).unwrap().lines().next().unwrap();
    std::fs::write(dir.path().join("train.jsonl"), rows).unwrap();
    insta::assert_json_snapshot!("choose", tallow(dir.path(), &["choose", "A reranker, not an embedding model."]));
    insta::assert_json_snapshot!("choose_asks", tallow(dir.path(), &["choose", "Make our search better."]));
    let inspect = ["inspect", "train.jsonl", "--eval", "dev.jsonl", "--model-type", "SentenceTransformer"];
    let mut found = tallow(dir.path(), &inspect);
    assert!(found["seconds"].as_f64().is_some_and(|seconds| seconds < 60.0));
    found["seconds"] = Value::Null;
    insta::assert_json_snapshot!("inspect", found);
    let recommend =
        ["recommend", "--model-type", "SentenceTransformer", "--data", "train.jsonl", "--eval", "dev.jsonl"];
    let mut advice = tallow(dir.path(), &recommend);
    // how much memory is free differs
    let why = advice["why"].as_array_mut().unwrap();
    why.retain(|why| !why.as_str().unwrap().starts_with("batch "));
    insta::assert_json_snapshot!("recommend", advice);
}

#[test]
fn answers_are_short() {
    for shape in ["pairs", "binary", "scored", "classes", "triplets", "margins", "listed", "labelled", "lists"] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), shape);
        let found = tallow(dir.path(), &["inspect", "train.jsonl", "--eval", "dev.jsonl"]).to_string();
        assert!(found.len() < 8000, "{shape}: {} characters", found.len());
        for model_type in ["SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder"] {
            let arguments = ["recommend", "--model-type", model_type, "--data", "train.jsonl", "--eval", "dev.jsonl"];
            let output = Command::new(env!("CARGO_BIN_EXE_tallow"))
                .args(arguments)
                .arg("--json")
                .current_dir(dir.path())
                .output()
                .unwrap();
            // what no loss takes is refused with a way out
            // 3.2 characters a token, as a vocabulary of 131,000 for many languages has it: under 1,000 tokens
            assert!(output.stdout.len() < 3200, "{shape} {model_type}: {} characters", output.stdout.len());
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(answer.get("settings").is_some() || answer["error"]["hint"].is_string(), "{answer}");
        }
    }
}

#[test]
fn what_is_to_be_read_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = std::fs::read_to_string(project("references/catalogue.md")).unwrap();
    let headings: Vec<String> =
        catalogue.lines().filter_map(|line| Some(line.strip_prefix("## ")?.to_lowercase().replace(' ', "-"))).collect();
    for task in ["vector search", "a reranker", "SPLADE", "ColBERT"] {
        let choice = tallow(dir.path(), &["choose", task]);
        for path in choice["required_reading"].as_array().unwrap() {
            let (file, heading) = path.as_str().unwrap().split_once('#').unwrap_or((path.as_str().unwrap(), ""));
            assert!(project(file).is_file(), "{path}");
            assert!(heading.is_empty() || headings.iter().any(|known| known == heading), "{path}: {headings:?}");
        }
    }
}

#[test]
fn real_data_are_told_apart() {
    for (file, shape, first) in [
        ("pairs_squad/train.jsonl", "pairs", "MultipleNegativesRankingLoss"),
        ("stsb/train.jsonl", "scored_pairs", "CoSENTLoss"),
        ("nli_snli/dev.jsonl", "classified_pairs", "SoftmaxLoss"),
        ("nli_snli_triplets/train.jsonl", "triplets", "MultipleNegativesRankingLoss"),
        ("rerank_trecqa/train.jsonl", "binary_pairs", "OnlineContrastiveLoss"),
    ] {
        let Some(path) = shared(&format!("data/{file}")) else { return };
        let dir = tempfile::tempdir().unwrap();
        let found = tallow(dir.path(), &["inspect", path.to_str().unwrap(), "--model-type", "SentenceTransformer"]);
        assert_eq!(found["shape"], shape, "{file}");
        assert_eq!(found["losses"][0]["losses"][0], first, "{file}");
        assert_eq!(found["columns"][0]["languages"], json!(["en"]), "{file}");
    }
    let Some(path) = shared("data/banking77/train.jsonl") else { return };
    let found = tallow(Path::new("."), &["inspect", path.to_str().unwrap()]);
    assert_eq!((&found["shape"], &found["second_names"]), (&json!("classified_texts"), &json!(["label_name"])));
    let fixes = found["findings"].as_array().unwrap().iter().map(|finding| finding["fix"].as_str().unwrap());
    assert!(fixes.into_iter().any(|fix| fix.contains("columns = [\"text\"]")), "{:#}", found["findings"]);
}
