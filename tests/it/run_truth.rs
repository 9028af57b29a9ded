//! What is said of a run is true whatever became of it: killed at any moment, its terminal closed, its disk full.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tallow::util::seed::Rng;

use crate::runs::Work;

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

fn all_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if dir.is_dir() {
        files_below(dir, &mut found);
    }
    found
}

/// Every document in the folder of runs is whole, but for the leftovers of a write that was cut off, which are hidden.
fn nothing_is_corrupt(runs: &Path) {
    let hidden = |path: &Path| {
        let below = path.strip_prefix(runs).unwrap();
        below.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.'))
    };
    for path in all_files(runs).iter().filter(|path| !hidden(path)) {
        let parse = |text: &str| {
            serde_json::from_str::<Value>(text).unwrap_or_else(|e| panic!("{}: {e}: {text}", path.display()));
        };
        let text = || std::fs::read_to_string(path).unwrap();
        match path.extension().and_then(|e| e.to_str()) {
            Some("json") => parse(&text()),
            Some("jsonl") => {
                assert!(text().is_empty() || text().ends_with('\n'), "{}", path.display());
                text().lines().for_each(parse);
            }
            Some("toml") => drop(toml_table(&text())),
            Some("safetensors") => {
                let bytes = std::fs::read(path).unwrap();
                safetensors::SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            }
            _ => {}
        }
    }
}

fn toml_table(text: &str) -> toml::Table {
    toml::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// What reading may not change.
fn sight(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let state = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).unwrap();
        (path, (metadata.len(), metadata.modified().unwrap()))
    };
    all_files(dir).into_iter().map(state).collect()
}

fn weights(work: &Work, id: &str) -> Vec<u8> {
    std::fs::read(work.path("runs").join(id).join("model/model.safetensors")).unwrap()
}

/// A run in the foreground, as a child.
fn spawn(work: &Work, arguments: &[&str]) -> Child {
    let mut command = work.command(arguments);
    // the tests themselves may run under `nohup`, which children inherit
    // SAFETY: async-signal-safe, and touches no memory of ours.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: a plain system call on a process this test started.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
}

