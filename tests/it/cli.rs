//! The program from outside: help, bad input, exit codes, JSON.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::project;

struct Tallow {
    dir: tempfile::TempDir,
}

impl Tallow {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tallow")).args(arguments).current_dir(self.dir.path()).output().unwrap()
    }

    /// The error's first line and hint, after checking that stdout stayed empty.
    fn error(&self, arguments: &[&str], code: i32) -> (String, String) {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
        let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
        assert!(message.starts_with("error: "), "{text}");
        (message.to_owned(), hint.to_owned())
    }

    fn json_error(&self, arguments: &[&str], code: i32) -> Value {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(document["error"]["message"].is_string(), "{document}");
        document
    }

    fn left_behind(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn help_reads_well() {
    let output = Tallow::new().run(&["--help"]);
    assert!(output.status.success());
    insta::assert_snapshot!(stdout(&output));
}

#[test]
fn every_verb_has_help() {
    let tallow = Tallow::new();
    for verb in [
        "demo",
        "smoke-test",
        "run",
        "runs",
        "status",
        "cancel",
        "encode",
        "evaluate",
        "search",
        "paraphrase-mining",
        "cluster",
        "mcp",
    ] {
        let output = tallow.run(&[verb, "--help"]);
        let text = stdout(&output);
        assert!(output.status.success() && text.contains("Usage: tallow") && text.contains("--json"), "{verb}: {text}");
    }
    let run = stdout(&tallow.run(&["run", "--help"]));
    assert!(run.contains("--resume [<RUN>]") && run.contains("--detach") && !run.contains("prepared"), "{run}");
}

#[test]
fn a_mistyped_verb_is_recognised() {
    let (message, hint) = Tallow::new().error(&["rum", "recipe.toml"], 2);
    assert!(message.contains("`rum`") && hint.contains("`run`"), "{message} {hint}");
    let (message, _) = Tallow::new().error(&[], 2);
    assert!(message.contains("no command"), "{message}");
}

#[test]
fn a_missing_recipe_leaves_nothing_behind() {
    let tallow = Tallow::new();
    for verb in ["run", "smoke-test"] {
        let (message, hint) = tallow.error(&[verb, "missing.toml"], 1);
        assert!(message.contains("`missing.toml`") && !hint.is_empty(), "{message} {hint}");
    }
    tallow.error(&["run"], 2);
    assert!(tallow.left_behind().is_empty(), "{:?}", tallow.left_behind());
}

#[test]
fn a_typo_in_a_recipe_is_named_with_its_line() {
    let tallow = Tallow::new();
    tallow.file("recipe.toml", "run_name = \"a\"\n[args]\nlearning_rat = 2e-5\n");
    let (message, _) = tallow.error(&["run", "recipe.toml"], 2);
    for part in ["recipe.toml", "3", "learning_rat", "learning_rate"] {
        let output = tallow.run(&["run", "recipe.toml"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(part), "{part} is missing in {message}");
    }
    assert_eq!(tallow.left_behind(), ["recipe.toml"]);
}

#[test]
fn errors_are_documents_too() {
    let tallow = Tallow::new();
    let error = tallow.json_error(&["run", "missing.toml", "--json"], 1);
    assert_eq!(error["error"]["kind"], "failed");
    assert!(error["error"]["hint"].is_string());
    let error = tallow.json_error(&["--json", "rum"], 2);
    assert_eq!(error["error"]["kind"], "usage");
    let error = tallow.json_error(&["status", "--json"], 2);
    assert!(error["error"]["message"].as_str().unwrap().contains("no runs"));
}

#[test]
fn models_and_data_that_are_not_there() {
    let tallow = Tallow::new();
    tallow.file("texts.txt", "one\ntwo\n");
    std::fs::create_dir(tallow.dir.path().join("empty")).unwrap();
    let encode = |model: &str, input: &str, output: &str, code| {
        tallow.error(&["encode", model, "--input", input, "--output", output], code)
    };
    assert!(encode("nowhere", "texts.txt", "e.npy", 2).0.contains("no model at `nowhere`"));
    assert!(encode("nowhere", "missing.txt", "e.npy", 1).0.contains("`missing.txt`"));
    assert!(encode("nowhere", "texts.txt", "e.bin", 2).1.contains(".npy"));
    encode("empty", "texts.txt", "e.npy", 1);
    let (message, hint) =
        tallow.error(&["evaluate", "empty", "--evaluator", "TripletEvaluater", "--path", "texts.txt"], 2);
    assert!(message.contains("TripletEvaluater") && hint.contains("`TripletEvaluator`"), "{message} {hint}");
    let (message, _) = tallow.error(&["search", "nowhere", "--corpus", "texts.txt", "--query", " "], 2);
    assert!(message.contains("query is empty"), "{message}");
    assert_eq!(tallow.left_behind(), ["empty", "texts.txt"]);
}

#[test]
fn a_model_of_token_vectors_has_evaluators_of_its_own() {
    let tallow = Tallow::new();
    tallow.file("rows.jsonl", "{\"anchor\": \"the map\", \"positive\": \"a map\", \"negative\": \"bees\"}\n");
    let model = project("tests/fixtures/tiny-colbert").display().to_string();
    let evaluate =
        |name| ["evaluate", &model, "--evaluator", name, "--path", "rows.jsonl", "--json"].map(str::to_owned);
    let dense = evaluate("TripletEvaluator");
    let error = tallow.json_error(&dense.each_ref().map(String::as_str), 2);
    let (message, hint) = (error["error"]["message"].as_str().unwrap(), error["error"]["hint"].as_str().unwrap());
    assert!(message.contains("TripletEvaluator") && hint.contains("`MultiVectorTripletEvaluator`"), "{message} {hint}");
    let output = tallow.run(&evaluate("MultiVectorTripletEvaluator").each_ref().map(String::as_str));
    assert!(stdout(&output).contains("\"maxsim_accuracy\":"), "{}", stdout(&output));
}

#[test]
fn unknown_runs_are_refused() {
    let tallow = Tallow::new();
    let (message, hint) = tallow.error(&["status"], 2);
    assert!(message.contains("no runs") && hint.contains("tallow run"), "{message} {hint}");
    let (message, _) = tallow.error(&["cancel", "a-2026"], 2);
    assert!(message.contains("`a-2026`"), "{message}");
    let (message, _) = tallow.error(&["run", "--resume", "a-2026"], 2);
    assert!(message.contains("`a-2026`"), "{message}");
    let (_, hint) = tallow.error(&["run", "--resume"], 2);
    assert!(hint.contains("--resume RUN"), "{hint}");
}

/// A killed process is told from a running one, and the way on is shown.
#[test]
#[cfg(target_os = "linux")]
fn a_killed_run_is_seen_as_failed() {
    let tallow = Tallow::new();
    let run = tallow.dir.path().join("runs/a-20260101-000000");
    std::fs::create_dir_all(&run).unwrap();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let place = format!(
        "{} {}",
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim(),
        std::fs::read_link("/proc/self/ns/pid").unwrap().display()
    );
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let ticks: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    let status = serde_json::json!({
        "run_id": "a-20260101-000000", "run_name": "a", "state": "running",
        "process": {"pid": child.id(), "started_ticks": ticks, "place": place},
        "started": "2026-01-01T00:00:00Z", "heartbeat": "2026-01-01T00:00:00Z", "phase": "train",
        "step": 7, "total_steps": 20, "epoch": 0.5, "seconds": 3.0, "seconds_per_step": 0.5, "metrics": {"loss": 1.5},
        "message": null, "hint": null, "exit_code": null,
    });
    std::fs::write(Path::new(&run).join("status.json"), status.to_string()).unwrap();
    std::fs::write(Path::new(&run).join("plan.toml"), "").unwrap();
    let state = || -> Value { serde_json::from_slice(&tallow.run(&["status", "--json"]).stdout).unwrap() };
    assert_eq!(state()["state"], "running");
    child.kill().unwrap();
    child.wait().unwrap();
    let after = state();
    assert_eq!((after["state"].as_str(), after["step"].as_u64()), (Some("failed"), Some(7)));
    assert!(after["hint"].as_str().unwrap().contains("tallow run --resume a-20260101-000000"), "{after}");
}
