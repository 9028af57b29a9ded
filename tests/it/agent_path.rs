//! An agent's way from a task in words to a verdict, by commands and their JSON alone, on real data of three shapes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{project, shared};

/// The JSON answer of a command that has to succeed.
fn ask(dir: &Path, arguments: &[&str]) -> Value {
    let out = Command::new(env!("CARGO_BIN_EXE_tallow"))
        .args(arguments)
        .arg("--json")
        .current_dir(dir)
        .env("TALLOW_CACHE_DIR", dir.join("cache"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"))
}

/// The first rows of a file, as files of their own have them.
fn some(from: &Path, to: &Path, rows: usize) {
    let text = std::fs::read_to_string(from).unwrap();
    let kept: Vec<&str> = text.lines().take(rows).collect();
    std::fs::write(to, kept.join("\n") + "\n").unwrap();
}

#[test]
fn from_a_task_in_words_to_a_verdict() {
    let base = project("tests/fixtures/tiny-bert").display().to_string();
    for (task, train, eval, loss) in [
        (
            "An embedding model that finds the passage which answers a question",
            "data/pairs_squad/train.jsonl",
            "data/xquad/en",
            "MultipleNegativesRankingLoss",
        ),
        ("Score how similar two sentences are", "data/stsb/train.jsonl", "data/stsb/dev.jsonl", "CoSENTLoss"),
        (
            "Rerank the hits of our search engine",
            "data/rerank_selqa/train.jsonl",
            "data/rerank_selqa/test.jsonl",
            "BinaryCrossEntropyLoss",
        ),
    ] {
        let (Some(train), Some(eval)) = (shared(train), shared(eval)) else { return };
        let dir = tempfile::tempdir().unwrap();
        some(&train, &dir.path().join("train.jsonl"), 400);
        let eval = if eval.is_dir() {
            eval.display().to_string()
        } else {
            some(&eval, &dir.path().join("dev.jsonl"), 100);
            "dev.jsonl".to_owned()
        };
        let ask = |arguments: &[&str]| ask(dir.path(), arguments);

        let chosen = ask(&["choose", task]);
        let model_type = chosen["model_type"].as_str().unwrap_or_else(|| panic!("{task}: {chosen}"));
        for page in chosen["required_reading"].as_array().unwrap() {
            let file = page.as_str().unwrap().split('#').next().unwrap();
            assert!(project(file).is_file(), "{task}: {page}");
        }
        let seen = ask(&["inspect", "train.jsonl", "--eval", &eval, "--model-type", model_type]);
        assert!(seen["rows"].as_u64() == Some(400), "{seen}");
        let given = ["--model-type", model_type, "--data", "train.jsonl", "--eval", &eval, "--base", &base];
        let advice = ask(&[&["recommend"][..], &given].concat());
        assert_eq!(advice["losses"][0]["name"], loss, "{task}: {advice}");
        std::fs::write(dir.path().join("advice.json"), advice.to_string()).unwrap();
        let written = ask(&[&["render"][..], &given, &["--from", "advice.json", "-o", "run.toml"]].concat());
        assert_eq!(written["losses"][0], loss, "{task}: {written}");
        assert_eq!(ask(&["check", "run.toml"])["ok"], true, "{task}");
        let tested = ask(&["smoke-test", "run.toml", "--set", "args.max_steps=4"]);
        assert_eq!(tested["ok"], true, "{task}: {tested}");
        let done = ask(&["run", "run.toml", "--set", "args.max_steps=4"]);
        assert_eq!(done["state"], "done", "{task}: {done}");
        // the metric that was advised is the one that was measured
        assert_eq!(done["metric"], advice["evaluator"]["metric"], "{task}: {done}");
        assert!(done["score"].is_f64() && done["baseline"].is_f64(), "{task}: {done}");
        let log = std::fs::read_to_string(dir.path().join("logs/experiments.md")).unwrap();
        assert!(log.contains(loss), "{task}: {log}");
    }
}
