//! Trackio, Weights & Biases and MLflow by their Python packages: a small program gets JSON lines and calls them.
//!
//! The program is `report.py` beside this file. Secrets stay in the variables that the packages read; what a package says
//! on its way is kept for a message, without the values of such variables.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::{End, Record, Start, Tracker, project, variable};
use crate::catalog::trackers::TRACKIO;
use crate::error::{Error, Result};

const PROGRAM: &str = include_str!("report.py");
/// Its exit code where the package is not there.
const NO_PACKAGE: i32 = 3;
/// Lines of what it says that are kept.
const KEPT: usize = 8;

/// A package behind a Python process.
pub(super) struct Python {
    package: &'static str,
    /// Programs that may be Python, the first that there is.
    candidates: Vec<String>,
    child: Option<Child>,
    input: Option<ChildStdin>,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Python {
    /// For the package of that name.
    pub(super) fn new(package: &str) -> Self {
        let named = variable("TALLOW_PYTHON");
        let candidates = named.map_or_else(|| vec!["python3".to_owned(), "python".to_owned()], |named| vec![named]);
        let package = crate::catalog::trackers::TRACKERS.iter().find(|known| known.name == package);
        Self {
            package: package.map_or(TRACKIO, |known| known.name),
            candidates,
            child: None,
            input: None,
            said: Arc::default(),
        }
    }

    fn spawn(&mut self) -> Result<()> {
        for candidate in &self.candidates {
            let spawned = Command::new(candidate)
                .args(["-c", PROGRAM, self.package])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn();
            match spawned {
                Ok(mut child) => {
                    self.input = child.stdin.take();
                    if let Some(stderr) = child.stderr.take() {
                        listen(stderr, Arc::clone(&self.said));
                    }
                    self.child = Some(child);
                    return Ok(());
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("start", candidate)(e)),
            }
        }
        let names: Vec<String> = self.candidates.iter().map(|name| format!("`{name}`")).collect();
        Err(Error::train(format!("there is no Python ({})", names.join(", ")))
            .with_hint(format!("set `TALLOW_PYTHON` to one that has the package `{}`", self.package)))
    }

    fn send(&mut self, message: &Value) -> Result<()> {
        let sent = self.input.as_mut().map(|input| writeln!(input, "{message}").and_then(|()| input.flush()));
        match sent {
            Some(Ok(())) => Ok(()),
            // it is gone, and says why by how it ended
            _ => match self.ended() {
                Ok(()) => Err(Error::train("its process ended before the run")),
                Err(error) => Err(error),
            },
        }
    }

    /// Waits for the process and takes its exit code for an error where it is one.
    fn ended(&mut self) -> Result<()> {
        self.input = None;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let exit = child.wait().map_err(Error::io("wait for", self.package))?;
        if exit.success() {
            return Ok(());
        }
        // what it said last may still be on its way
        std::thread::sleep(Duration::from_millis(50));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let last = said.iter().rev().find(|line| !line.trim().is_empty()).cloned().unwrap_or_default();
        if exit.code() == Some(NO_PACKAGE) {
            return Err(Error::train(format!("Python has no package `{}` ({last})", self.package))
                .with_hint(format!("`pip install {}`, or set `TALLOW_PYTHON` to a Python that has it", self.package)));
        }
        Err(Error::train(format!("its process ended with {exit}: {last}")))
    }
}

/// Keeps the last lines that the process says, until it closes its end.
fn listen(stderr: ChildStderr, said: Arc<Mutex<VecDeque<String>>>) {
    let secrets =
        secrets(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))));
    let work = move || {
        let mut reader = BufReader::new(stderr);
        let mut bytes = Vec::new();
        // any bytes: a package may print what is no UTF-8
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let line = without(String::from_utf8_lossy(&bytes).trim_end(), &secrets);
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.len() == KEPT {
                said.pop_front();
            }
            said.push_back(line.chars().take(500).collect());
            bytes.clear();
        }
    };
    let _ = std::thread::Builder::new().name("tracker's words".to_owned()).spawn(work);
}

/// The values of variables that are secrets by their names.
fn secrets(variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let secret = |name: &str| {
        let name = name.to_uppercase();
        ["TOKEN", "KEY", "PASSWORD", "SECRET", "CREDENTIAL"].iter().any(|word| name.contains(word))
    };
    // an address may have a password in it
    variables
        .filter(|(name, value)| value.len() >= 6 && (secret(name) || value.contains('@')))
        .map(|(_, v)| v)
        .collect()
}

fn without(line: &str, secrets: &[String]) -> String {
    secrets.iter().fold(line.to_owned(), |line, secret| line.replace(secret.as_str(), "***"))
}

impl Tracker for Python {
    fn start(&mut self, start: &Start) -> Result<()> {
        self.spawn()?;
        // the order that each of transformers' integrations has
        let project = if self.package == TRACKIO {
            project(start.project.clone(), variable("TRACKIO_PROJECT"))
        } else {
            project(variable("WANDB_PROJECT"), start.project.clone())
        };
        self.send(&json!({"start": {
            "run_id": start.run_id,
            "run_name": start.run_name,
            "run_dir": start.run_dir,
            "resumed": start.resumed_at.is_some(),
            "config": start.config,
            "project": project,
            "space_id": start.trackio_space_id.clone().or_else(|| variable("TRACKIO_SPACE_ID")),
            "private": start.private,
        }}))
    }

