//! `status.json`: where a run stands, true even after its process was killed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::folder::{RunFolder, display};
use super::process::{self, Identity, Reach};
use crate::error::{Error, Result};
use crate::util::files;

/// Whether a run is under way, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its process is alive and waits for its turn on this machine.
    Queued,
    /// Its process is alive.
    Running,
    /// It ended with a saved model.
    Done,
    /// It ended with an error, or its process is gone without a word.
    Failed,
    /// It was stopped and can be resumed.
    Cancelled,
}

impl State {
    /// As in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether there is a process that has not ended.
    #[must_use]
    pub const fn under_way(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// What `status.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The run's id.
    pub run_id: String,
    /// The recipe's `run_name`.
    pub run_name: String,
    /// Whether it runs, and how it ended.
    pub state: State,
    /// The process that runs it.
    pub process: Identity,
    /// When the run was first started (UTC, milliseconds).
    pub started: String,
    /// When this file was last written while the process was well (UTC).
    pub heartbeat: String,
    /// `starting`, `queued`, `data`, `baseline`, `train`, `evaluate`, `save`, `publish`, `ended`.
    pub phase: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Optimizer steps of the whole run; 0 until known.
    pub total_steps: u64,
    /// Epochs done.
    pub epoch: f64,
    /// Seconds since this process took up the run.
    pub seconds: f64,
    /// What a step takes on average, evaluations and checkpoints included.
    pub seconds_per_step: Option<f64>,
    /// The last values by name: `loss`, `learning_rate`, `eval_...`.
    pub metrics: BTreeMap<String, f64>,
    /// Why it failed, or the verdict line.
    pub message: Option<String>,
    /// The way out, when it failed.
    pub hint: Option<String>,
    /// The process's exit code, once it ended by itself.
    pub exit_code: Option<i32>,
    /// Its place among those that wait, 1 for the next, while it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// What it waits for, while it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// The phase of a run that is over but for its model's way to the Hub.
pub const PUBLISH: &str = "publish";

/// A heartbeat this old is a sign of death where the process itself cannot be seen.
const STALE_SECONDS: f64 = 120.0;

/// The same where everything says that its machine was started again.
const RESTARTED_SECONDS: f64 = 30.0;

/// So long a process may take from its first status to its lock.
const TAKING_UP_SECONDS: f64 = 5.0;

impl Status {
    /// The status of a run that this process begins.
    #[must_use]
    pub fn starting(run_id: &str, run_name: &str) -> Self {
        let now = now();
        Self {
            run_id: run_id.to_owned(),
            run_name: run_name.to_owned(),
            state: State::Running,
            process: Identity::own(),
            started: now.clone(),
            heartbeat: now,
            phase: "starting".to_owned(),
            step: 0,
            total_steps: 0,
            epoch: 0.0,
            seconds: 0.0,
            seconds_per_step: None,
            metrics: BTreeMap::new(),
            message: None,
            hint: None,
            exit_code: None,
            position: None,
            waits_for: None,
        }
    }

    /// Seconds since the last heartbeat.
    #[must_use]
    pub fn heartbeat_age(&self) -> f64 {
        match self.heartbeat.parse::<jiff::Timestamp>() {
            Ok(then) => jiff::Timestamp::now().duration_since(then).as_secs_f64(),
            Err(_) => f64::INFINITY,
        }
    }
}

/// Now, UTC, with milliseconds, so that runs of one second keep their order.
#[must_use]
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    format!("{:.3}", now.round(jiff::Unit::Millisecond).unwrap_or(now))
}

/// The run's status as it really is: a run whose process is gone is failed, whatever the file says.
///
/// # Errors
/// When there is no status, or the file is broken.
pub fn read(folder: &RunFolder) -> Result<Status> {
    let mut status = read_raw(folder)?;
    if status.state.under_way() {
        let mut alive = lives(folder, &status);
        if !alive {
            // the process may have written its end between the two looks, or another may have taken the run up
            let before = std::mem::replace(&mut status, read_raw(folder)?);
            alive = status.process != before.process && status.state.under_way() && lives(folder, &status);
        }
        if !alive && status.state == State::Queued {
            status.state = State::Failed;
            status.message = Some(format!("process {} ended before its turn came", status.process.pid));
            status.hint = Some(format!("start it again with `tallow run --resume {}`", status.run_id));
        }
        if !alive && status.state == State::Running {
            if status.phase == PUBLISH {
                status.state = State::Done;
                status.message = Some(format!("process {} ended while it published the model", status.process.pid));
                status.hint = Some(format!("the model is whole: `tallow push {} OWNER/NAME`", display(&folder.dir())));
                return Ok(status);
            }
            status.state = State::Failed;
            let last_words = process::tail(&folder.console_file(), 3);
            status.message = Some(if last_words.is_empty() {
                format!("process {} ended without finishing", status.process.pid)
            } else {
                format!("process {} ended without finishing; its last words: {last_words}", status.process.pid)
            });
            status.hint = Some(if folder.planned() {
                format!("go on from the last checkpoint with `tallow run --resume {}`", status.run_id)
            } else {
                "it was cut off before it began: start it anew with `tallow run RECIPE.toml`".to_owned()
            });
        }
    }
    Ok(status)
}

/// Whether the process of a run that has not ended is there.
fn lives(folder: &RunFolder, status: &Status) -> bool {
    let age = || status.heartbeat_age();
    status.process.alive().unwrap_or_else(|| match status.process.reach() {
        Reach::Kernel => age() < TAKING_UP_SECONDS || folder.held(),
        Reach::Name => age() < RESTARTED_SECONDS,
        Reach::Unknown => age() < STALE_SECONDS,
    })
}

/// The file's contents, believed.
///
/// # Errors
/// When there is no status, or the file is broken.
pub fn read_raw(folder: &RunFolder) -> Result<Status> {
    let path = folder.status_file();
    let text = files::read_text(&path)?;
    serde_json::from_str(&text).map_err(|e| {
        Error::data(format!("`{}` cannot be read: {e}", path.display()))
            .with_hint("the file was written by another version of tallow, or changed by hand")
    })
}

/// Replaces the file in one go.
///
/// # Errors
/// When it cannot be written.
pub fn write(folder: &RunFolder, status: &Status) -> Result<()> {
    let text = serde_json::to_string_pretty(status).map_err(|e| Error::Internal(format!("status: {e}")))?;
    files::write_atomic(&folder.status_file(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_run_whose_process_is_gone_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        let mut status = Status::starting(folder.run_id(), "a");
        write(&folder, &status).unwrap();
        assert_eq!(read(&folder).unwrap(), status);

        status.process.started_ticks = status.process.started_ticks.map(|t| t - 1);
        write(&folder, &status).unwrap();
        std::fs::write(folder.console_file(), "thread panicked\n").unwrap();
        let seen = read(&folder).unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(seen.state, State::Failed);
            assert!(seen.message.unwrap().contains("thread panicked"));
            // without a plan there is nothing to go on with
            assert!(seen.hint.unwrap().contains("anew"));
            std::fs::write(folder.plan_file(), "").unwrap();
            assert!(read(&folder).unwrap().hint.unwrap().contains("--resume"));
        }
        assert_eq!(read_raw(&folder).unwrap().state, State::Running);
    }

    #[test]
    fn a_run_that_died_in_the_queue_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        let mut status = Status::starting(folder.run_id(), "a");
        (status.state, status.position, status.waits_for) = (State::Queued, Some(1), Some("run `b`".into()));
        write(&folder, &status).unwrap();
        assert_eq!(read(&folder).unwrap(), status);
        status.process.place = "another machine".into();
        status.heartbeat = "2020-01-01T00:00:00Z".into();
        write(&folder, &status).unwrap();
        let seen = read(&folder).unwrap();
        assert_eq!(seen.state, State::Failed);
        assert!(seen.message.unwrap().contains("before its turn") && seen.hint.unwrap().contains("--resume"));
    }

