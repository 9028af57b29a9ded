//! Starting runs: the smoke test that has to come first, keys, and the queue of a machine.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::runs::Work;

/// Longer than any test.
const ENDLESS: u64 = 1_000_000;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signal(status: &Value, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(status["pid"].as_i64().unwrap()).unwrap();
    // SAFETY: a plain system call on a process this test started.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// A run, started and left alone: its id.
fn started(work: &Work, more: &[&str]) -> (String, Value) {
    let answer = work.json(&[&["run", "recipe.toml", "--force", "--detach"], more].concat());
    (answer["run_id"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned(), answer)
}

#[test]
fn runs_of_a_machine_wait_for_each_other() {
    let work = Work::new(ENDLESS);
    // another project of the same user
    let mut other = Work::new(ENDLESS);
    other.cache = work.cache.clone();
    let (first, answer) = started(&work, &[]);
    assert_eq!((&answer["state"], &answer["started"]), (&"running".into(), &true.into()), "{answer:#}");
    let (second, answer) = started(&other, &[]);
    assert_eq!(answer["state"], "queued", "{answer:#}");
    assert!(answer["next"].as_str().unwrap().contains(&first), "{answer:#}");
    let (third, _) = started(&work, &[]);
    let status = work.json(&["status", &third]);
    assert_eq!((&status["state"], &status["position"]), (&"queued".into(), &2.into()), "{status:#}");
    assert!(status["waits_for"].as_str().unwrap().contains(&first), "{status:#}");
    let shown = text(&work.tallow(&["status", &third]).stdout);
    assert!(shown.contains("waits   at place 2: run `"), "{shown}");
    let error = work.json(&["run", "--resume", &third]);
    assert!(error["error"]["message"].as_str().unwrap().contains("waits for its turn"), "{error}");

    // whoever has the turn loses it with its life
    signal(&work.json(&["status", &first]), libc::SIGKILL);
    other.follow(&second, |s| s["state"] == "running");
    assert_eq!(work.json(&["status", &first])["state"], "failed");
    let status = work.follow(&third, |s| s["position"] == 1);
    assert!(status["waits_for"].as_str().unwrap().contains(&second), "{status:#}");

    // one that dies while it waits is in nobody's way
    signal(&status, libc::SIGKILL);
    let status = work.follow(&third, |s| s["state"] != "queued");
    assert_eq!(status["state"], "failed", "{status:#}");
    assert!(status["message"].as_str().unwrap().contains("before its turn came"), "{status:#}");

    let resumed = work.json(&["run", "--resume", &third, "--detach"]);
    assert_eq!(resumed["state"], "queued", "{resumed:#}");
    let begun = Instant::now();
    let cancelled = work.json(&["cancel", &third]);
    assert_eq!(cancelled["state"], "cancelled", "{cancelled:#}");
    assert!(begun.elapsed() < Duration::from_secs(10) && cancelled["message"].as_str().unwrap().contains("--resume"));
    assert_eq!(work.json(&["status", &third])["exit_code"], 130);

    // beside the one that is under way
    let (beside, answer) = started(&work, &["--now"]);
    assert_eq!(answer["state"], "running", "{answer:#}");
    assert_eq!(other.json(&["status", &second])["state"], "running");
    let list = work.json(&["runs", "--state", "running"]);
    assert_eq!((&list["total"], &list["runs"][0]["run_id"]), (&1.into(), &beside.as_str().into()), "{list:#}");

    // in the foreground, too, with a line about it; Ctrl-C leaves the queue
    let mut child =
        work.command(&["run", "recipe.toml", "--force"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().unwrap().starts_with("queued at place 1")).unwrap().unwrap();
    assert!(line.contains(&second) && line.contains("--now"), "{line}");
    // SAFETY: a plain system call on a process this test started.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let status = work.json(&["status"]);
    assert_eq!((&status["state"], &status["pid"]), (&"cancelled".into(), &child.id().into()), "{status:#}");

    for (work, id) in [(&work, &beside), (&other, &second)] {
        assert_eq!(work.json(&["cancel", id])["state"], "cancelled");
    }
    let more = text(&work.command(&["run", "recipe.toml"]).env("TALLOW_MAX_RUNS", "many").output().unwrap().stderr);
    assert!(more.contains("`TALLOW_MAX_RUNS` is `many`"), "{more}");
    let list = text(&work.tallow(&["runs"]).stdout);
    assert_eq!(list.lines().count(), 1 + 4 + 1, "{list}");
    assert!(list.contains(&beside) && list.contains("process ") && list.contains("cancelled"), "{list}");
}

#[test]
fn two_starts_with_one_key_are_one_run() {
    let work = Work::new(3);
    let arguments = ["run", "recipe.toml", "--force", "--detach", "--key", "night 1", "--json"];
    let children: Vec<_> = (0..8)
        .map(|_| work.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    let answers: Vec<Value> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)))
        })
        .collect();
    let id = answers[0]["run_id"].as_str().unwrap_or_else(|| panic!("{answers:#?}"));
    assert!(answers.iter().all(|answer| answer["run_id"] == id && answer["key"] == "night 1"), "{answers:#?}");
    assert_eq!(answers.iter().filter(|answer| answer["started"] == true).count(), 1, "{answers:#?}");
    assert_eq!(work.json(&["runs"])["total"], 1);

    let done = work.follow(id, |s| s["state"] != "running");
    assert_eq!((&done["state"], &done["key"]), (&"done".into(), &"night 1".into()), "{done:#}");
    // whatever became of it, and without another smoke test
    let again = work.json(&["run", "recipe.toml", "--key", "night 1", "--set", "args.max_steps=4"]);
    assert_eq!((&again["run_id"], &again["state"], &again["started"]), (&id.into(), &"done".into(), &false.into()));
    assert_eq!(again["score"], done["score"]);
    let next = again["next"].as_str().unwrap();
    assert!(next.contains("`args.max_steps`") && next.contains("tallow search"), "{next}");
    let other = work.json(&["run", "recipe.toml", "--force", "--key", "night 2"]);
    assert_ne!(other["run_id"], id);
    let error = work.json(&["run", "--resume", id, "--key", "night 3"]);
    assert!(error["error"]["message"].as_str().unwrap().contains("keeps the key"), "{error}");
    // nothing came of it, so its key is free, and nothing is left
    let wrong = ["--set", "train_dataset.0.columns=[\"sentence1\", \"sentence9\"]", "--set", "output_dir=other"];
    let error = work.json(&[&["run", "recipe.toml", "--force", "--key", "night 3"][..], &wrong].concat());
    assert!(error["error"]["message"].as_str().unwrap().contains("sentence9"), "{error}");
    assert!(!work.path("other").exists());
}