    fn log(&mut self, record: &Record) -> Result<()> {
        // what is no number is null in JSON, and left out there
        let metrics: serde_json::Map<String, Value> =
            record.metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        self.send(&json!({"log": {"step": record.step, "metrics": metrics}}))
    }

    fn finish(&mut self, end: End) -> Result<()> {
        let word = match end {
            End::Done => "done",
            End::Failed => "failed",
            End::Cancelled => "cancelled",
        };
        self.send(&json!({"finish": word}))?;
        self.ended()
    }
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that takes Python's place.
    fn fake(script: &str) -> (tempfile::TempDir, Python) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("python");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let candidates = vec!["/nonexistent/python3".to_owned(), path.display().to_string()];
        (dir, Python { candidates, ..Python::new("wandb") })
    }

    fn report(python: &mut Python) -> Result<()> {
        python.start(&Start { run_id: "a-1".into(), ..Start::default() })?;
        python.log(&Record { step: 1, metrics: vec![("loss".into(), 1.5), ("grad_norm".into(), f64::NAN)] })?;
        python.finish(End::Done)
    }

    #[test]
    fn the_program_gets_json_lines() {
        let (dir, mut python) = fake("cat > \"$(dirname \"$0\")/got\"; echo \"$3\" >> \"$(dirname \"$0\")/got\"");
        report(&mut python).unwrap();
        let got = std::fs::read_to_string(dir.path().join("got")).unwrap();
        let lines: Vec<&str> = got.lines().collect();
        let start: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!((&start["start"]["run_id"], &start["start"]["resumed"]), (&"a-1".into(), &false.into()));
        let log = json!({"log": {"step": 1, "metrics": {"loss": 1.5, "grad_norm": null}}});
        assert_eq!(serde_json::from_str::<Value>(lines[1]).unwrap(), log);
        assert_eq!(lines[2..], ["{\"finish\":\"done\"}", "wandb"]);
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_out() {
        let (_dir, mut python) = fake("echo \"No module named 'wandb'\" >&2; exit 3");
        let error = report(&mut python).unwrap_err();
        assert!(error.to_string().contains("no package `wandb` (No module named"), "{error}");
        assert!(error.hint().unwrap().contains("pip install wandb"));
        let (_dir, mut python) = fake("");
        python.candidates.truncate(1);
        let error = report(&mut python).unwrap_err();
        assert!(error.to_string().contains("no Python (`/nonexistent/python3`)"), "{error}");
        assert!(error.hint().unwrap().contains("TALLOW_PYTHON"));
    }

    #[test]
    fn a_crash_is_told_by_its_last_words() {
        let (_dir, mut python) = fake("read line; echo first >&2; echo 'wandb: no such project' >&2; exit 1");
        let error = report(&mut python).unwrap_err();
        assert!(error.to_string().ends_with("wandb: no such project"), "{error}");
    }

    /// In a folder with modules that are called as Python's, and with Ctrl-C at its beginning.
    #[test]
    fn the_program_heeds_neither_ctrl_c_nor_files_that_lie_about() {
        if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
            println!("skipped: there is no python3");
            return;
        }
        let (dir, mut python) = fake("cd \"$(dirname \"$0\")\"; PYTHONPATH=\"$PWD/lib\" exec python3 \"$@\"");
        std::fs::create_dir(dir.path().join("lib")).unwrap();
        std::fs::write(dir.path().join("json.py"), "raise SystemExit('not the module')\n").unwrap();
        let package = "import os, signal\nfrom types import SimpleNamespace\n\
                       config = SimpleNamespace(update=lambda *a, **k: None)\n\
                       def say(text):\n    with open('got', 'a') as file:\n        file.write(f'{text}\\n')\n\
                       def init(**k):\n    os.kill(os.getpid(), signal.SIGINT)\n\
                       def define_metric(*a, **k):\n    pass\n\
                       def log(values):\n    say(values)\n\
                       def finish(exit_code):\n    say(exit_code)\n";
        std::fs::write(dir.path().join("lib/wandb.py"), package).unwrap();
        report(&mut python).unwrap();
        let got = std::fs::read_to_string(dir.path().join("got")).unwrap();
        assert_eq!(got, "{'train/loss': 1.5, 'train/global_step': 1}\n0\n");
    }

    #[test]
    fn secrets_are_not_repeated() {
        let variables =
            [("WANDB_API_KEY", "abcdef1234"), ("HOME", "/home/x"), ("URI", "http://me:pw@host"), ("A_TOKEN", "x")];
        let found = secrets(variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(found, ["abcdef1234", "http://me:pw@host"]);
        assert_eq!(without("key abcdef1234 of /home/x", &found), "key *** of /home/x");
    }
}
