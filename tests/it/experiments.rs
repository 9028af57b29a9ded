//! What was tried and what came of it: entries of real runs and of a script's log, comparisons, and proposals that run.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::project;

struct Work {
    dir: tempfile::TempDir,
}

impl Work {
    /// A folder with a recipe that trains the tiny model on pairs for `steps` steps.
    fn new(steps: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rows = std::fs::read_to_string(project("tests/golden/curves_scored.jsonl")).unwrap();
        std::fs::write(dir.path().join("train.jsonl"), &rows).unwrap();
        let dev: Vec<&str> = rows.lines().take(20).collect();
        std::fs::write(dir.path().join("dev.jsonl"), dev.join("\n")).unwrap();
        let recipe = format!(
            "# as people write it\nrun_name = \"tiny\"\n[model]\nbase = {:?}\n[[train_dataset]]\npath = \"train.jsonl\"\n\
             columns = [\"sentence1\", \"sentence2\"]\nlabel = \"score\"\n[loss]\nname = \"CoSENTLoss\"\n\
             [[evaluator]]\ntype = \"EmbeddingSimilarityEvaluator\"\nname = \"dev\"\npath = \"dev.jsonl\"\n\
             [args]\nmax_steps = {steps}\nper_device_train_batch_size = 4\nlogging_steps = 1\nlearning_rate = 1e-4\n",
            project("tests/fixtures/tiny-bert").display().to_string()
        );
        std::fs::write(dir.path().join("recipe.toml"), recipe).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallow"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("TALLOW_CACHE", self.path("cache"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("HF_HUB_OFFLINE", "1");
        command
    }