#[test]
fn a_run_wants_a_smoke_test_of_the_same_plan() {
    let work = Work::new(2);
    let refused = |more: &[&str]| -> String {
        let output = work.tallow(&[&["run", "recipe.toml"], more].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("hint: `tallow smoke-test recipe.toml") && told.contains("`--force`"), "{told}");
        told
    };
    assert!(refused(&[]).contains("there was no smoke test of this recipe"));
    assert!(!work.path("runs").exists() && !work.path("logs").exists());
    assert_eq!(work.json(&["smoke-test", "recipe.toml"])["ok"], true);
    // what it is called and where it goes does not matter
    let same = ["--set", "run_name=other", "--set", "output_dir=elsewhere/runs", "--set", "seed=5"];
    assert_eq!(work.json(&[&["run", "recipe.toml"][..], &same].concat())["state"], "done");
    let told = refused(&["--set", "args.learning_rate=1e-4"]);
    assert!(
        told.contains("`args.learning_rate` is 0.0001 and was ") && told.contains("--set args.learning_rate=1e-4`")
    );

    // the test itself, as if it had been failed
    let receipts: Vec<_> = std::fs::read_dir(work.cache.join("smoke")).unwrap().map(|e| e.unwrap().path()).collect();
    let [receipt] = receipts.as_slice() else { panic!("{receipts:?}") };
    let passed = std::fs::read_to_string(receipt).unwrap();
    std::fs::write(receipt, passed.replace("\"problems\":[]", "\"problems\":[\"a loss is NaN\"]")).unwrap();
    assert!(refused(&[]).contains("the smoke test of this recipe failed: a loss is NaN"));
    std::fs::write(receipt, passed).unwrap();

    let rows = work.text("train.jsonl");
    std::fs::write(work.path("train.jsonl"), format!("{rows}{}\n", rows.lines().next().unwrap())).unwrap();
    let told = refused(&[]);
    assert!(told.contains("`train.jsonl` has changed"), "{told}");
    let forced = work.json(&["run", "recipe.toml", "--force"]);
    assert_eq!(forced["state"], "done", "{forced:#}");
    assert_eq!(work.json(&["smoke-test", "recipe.toml"])["ok"], true);
    assert_eq!(work.json(&["run", "recipe.toml"])["state"], "done");
}