/// Waits until the child's run has done so many steps.
fn steps_of(work: &Work, child: &mut Child, steps: u64) -> Value {
    let begun = Instant::now();
    loop {
        let status = work.json(&["status"]);
        if status["pid"] == child.id() && status["step"].as_u64().unwrap() >= steps {
            return status;
        }
        assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(60), "{status:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Saves a checkpoint every second step, so that many moments are within one.
const OFTEN: &str = "save_strategy = \"steps\"\nsave_steps = 2\nsave_total_limit = 2\neval_strategy = \"steps\"\n\
                     eval_steps = 10\n";

#[test]
fn killed_at_any_moment_a_run_tells_the_truth() {
    let work = Work::new(24);
    let recipe = work.text("recipe.toml") + OFTEN;
    std::fs::write(work.path("recipe.toml"), recipe).unwrap();
    let begun = Instant::now();
    let whole = work.json(&["run", "recipe.toml", "--force", "--set", "output_dir=whole"]);
    let took = begun.elapsed();
    let expected = std::fs::read(Path::new(whole["model_dir"].as_str().unwrap()).join("model.safetensors")).unwrap();
    let (runs, nanos) = (work.path("runs"), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let seed = std::env::var("TALLOW_TEST_SEED").map_or(u64::from(nanos.subsec_nanos()), |s| s.parse().unwrap());
    println!("TALLOW_TEST_SEED={seed}, an undisturbed run takes {took:?}");
    let mut random = Rng::new(seed);
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let mut unfinished: Vec<String> = Vec::new();
    for turn in 0..20 {
        // new runs and those that go on in turn
        let go_on = if turn % 2 == 1 { unfinished.last().cloned() } else { None };
        let mut child = match &go_on {
            Some(id) => spawn(&work, &["run", "--resume", id]),
            None => spawn(&work, &["run", "recipe.toml", "--force"]),
        };
        std::thread::sleep(took.mul_f64(0.8 * random.uniform()));
        let died = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();

        let before = sight(&runs);
        nothing_is_corrupt(&runs);
        let list = work.json(&["runs", "--limit", "0"]);
        for run in list["runs"].as_array().unwrap() {
            let id = run["run_id"].as_str().unwrap();
            let status = work.json(&["status", id]);
            let state = status["state"].as_str().unwrap_or_else(|| panic!("turn {turn}: {status:#}"));
            assert_eq!(run["state"], state, "turn {turn}: {run:#}");
            assert!(["failed", "done"].contains(&state), "turn {turn}: {status:#}");
            assert_eq!(state == "done", status["model_dir"].is_string(), "turn {turn}: {status:#}");
            assert!(state == "done" || status["hint"].as_str().unwrap().contains("--resume"), "{status:#}");
            if state == "done" {
                assert!(weights(&work, id) == expected, "turn {turn}: the weights of `{id}` differ");
                unfinished.retain(|other| other != id);
            } else if !unfinished.contains(&id.to_owned()) {
                unfinished.push(id.to_owned());
            }
            if status["pid"] == child.id() {
                let steps = status["step"].as_u64().unwrap();
                let at = format!("{} {}", status["phase"].as_str().unwrap(), if steps > 0 { "on" } else { "first" });
                *ends.entry(if died { at } else { "ended".to_owned() }).or_default() += 1;
            }
        }
        assert!(sight(&runs) == before, "turn {turn}: reading has changed files");
    }
    println!("killed in phase: {ends:?}; {} runs are unfinished", unfinished.len());
    // to the end, as if nothing had been
    for id in unfinished.iter().rev().take(3) {
        let done = work.json(&["run", "--resume", id]);
        assert_eq!(done["state"], "done", "{done:#}");
        assert!(weights(&work, id) == expected, "the weights of `{id}` differ");
        assert!(work.steps(&done).iter().copied().eq(1..=24), "steps are missing or double");
        let left = all_files(&runs.join(id)).into_iter().filter(|path| path.to_string_lossy().contains(".tmp-"));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
    nothing_is_corrupt(&runs);
}

/// A terminal that is closed ends a run as Ctrl-C does, however often it says so; `nohup` and a cancellation that is
/// asked for twice do what they are for.
#[test]
fn a_closed_terminal_leaves_a_checkpoint() {
    let work = Work::new(1_000_000);
    let mut child = spawn(&work, &["run", "recipe.toml", "--force"]);
    steps_of(&work, &mut child, 3);
    signal(&child, libc::SIGHUP);
    signal(&child, libc::SIGHUP);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let status = work.json(&["status"]);
    assert_eq!((&status["state"], &status["exit_code"]), (&"cancelled".into(), &130.into()), "{status:#}");
    let step = status["step"].as_u64().unwrap();
    let checkpoint = format!("runs/{}/checkpoints/checkpoint-{step}", status["run_id"].as_str().unwrap());
    assert!(work.path(&checkpoint).join("trainer_state.json").is_file(), "{checkpoint}");

    let mut command = work.command(&["run", "--resume", status["run_id"].as_str().unwrap()]);
    // SAFETY: async-signal-safe, and touches no memory of ours.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    steps_of(&work, &mut child, step + 2);
    signal(&child, libc::SIGHUP);
    steps_of(&work, &mut child, step + 40);
    signal(&child, libc::SIGTERM);
    signal(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(work.json(&["status"])["state"], "cancelled");
}

/// A run of before the machine was started again is not under way, though its heartbeat is young and its number in use.
#[test]
#[cfg(target_os = "linux")]
fn a_restarted_machine_runs_nothing_of_before() {
    let outside = std::fs::read_link("/proc/self/ns/pid").is_ok_and(|ns| ns.to_string_lossy() == "pid:[4026531836]");
    if !outside || tallow::runs::process::machine().is_none() {
        println!("skipped: this is a container, or a machine without a name of its own");
        return;
    }
    let work = Work::new(1);
    let done = work.json(&["run", "recipe.toml", "--force"]);
    let file = Path::new(done["run_dir"].as_str().unwrap()).join("status.json");
    let mut status: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    status["state"] = "running".into();
    status["heartbeat"] = tallow::runs::status::now().into();
    status["process"]["pid"] = std::process::id().into();
    status["process"]["place"] = "00000000-1111-2222-3333-444444444444 pid:[4026531836]".into();
    std::fs::write(&file, status.to_string()).unwrap();
    assert_eq!(work.json(&["status"])["state"], "failed");
    status["process"]["machine"] = "another".into();
    std::fs::write(&file, status.to_string()).unwrap();
    assert_eq!(work.json(&["status"])["state"], "running");
}

/// A shell on a small file system of its own, as `disk`; tells why where that is not possible.
fn on_a_small_disk(work: &Work, script: &str) -> Option<(String, String)> {
    let disk = work.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = format!("mount -t tmpfs -o size=2500k tmpfs {}", disk.display());
    let shell = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", script]).current_dir(work.path("")).env("TALLOW_CACHE_DIR", &work.cache);
        command.env("TALLOW", env!("CARGO_BIN_EXE_tallow")).env("DISK", &disk).output()
    };
    match shell(&mount) {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            println!("skipped: no file system can be mounted here: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Err(error) => {
            println!("skipped: `unshare` cannot be started: {error}");
            return None;
        }
    }
    let output = shell(&format!("{mount} && {script}")).unwrap();
    Some((String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap()))
}

#[test]
fn a_full_disk_loses_nothing() {
    let work = Work::new(60);
    let whole = work.json(&["run", "recipe.toml", "--force"]);
    let expected = std::fs::read(Path::new(whole["model_dir"].as_str().unwrap()).join("model.safetensors")).unwrap();
    // some checkpoints, then no room; then there is some
    let script = "
        cd $DISK
        $TALLOW run ../recipe.toml --force --json --set args.save_strategy=steps --set args.save_steps=5
        echo code $?
        $TALLOW status --json; $TALLOW runs --json
        cp -r runs ../full
        mount -o remount,size=50m $DISK
        $TALLOW run --resume \"$(basename runs/*)\" --json
        cp -r runs ../grown";
    let Some((stdout, stderr)) = on_a_small_disk(&work, script) else { return };
    let lines: Vec<&str> = stdout.lines().collect();
    let json = |line: usize| -> Value { serde_json::from_str(lines[line]).unwrap_or_else(|e| panic!("{e}: {stdout}")) };
    assert_eq!(lines[1], "code 1", "{stdout} {stderr}");
    let (error, status) = (json(0), json(2));
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("cannot ") && message.contains("/checkpoints/") && message.contains("No space left"));
    assert_eq!((&status["state"], &status["exit_code"]), (&"failed".into(), &1.into()), "{status:#}");
    assert_eq!(status["message"], message);
    let hint = status["hint"].as_str().unwrap();
    assert!(hint.contains("free some disk space") && hint.contains("--resume"), "{hint}");
    assert_eq!(json(3)["runs"][0]["state"], "failed");
    nothing_is_corrupt(&work.path("full"));
    let done = json(4);
    assert_eq!(done["state"], "done", "{stdout} {stderr}");
    assert!(stderr.contains("continuing after step"), "{stderr}");
    nothing_is_corrupt(&work.path("grown"));
    let run = work.path("grown").join(done["run_id"].as_str().unwrap());
    assert!(std::fs::read(run.join("model/model.safetensors")).unwrap() == expected, "the weights differ");
}

#[test]
fn a_run_goes_on_while_the_disk_is_full() {
    let work = Work::new(1_000_000);
    // a lap of the loop is a step or more of the run, which has nothing to save meanwhile
    let script = "
        cd $DISK
        $TALLOW run ../recipe.toml --force --set args.save_strategy=no >out 2>../err &
        until grep -qs '\"step\": *3' runs/*/metrics.jsonl; do sleep 0.05; done
        dd if=/dev/zero of=filler bs=1k 2>/dev/null
        sleep 0.5; cp -r runs ../full; $TALLOW status --json; sleep 0.5
        rm filler; sleep 0.5
        $TALLOW cancel \"$(basename runs/*)\" --json
        wait; cp -r runs ../freed";
    let Some((stdout, stderr)) = on_a_small_disk(&work, script) else { return };
    let lines: Vec<&str> = stdout.lines().collect();
    let json = |line: usize| -> Value { serde_json::from_str(lines[line]).unwrap_or_else(|e| panic!("{e}: {stdout}")) };
    let told = work.text("err");
    assert_eq!(
        (&json(0)["state"], &json(1)["state"]),
        (&"running".into(), &"cancelled".into()),
        "{stdout} {stderr} {told}"
    );
    assert!(told.contains("warning: the run goes on, but cannot write") && told.contains("No space left"), "{told}");
    nothing_is_corrupt(&work.path("full"));
    nothing_is_corrupt(&work.path("freed"));
    // the lines for which there was no room are there, and each once
    let run = work.path("freed").join(json(1)["run_id"].as_str().unwrap());
    let steps = work.steps(&serde_json::json!({"run_dir": run.display().to_string()}));
    let mut wrong = String::new();
    for (at, pair) in steps.windows(2).enumerate().filter(|(_, pair)| pair[1] != pair[0] + 1) {
        writeln!(wrong, "line {at}: step {} after {}", pair[1], pair[0]).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(steps.last().copied(), json(1)["step"].as_u64(), "{:?}", steps.last());
}

/// The limit of a shell on files does what a full disk does.
#[test]
fn a_limit_on_files_is_an_error() {
    let work = Work::new(4);
    // everything that is kept between commands is there
    work.json(&["smoke-test", "recipe.toml"]);
    let tallow = env!("CARGO_BIN_EXE_tallow");
    let output = Command::new("bash")
        .args(["-c", &format!("ulimit -f 100; exec {tallow} run recipe.toml --json")])
        .current_dir(work.path(""))
        .env("TALLOW_CACHE_DIR", &work.cache)
        .output()
        .unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {:?} {}", output.status, String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!(output.status.code(), Some(1), "{error:#}");
    assert!(error["error"]["hint"].as_str().unwrap().contains("ulimit -f"), "{error:#}");
    let status = work.json(&["status"]);
    assert_eq!((&status["state"], &status["message"]), (&"failed".into(), &error["error"]["message"]), "{status:#}");
}