    fn tallow(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.tallow(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Looks before it runs, and returns how the run ended.
    fn run(&self, arguments: &[&str]) -> Value {
        let tested = self.json(&[&["smoke-test"], arguments].concat());
        assert_eq!(tested["ok"], true, "{tested:#}");
        let ended = self.json(&[&["run"], arguments].concat());
        assert_eq!(ended["state"], "done", "{ended:#}");
        ended
    }

    fn entries(&self) -> Vec<Value> {
        let text = self.text("logs/experiments.jsonl");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn follow(&self, id: &str, enough: impl Fn(&Value) -> bool) -> Value {
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

fn id(run: &Value) -> &str {
    run["run_id"].as_str().unwrap()
}

#[test]
fn runs_are_entered_compared_and_gone_on_from() {
    let work = Work::new(4);
    let first = work.run(&["recipe.toml"]);
    let second = work.run(&["recipe.toml", "--set", "args.learning_rate=1e-3"]);

    // two entries, for programs and for people
    let entries = work.entries();
    let ids: Vec<&str> = entries.iter().map(id).collect();
    assert_eq!(ids, [id(&first), id(&second)]);
    assert_eq!(entries[1]["plan"]["args.learning_rate"], 1e-3, "{:#}", entries[1]);
    assert_eq!((&entries[1]["score"], &entries[1]["steps"]), (&second["score"], &4.into()));
    let tried = format!("`args.learning_rate` 1e-4 -> 0.001; otherwise no other than `{}`", id(&first));
    assert_eq!(entries[1]["tried"], tried.as_str());
    let page = work.text("logs/experiments.md");
    for run in [&first, &second] {
        assert_eq!(page.matches(&format!("| {} |", id(run))).count(), 1, "{page}");
        assert_eq!(page.matches(&format!("## {}\n", id(run))).count(), 1, "{page}");
    }
    assert!(page.contains(&format!("- tried: {tried}")) && page.contains("- learned: "), "{page}");

    let listed = work.json(&["experiments"]);
    assert_eq!((listed["total"].as_u64(), &listed["experiments"][0]["run_id"]), (Some(2), &second["run_id"]));
    assert_eq!(work.json(&["experiments", "--metric", "eval_other"])["total"], 0);
    assert_eq!(work.json(&["experiments", "--metric", "dev_spearman_cosine"])["total"], 2);

    let compared = work.json(&["experiments", "compare", id(&first), id(&second)]);
    let found = &compared["comparison"];
    assert_eq!(found["differences"].as_array().unwrap().len(), 1, "{found:#}");
    assert_eq!(found["differences"][0]["key"], "args.learning_rate");
    let gain = second["score"].as_f64().unwrap() - first["score"].as_f64().unwrap();
    assert!((found["gain"].as_f64().unwrap() - gain).abs() < 1e-8, "{found:#}");
    assert!(found["within_noise"].is_boolean() && found["noise"].as_f64().unwrap() >= 0.005);

    // a note stays where it is, and with a run that is entered again
    let note = ["log", id(&first), "--note", "by hand", "--learned", "nothing yet"];
    assert_eq!(work.json(&note)["learned"], "nothing yet");
    assert_eq!(work.json(&["log", id(&first)])["renewed"], true);
    let entries = work.entries();
    assert_eq!((id(&entries[0]), &entries[0]["notes"][0]), (id(&first), &"by hand".into()));
    assert!(work.text("logs/experiments.md").contains("- learned: nothing yet\n"));

    // an answer is short enough for an agent
    let proposed = work.json(&["experiments", "propose", id(&second), "--further", "-o", "next/next.toml"]);
    assert!(proposed.to_string().len() < 8000, "{} characters", proposed.to_string().len());
    let proposal = &proposed["proposed"]["proposal"];
    // the held-out rows are training rows: that comes first, and no key mends it
    assert_eq!((&proposal["rule"], &proposal["stop"]), (&"data-findings".into(), &false.into()), "{proposed:#}");
    assert!(!work.path("next").exists());
}

#[test]
fn a_proposal_is_a_recipe_that_passes_and_runs() {
    let work = Work::new(4);
    let rows = work.text("train.jsonl");
    let (dev, train): (Vec<_>, Vec<_>) = rows.lines().enumerate().partition(|(i, _)| i % 3 == 0);
    let joined = |rows: &[(usize, &str)]| rows.iter().map(|(_, row)| *row).collect::<Vec<_>>().join("\n");
    std::fs::write(work.path("train.jsonl"), joined(&train)).unwrap();
    std::fs::write(work.path("dev.jsonl"), joined(&dev)).unwrap();
    let run = work.run(&["recipe.toml", "--set", "seed=3"]);
    let arguments = ["experiments", "propose", id(&run), "--further", "-o", "next/next.toml"];
    let proposed = work.json(&arguments);
    let (rule, next) = (&proposed["proposed"]["proposal"]["rule"], "next/next.toml");
    assert_ne!(*rule, "data-findings", "{proposed:#}");
    assert_eq!(proposed["recipe"], next, "{proposed:#}");
    let changes = proposed["proposed"]["changes"].as_array().unwrap();
    assert!(!changes.is_empty(), "{proposed:#}");
    let command = proposed["proposed"]["command"].as_str().unwrap();
    for part in ["tallow smoke-test ", " && tallow run "] {
        assert!(command.contains(part), "{command}");
    }
    assert!(command.contains("recipe.toml --set seed=3 --set "), "{command}");
    let written = work.text(next);
    assert!(written.starts_with("# After ") && written.contains("run_name = \"next\""), "{written}");
    assert!(written.contains("seed = 3"), "{written}");
    // it is not written over without a word
    assert!(work.json(&arguments)["error"]["hint"].as_str().unwrap().contains("--force"));
    assert_eq!(work.json(&["check", next])["ok"], true, "{written}");
    let ended = work.run(&[next]);
    let compared = work.json(&["experiments", "compare", id(&run), id(&ended)]);
    let keys = compared["comparison"]["differences"].as_array().unwrap();
    assert!(!keys.is_empty() && keys.len() <= 6, "{compared:#}");
    // what was tried is not proposed again
    let again = work.json(&["experiments", "propose", id(&run), "--further"]);
    let set = |answer: &Value| answer["proposed"]["proposal"]["set"].clone();
    assert_ne!(set(&again), set(&proposed), "{again:#}");
    // on a recipe that says something else by now the change would be another
    std::fs::write(work.path("recipe.toml"), work.text("recipe.toml") + "# more\n").unwrap();
    let again = work.json(&["experiments", "propose", id(&run), "--further"]);
    assert!(again["proposed"]["command"].is_null(), "{again:#}");
    assert!(again["next"].as_str().unwrap().contains("`-o next.toml`"), "{again:#}");
}

#[test]
fn two_runs_that_end_at_once_are_both_entered() {
    let work = Work::new(3);
    work.run(&["recipe.toml"]);
    let start = |seed: &str| -> Child {
        let mut command = work.command(&["run", "recipe.toml", "--set", seed]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for seed in ["seed=1", "seed=2"] {
        assert_eq!(work.json(&["smoke-test", "recipe.toml", "--set", seed])["ok"], true);
    }
    let running = [start("seed=1"), start("seed=2")];
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    let entries = work.entries();
    assert_eq!(entries.len(), 3);
    let page = work.text("logs/experiments.md");
    for entry in &entries {
        assert_eq!(page.matches(&format!("## {}\n", id(entry))).count(), 1, "{page}");
        assert_eq!(page.matches(&format!("| {} |", id(entry))).count(), 1, "{page}");
    }
}

#[test]
#[cfg(unix)]
fn a_resumed_run_has_one_entry() {
    let work = Work::new(800);
    let tested = work.json(&["smoke-test", "recipe.toml"]);
    assert_eq!(tested["ok"], true, "{tested:#}");
    let started = work.json(&["run", "recipe.toml", "--detach"]);
    let run = id(&started);
    work.follow(run, |s| s["step"].as_u64().unwrap() >= 3 || s["state"] != "running");
    assert_eq!(work.json(&["cancel", run])["state"], "cancelled");
    assert_eq!(work.entries()[0]["verdict"], "CANCELLED");
    let proposed = work.json(&["experiments", "propose"]);
    assert_eq!(proposed["proposed"]["proposal"]["rule"], "after-failure", "{proposed:#}");
    assert_eq!(work.json(&["log", run, "--note", "stopped for the night"])["verdict"], "CANCELLED");
    let ended = work.json(&["run", "--resume", run]);
    assert_eq!(ended["state"], "done", "{ended:#}");
    let entries = work.entries();
    assert_eq!(entries.len(), 1, "{entries:#?}");
    assert_eq!((&entries[0]["verdict"], &entries[0]["notes"][0]), (&ended["verdict"], &"stopped for the night".into()));
    let page = work.text("logs/experiments.md");
    assert_eq!(page.matches(&format!("| {run} |")).count(), 1, "{page}");
    assert!(!page.contains("CANCELLED"), "{page}");
}

/// The lines are those that the template's own logging writes.
#[test]
fn the_log_of_a_script_is_entered_with_what_the_script_says() {
    let work = Work::new(1);
    let base = project("tests/fixtures/tiny-bert").display().to_string();
    let arguments = ["render", "--model-type", "SentenceTransformer", "--target", "python", "--base", &base];
    let data = ["--data", "train.jsonl", "--eval", "dev.jsonl", "--set", "args.learning_rate=3e-5", "-o", "mine.py"];
    let rendered = work.json(&[arguments.as_slice(), &data].concat());
    assert_eq!(rendered["target"], "python", "{rendered:#}");
    std::fs::create_dir(work.path("logs")).unwrap();
    let log = "10:00:00 rows: 84\n10:00:01 before training: dev_spearman_cosine 0.5000\n10:00:09 saved models/mine/final\n\
               10:00:09 VERDICT: MARGINAL | score=0.5010 | baseline=0.5000 | delta=+0.0010\n";
    std::fs::write(work.path("logs/mine.log"), log).unwrap();
    let logged = work.json(&["log", "--script-log", "logs/mine.log"]);
    assert_eq!((&logged["run_id"], &logged["verdict"]), (&"mine".into(), &"MARGINAL".into()), "{logged:#}");
    assert_eq!(logged["renewed"], false);
    let entry = &work.entries()[0];
    assert_eq!(
        (&entry["source"], &entry["model_type"]),
        (&"script".into(), &"SentenceTransformer".into()),
        "{entry:#}"
    );
    assert_eq!((&entry["loss"], &entry["data"]), (&"CoSENTLoss".into(), &"84".into()), "{entry:#}");
    assert_eq!(entry["plan"]["args.learning_rate"], 3e-5, "{entry:#}");
    assert_eq!((&entry["seconds"], &entry["base"]), (&9.0.into(), &base.as_str().into()), "{entry:#}");
    // there is no recipe to write, but a change to make
    let proposal = &logged["proposed"]["proposal"];
    assert_eq!((&proposal["rule"], &proposal["stop"]), (&"learning-rate".into(), &false.into()), "{logged:#}");
    assert!(proposal["set"]["args.learning_rate"].is_f64());
    // the same log again is the same run, a further verdict another
    assert_eq!(work.json(&["log", "--script-log", "logs/mine.log"])["renewed"], true);
    std::fs::write(work.path("logs/mine.log"), format!("{log}{}", log.replace("MARGINAL", "WIN"))).unwrap();
    assert_eq!(work.json(&["log", "--script-log", "logs/mine.log"])["run_id"], "mine-2");
    assert_eq!(work.entries().len(), 2);
    // that of a smoke test is none
    let smoke = format!("10:00:09 SMOKE TEST: no result\n{}", log.lines().last().unwrap());
    std::fs::write(work.path("logs/smoke.log"), smoke).unwrap();
    assert!(work.json(&["log", "--script-log", "logs/smoke.log"])["error"].is_object());
    std::fs::write(work.path("logs/none.log"), "10:00:00 rows: 84\n").unwrap();
    let error = work.json(&["log", "--script-log", "logs/none.log"]);
    assert!(error["error"]["message"].as_str().unwrap().contains("has no verdict line"), "{error}");
}

#[test]
fn mistakes_say_what_to_do() {
    let work = Work::new(1);
    for (arguments, part) in [
        (&["log"][..], "--script-log"),
        (&["log", "nobody"], "runs"),
        (&["experiments", "compare", "a"], "compare A B"),
        (&["experiments", "compare", "a", "b"], "enters one"),
        (&["experiments", "propose"], "tallow run RECIPE.toml"),
        (&["experiments", "-o", "next.toml"], "propose -o"),
    ] {
        let answer = work.json(arguments);
        let hint = answer["error"]["hint"].as_str().unwrap_or_else(|| panic!("{arguments:?}: {answer}"));
        assert!(hint.contains(part), "{arguments:?}: {answer}");
    }
    let empty = work.json(&["experiments"]);
    assert!(empty["next"].as_str().unwrap().contains("tallow run"), "{empty}");
    assert!(!Path::new(&work.path("logs")).exists());
}
