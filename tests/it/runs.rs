//! Whole runs through the program: verdict, files, log, detached, cancelled, resumed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::project;

pub struct Work {
    dir: tempfile::TempDir,
    /// Where what is kept between commands lies.
    pub cache: PathBuf,
}

impl Work {
    /// A folder with a recipe that trains the tiny model for `steps` steps.
    pub fn new(steps: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rows = std::fs::read_to_string(project("tests/golden/curves_scored.jsonl")).unwrap();
        std::fs::write(dir.path().join("train.jsonl"), &rows).unwrap();
        let dev: Vec<&str> = rows.lines().take(20).collect();
        std::fs::write(dir.path().join("dev.jsonl"), dev.join("\n")).unwrap();
        let recipe = format!(
            "run_name = \"tiny\"\n[model]\nbase = {:?}\n[[train_dataset]]\npath = \"train.jsonl\"\n\
             columns = [\"sentence1\", \"sentence2\"]\nlabel = \"score\"\n[loss]\nname = \"CoSENTLoss\"\n\
             [[evaluator]]\ntype = \"EmbeddingSimilarityEvaluator\"\nname = \"dev\"\npath = \"dev.jsonl\"\n\
             [args]\nmax_steps = {steps}\nper_device_train_batch_size = 4\nlogging_steps = 1\n",
            project("tests/fixtures/tiny-bert").display().to_string()
        );
        std::fs::write(dir.path().join("recipe.toml"), recipe).unwrap();
        let cache = dir.path().join("cache");
        Self { dir, cache }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallow"));
        command.args(arguments).current_dir(self.dir.path()).env("TALLOW_CACHE_DIR", &self.cache);
        command.env_remove("TALLOW_MAX_RUNS");
        command
    }

