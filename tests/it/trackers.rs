//! Metrics go to trackers as well, and a tracker that is missing, crashes or hangs costs a warning and nothing else.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::project;

/// A folder with a recipe that trains the tiny model for four steps, and a program in Python's place.
fn place(python: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let rows = std::fs::read_to_string(project("tests/golden/curves_scored.jsonl")).unwrap();
    std::fs::write(dir.path().join("train.jsonl"), &rows).unwrap();
    let dev: Vec<&str> = rows.lines().take(20).collect();
    std::fs::write(dir.path().join("dev.jsonl"), dev.join("\n")).unwrap();
    let recipe = format!(
        "run_name = \"tiny\"\n[model]\nbase = {:?}\n[train_dataset]\npath = \"train.jsonl\"\n\
         columns = [\"sentence1\", \"sentence2\"]\nlabel = \"score\"\n[loss]\nname = \"CoSENTLoss\"\n\
         [[evaluator]]\ntype = \"EmbeddingSimilarityEvaluator\"\nname = \"dev\"\npath = \"dev.jsonl\"\n\
         [args]\nmax_steps = 4\nper_device_train_batch_size = 4\nlogging_steps = 1\n\
         report_to = [\"tensorboard\", \"wandb\"]\n",
        project("tests/fixtures/tiny-bert").display().to_string()
    );
    std::fs::write(dir.path().join("recipe.toml"), recipe).unwrap();
    let program = dir.path().join("python");
    std::fs::write(&program, format!("#!/bin/sh\n{python}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (dir, program)
}

/// Runs the recipe; the answer, and what was said beside it.
fn run(dir: &Path, python: &Path) -> (Value, String) {
    let tallow = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_tallow"))
            .args(arguments)
            .current_dir(dir)
            .env("TALLOW_PYTHON", python)
            .env("TALLOW_CACHE", dir.join("cache"))
            .env("XDG_CACHE_HOME", dir.join("cache"))
            .env("WANDB_API_KEY", "a-secret-of-mine")
            .env_remove("TENSORBOARD_LOGGING_DIR")
            .output()
            .unwrap()
    };
    assert!(tallow(&["smoke-test", "recipe.toml"]).status.success());
    let output = tallow(&["run", "recipe.toml", "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    // one document on stdout, whatever trackers print
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}")), said)
}

#[test]
fn metrics_arrive_by_the_trainers_names() {
    let (dir, python) = place("echo to stdout; cat > got.jsonl");
    let (ended, said) = run(dir.path(), &python);
    assert_eq!(ended["state"], "done", "{ended:#}");
    assert!(!said.contains("warning: nothing more"), "{said}");
    let got = std::fs::read_to_string(dir.path().join("got.jsonl")).unwrap();
    let lines: Vec<Value> = got.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let start = &lines[0]["start"];
    assert_eq!((&start["run_id"], &start["run_name"]), (&ended["run_id"], &"tiny".into()), "{start:#}");
    assert_eq!(start["config"]["args.max_steps"], 4, "{start:#}");
    assert_eq!(lines.last().unwrap()["finish"], "done");
    let steps: Vec<u64> = lines
        .iter()
        .filter(|line| line["log"]["metrics"]["loss"].is_f64())
        .map(|line| line["log"]["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 3, 4]);
    let baseline = lines.iter().find(|line| line["log"]["step"] == 0).unwrap();
    assert_eq!(baseline["log"]["metrics"]["eval_dev_spearman_cosine"], ended["baseline"]);
    assert!(!got.contains("a-secret-of-mine"));
    let events = Path::new(ended["run_dir"].as_str().unwrap()).join("tensorboard");
    let files: Vec<_> = std::fs::read_dir(events).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.len(), 1);
    assert!(files[0].file_name().to_string_lossy().contains("tfevents"));
    let bytes = std::fs::read(files[0].path()).unwrap();
    for name in ["train/loss", "train/learning_rate", "eval/dev_spearman_cosine", "args/text_summary"] {
        assert!(bytes.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
    }
}

#[test]
fn trackers_that_fail_cost_a_warning() {
    for (python, part) in [
        ("exit 3", "pip install wandb"),
        ("read line; echo \"no access with $WANDB_API_KEY\" >&2; exit 1", "no access with ***"),
        ("exec sleep 40", "left alone with it"),
    ] {
        let (dir, program) = place(python);
        let begun = Instant::now();
        let (ended, said) = run(dir.path(), &program);
        assert_eq!((&ended["state"], &ended["steps"]), (&"done".into(), &4.into()), "{python}: {ended:#}");
        assert_eq!(said.matches("warning: ").count(), 1, "{python}: {said}");
        assert!(said.contains(part) && !said.contains("a-secret-of-mine"), "{python}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(35), "{python}: {:?}", begun.elapsed());
        let log = std::fs::read_to_string(dir.path().join("logs/tiny.log")).unwrap();
        assert!(log.contains(part) && !log.contains("a-secret-of-mine"), "{python}: {log}");
        assert!(log.lines().last().unwrap().contains("VERDICT: "), "{python}: {log}");
    }
    let (dir, _) = place("");
    let (ended, said) = run(dir.path(), Path::new("/nonexistent/python"));
    assert!(ended["state"] == "done" && said.contains("set `TALLOW_PYTHON`"), "{said}");
}