    /// In another container of this machine the lock of the run tells.
    #[test]
    #[cfg(target_os = "linux")]
    fn in_another_container_the_lock_decides() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        let mut status = Status::starting(folder.run_id(), "a");
        let boot = status.process.place.split(' ').next().unwrap().to_owned();
        status.process.place = format!("{boot} pid:[1]");
        status.heartbeat = "2020-01-01T00:00:00Z".into();
        write(&folder, &status).unwrap();
        let lock = folder.lock().unwrap();
        assert_eq!(read(&folder).unwrap().state, State::Running);
        drop(lock);
        assert_eq!(read(&folder).unwrap().state, State::Failed);
        status.heartbeat = now();
        write(&folder, &status).unwrap();
        assert_eq!(read(&folder).unwrap().state, State::Running, "it has just begun");
    }

    #[test]
    fn a_run_that_ended_while_it_published_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        let mut status = Status::starting(folder.run_id(), "a");
        (status.process.place, status.heartbeat) = ("another machine".into(), "2020-01-01T00:00:00Z".into());
        status.phase = PUBLISH.to_owned();
        write(&folder, &status).unwrap();
        let seen = read(&folder).unwrap();
        assert_eq!(seen.state, State::Done);
        assert!(seen.hint.unwrap().contains("tallow push "));
    }

    #[test]
    fn elsewhere_the_heartbeat_decides() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        let mut status = Status::starting(folder.run_id(), "a");
        status.process.place = "another machine".into();
        write(&folder, &status).unwrap();
        assert_eq!(read(&folder).unwrap().state, State::Running);
        status.heartbeat = "2020-01-01T00:00:00Z".into();
        write(&folder, &status).unwrap();
        assert_eq!(read(&folder).unwrap().state, State::Failed);
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        std::fs::write(folder.status_file(), "{").unwrap();
        assert!(read(&folder).unwrap_err().to_string().contains("status.json"));
    }
}