    pub fn tallow(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.tallow(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!("{arguments:?}: {e}: {}", String::from_utf8_lossy(&output.stderr));
        })
    }

    /// The steps of the training lines.
    pub fn steps(&self, run: &Value) -> Vec<u64> {
        let text = self.text(Path::new(run["run_dir"].as_str().unwrap()).join("metrics.jsonl"));
        let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        lines.filter(|l| l.get("loss").is_some()).map(|l| l["step"].as_u64().unwrap()).collect()
    }

    /// Follows the run until `enough` is true of its status.
    pub fn follow(&self, id: &str, enough: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.json(&["status", id]);
            if enough(&status) {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{status:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_run_ends_with_a_verdict_and_leaves_its_records() {
    let work = Work::new(4);
    let output = work.tallow(&["run", "recipe.toml", "--force"]);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stderr}");
    let last = stdout.lines().last().unwrap();
    assert!(last.starts_with("VERDICT: ") && last.contains(" | score=") && last.contains(" | delta="), "{stdout}");
    let log = work.text("logs/tiny.log");
    assert!(log.lines().last().unwrap().ends_with(last), "{log}");
    assert!(log.contains("step 4/4") && stderr.contains("step 4/4"), "{stderr}");
    let experiments = work.text("logs/experiments.md");
    assert!(experiments.contains("tiny-") && experiments.contains("CoSENTLoss"), "{experiments}");
    let rows = work.text("train.jsonl").lines().count();
    assert!(experiments.contains(&format!(" ({rows}) | CoSENTLoss")), "{experiments}");

    let status = work.json(&["status"]);
    assert_eq!((status["state"].as_str(), status["step"].as_u64()), (Some("done"), Some(4)));
    assert_eq!(work.steps(&status), [1, 2, 3, 4]);
    let run = Path::new(status["run_dir"].as_str().unwrap()).to_path_buf();
    for file in ["plan.toml", "recipe.toml", "status.json", "outcome.json", "model/README.md", "model/modules.json"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let card = work.text(run.join("model/README.md"));
    assert!(card.contains("loss:CoSENTLoss") && card.contains("spearman_cosine"), "{card}");

    let model = run.join("model").display().to_string();
    let arguments =
        ["evaluate", &model, "--evaluator", "EmbeddingSimilarityEvaluator", "--path", "dev.jsonl", "--name", "dev"];
    let evaluated = work.json(&arguments);
    let again = evaluated["metrics"]["dev_spearman_cosine"].as_f64().unwrap();
    assert!((again - status["score"].as_f64().unwrap()).abs() < 1e-9, "{evaluated:#} {status:#}");

    let named = ["--columns", "sentence2,sentence1", "--label", "score"];
    let swapped = work.json(&[arguments.as_slice(), &named].concat());
    let swapped = swapped["metrics"]["dev_spearman_cosine"].as_f64().unwrap();
    assert!((swapped - again).abs() < 1e-6, "{swapped} {again}");
    let wrong = work.json(&[arguments.as_slice(), &["--columns", "sentence1,sentence9"]].concat());
    assert!(wrong["error"]["message"].as_str().unwrap().contains("`sentence9`"), "{wrong}");

    std::fs::write(work.path("lines.txt"), "a cat\n\na dog\n").unwrap();
    std::fs::write(work.path("rows.csv"), "id,text\n1,a cat\n2,\"a dog, too\"\n").unwrap();
    for (file, rows) in [("lines.txt", 3), ("rows.csv", 2)] {
        let encoded = work.json(&["encode", &model, "--input", file, "--output", "e.npy"]);
        assert_eq!(encoded["rows"], rows, "{file}: {encoded:#}");
    }
    let found = work.json(&["search", &model, "--corpus", "lines.txt", "--query", "a dog"]);
    let hits = found["queries"][0]["hits"].as_array().unwrap();
    assert_eq!((hits.len(), hits[0]["index"].as_u64(), hits[0]["text"].as_str()), (2, Some(2), Some("a dog")));

    let error = work.json(&["run", "--resume", status["run_id"].as_str().unwrap()]);
    assert!(error["error"]["message"].as_str().unwrap().contains("is done"), "{error}");
}

#[test]
fn json_has_the_pinned_keys() {
    let work = Work::new(2);
    let document = work.json(&["run", "recipe.toml", "--force", "--set", "args.max_steps=1"]);
    for key in [
        "run_id",
        "run_dir",
        "model_dir",
        "model_type",
        "steps",
        "verdict",
        "score",
        "baseline",
        "delta",
        "metric",
        "seconds",
        "peak_memory_bytes",
    ] {
        assert!(document.get(key).is_some_and(|v| !v.is_null()), "{key} is missing: {document:#}");
    }
    assert_eq!(document["steps"], 1);
    assert_eq!(document["metric"], "eval_dev_spearman_cosine");
    let without = work.json(&["run", "recipe.toml", "--force", "--set", "args.max_steps=1", "--set", "evaluator=[]"]);
    assert_eq!(without["verdict"], "NONE", "{without:#}");
}

#[test]
fn a_smoke_test_writes_nothing() {
    let work = Work::new(50);
    let report = work.json(&["smoke-test", "recipe.toml"]);
    assert_eq!(
        (report["ok"].as_bool(), report["report"]["total_steps"].as_u64()),
        (Some(true), Some(50)),
        "{report:#}"
    );
    assert!(!work.path("runs").exists() && !work.path("logs").exists());
}

#[test]
#[cfg(unix)]
fn a_detached_run_is_cancelled_and_resumed() {
    let work = Work::new(100_000);
    let started = work.json(&["run", "recipe.toml", "--force", "--detach"]);
    let id = started["run_id"].as_str().unwrap();
    assert_eq!(started["state"], "running", "{started:#}");
    work.follow(id, |s| s["step"].as_u64().unwrap() >= 3 || s["state"] != "running");
    let error = work.json(&["run", "--resume", id]);
    assert!(error["error"]["message"].as_str().unwrap().contains("still running"), "{error}");

    let cancelled = work.json(&["cancel", id]);
    assert_eq!(cancelled["state"], "cancelled", "{cancelled:#}");
    let status = work.json(&["status", id]);
    assert_eq!(status["exit_code"], 130, "{status:#}");
    assert!(work.text("logs/experiments.md").contains("CANCELLED"));
    let stopped_at = status["step"].as_u64().unwrap();

    let resumed = work.json(&["run", "recipe.toml", "--resume", "--detach"]);
    assert_eq!(resumed["run_id"], id, "{resumed:#}");
    let status = work.follow(id, |s| s["step"].as_u64().unwrap() > stopped_at + 2 || s["state"] != "running");
    assert_eq!(status["state"], "running", "{status:#}");
    let steps = work.steps(&status);
    assert!(steps.windows(2).all(|w| w[1] == w[0] + 1), "steps are missing or double: {steps:?}");

    let pid = libc::pid_t::try_from(status["pid"].as_i64().unwrap()).unwrap();
    // SAFETY: a plain system call on a process this test started.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    let killed = work.follow(id, |s| s["state"] != "running");
    assert_eq!(killed["state"], "failed");
    assert!(killed["hint"].as_str().unwrap().contains("--resume"), "{killed:#}");

    work.json(&["run", "--resume", id, "--detach"]);
    assert_eq!(work.json(&["cancel", id])["state"], "cancelled");
    let experiments = work.text("logs/experiments.md");
    assert_eq!(experiments.matches(&format!("| {id} |")).count(), 1, "{experiments}");
}

/// Killed before its first checkpoint, a run starts again, says so, and its metrics hold each step once.
#[test]
#[cfg(unix)]
fn a_run_without_a_checkpoint_starts_again() {
    let work = Work::new(1500);
    let recipe = work.text("recipe.toml") + "save_strategy = \"no\"\n";
    std::fs::write(work.path("recipe.toml"), recipe).unwrap();
    let started = work.json(&["run", "recipe.toml", "--force", "--detach"]);
    let id = started["run_id"].as_str().unwrap();
    let status = work.follow(id, |s| s["step"].as_u64().unwrap() >= 20 || s["state"] != "running");
    assert_eq!(status["state"], "running", "it ended before it could be killed: {status:#}");
    let pid = libc::pid_t::try_from(status["pid"].as_i64().unwrap()).unwrap();
    // SAFETY: a plain system call on a process this test started.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    work.follow(id, |s| s["state"] != "running");

    let output = work.tallow(&["run", "--resume", id]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("no checkpoint: it starts again from step 0"), "{stderr}");
    let status = work.json(&["status", id]);
    assert!(work.steps(&status).iter().copied().eq(1..=1500), "steps are missing or double");
    let metrics = work.text(Path::new(status["run_dir"].as_str().unwrap()).join("metrics.jsonl"));
    let baselines = metrics.lines().filter(|l| serde_json::from_str::<Value>(l).unwrap()["step"] == 0).count();
    assert_eq!(baselines, 1, "{metrics}");
}

#[test]
fn what_cannot_start_leaves_no_run() {
    let work = Work::new(2);
    let output = work.tallow(&[
        "run",
        "recipe.toml",
        "--force",
        "--set",
        "train_dataset.0.columns=[\"sentence1\", \"sentence9\"]",
    ]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("sentence9"), "{stderr}");
    assert!(!work.path("runs").exists() && !work.path("logs").exists(), "{stderr}");

    std::fs::create_dir_all(work.path("runs")).unwrap();
    std::fs::create_dir_all(work.path("logs")).unwrap();
    std::fs::write(work.path("logs/tiny.log"), "earlier\n").unwrap();
    work.tallow(&["run", "recipe.toml", "--force", "--set", "train_dataset.0.columns=[\"sentence1\", \"sentence9\"]"]);
    assert_eq!(std::fs::read_dir(work.path("runs")).unwrap().count(), 0);
    assert!(work.text("logs/tiny.log").starts_with("earlier\n"));
    assert!(!work.path("logs/experiments.md").exists());
}

/// Killed in the middle and resumed from another directory, a run ends at the weights of one that was left alone.
#[test]
#[cfg(unix)]
fn a_killed_run_ends_at_the_same_bits() {
    let work = Work::new(1500);
    let recipe = work.text("recipe.toml") + "save_steps = 50\nsave_strategy = \"steps\"\nsave_total_limit = 2\n";
    std::fs::write(work.path("recipe.toml"), recipe).unwrap();
    let whole = work.json(&["run", "recipe.toml", "--force"]);
    let started = work.json(&["run", "recipe.toml", "--force", "--detach"]);
    let id = started["run_id"].as_str().unwrap();
    assert_ne!(whole["run_id"], started["run_id"]);
    let status = work.follow(id, |s| s["step"].as_u64().unwrap() >= 50 || s["state"] != "running");
    assert_eq!(status["state"], "running", "it ended before it could be killed: {status:#}");
    let pid = libc::pid_t::try_from(status["pid"].as_i64().unwrap()).unwrap();
    // SAFETY: a plain system call on a process this test started.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    let killed = work.follow(id, |s| s["state"] != "running");
    assert!(killed["step"].as_u64().unwrap() < 1500, "{killed:#}");

    let elsewhere = tempfile::tempdir().unwrap();
    let run_dir = work.path("runs").join(id);
    let output = Command::new(env!("CARGO_BIN_EXE_tallow"))
        .args(["run", "--resume", run_dir.to_str().unwrap(), "--json"])
        .current_dir(elsewhere.path())
        .env("TALLOW_CACHE_DIR", &work.cache)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {stderr}", String::from_utf8_lossy(&output.stdout));
    assert!(stderr.contains("continuing after step"), "{stderr}");
    let weights = |dir: &Path| std::fs::read(dir.join("model/model.safetensors")).unwrap();
    let left_alone = work.path("runs").join(whole["run_id"].as_str().unwrap());
    assert!(weights(&run_dir) == weights(&left_alone), "the weights differ");
    let resumed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(resumed["score"], whole["score"]);
}

#[test]
fn a_log_that_cannot_be_written_stops_a_run_before_it_begins() {
    let work = Work::new(2);
    std::fs::write(work.path("logs"), "a file").unwrap();
    let error = work.json(&["run", "recipe.toml", "--force"]);
    assert!(error["error"]["message"].as_str().unwrap().contains("logs"), "{error:#}");
    assert!(error["error"]["hint"].is_string(), "{error:#}");
    assert!(!work.path("runs").exists());
}

/// A start that comes to nothing leaves no run behind that seems to run.
#[test]
fn a_detached_start_that_fails_is_told_and_written_down() {
    let work = Work::new(2);
    std::fs::write(work.path("logs"), "a file").unwrap();
    let error = work.json(&["run", "recipe.toml", "--force", "--detach", "--key", "once"]);
    assert!(error["error"]["message"].as_str().unwrap().contains("logs"), "{error:#}");
    let runs = work.json(&["runs"]);
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "{runs:#}");
    assert_eq!(runs["runs"][0]["state"], "failed", "{runs:#}");
    let again = work.json(&["run", "recipe.toml", "--force", "--detach", "--key", "once"]);
    assert_eq!((&again["state"], &again["started"]), (&"failed".into(), &false.into()), "{again:#}");
}
