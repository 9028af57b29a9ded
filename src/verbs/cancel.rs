//! `cancel`: stops a run; its state is saved and it can be resumed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::wait;
use super::{Answer, Reporter, Verb};
use crate::error::{Error, Result};
use crate::runs::folder::RUNS;
use crate::runs::status::{self, Status};
use crate::runs::{RunFolder, State};

/// Stop a run: it ends its step, writes a checkpoint and can be resumed.
///
/// One that is queued leaves the queue at once.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The run: its id, the beginning of its id, or its folder.
    pub run: String,
    /// How many seconds to wait for its end.
    #[arg(long = "wait", value_name = "S", default_value_t = default_wait())]
    #[serde(default = "default_wait")]
    pub wait_s: f64,
}

const fn default_wait() -> f64 {
    20.0
}

/// What became of the run.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The run's id.
    pub run_id: String,
    /// Its folder.
    pub run_dir: PathBuf,
    /// `cancelled`; `running` while it is still saving its state; how it had ended if it was not running.
    pub state: State,
    /// Optimizer steps done.
    pub step: u64,
    /// What happened, and what to do next.
    pub message: String,
}

/// Until a run's own process has taken it up, its status names the one that starts it, which may be a server with other
/// things to do: it is waited for.
fn taken_up(folder: &RunFolder, mut status: Status, wait_s: f64) -> Result<Status> {
    let deadline = Instant::now() + Duration::from_secs_f64(wait_s.clamp(1.0, 10.0));
    while status.state.under_way() && status.phase == "starting" && !folder.held() {
        if Instant::now() >= deadline {
            return Err(Error::usage(format!("the process of run `{}` has not begun yet", folder.run_id()))
                .with_hint("try again in a moment"));
        }
        std::thread::sleep(Duration::from_millis(50));
        status = status::read(folder)?;
    }
    Ok(status)
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _reporter: &mut dyn Reporter) -> Result<Response> {
        let folder = RunFolder::find(Path::new(RUNS), Some(&self.run))?;
        let before = status::read(&folder)?;
        let id = folder.run_id();
        if !before.state.under_way() {
            let message = format!("nothing to stop: the run had already ended as {}", before.state.name());
            return Ok(Response::new(&folder, before.state, before.step, message));
        }
        let before = taken_up(&folder, before, self.wait_s)?;
        if before.state.under_way() {
            before.process.terminate()?;
        }
        let after = wait(&folder, self.wait_s)?;
        let message = match after.state {
            State::Queued | State::Running => {
                format!("asked to stop; it is saving its state: `tallow status {id} --wait 60`")
            }
            State::Cancelled if before.state == State::Queued => {
                format!("taken out of the queue; start it again with `tallow run --resume {id}`")
            }
            State::Cancelled => format!("stopped and saved; go on with `tallow run --resume {id}`"),
            State::Done => "it ended before the request reached it".to_owned(),
            State::Failed => after.message.unwrap_or_else(|| "it failed while stopping".to_owned()),
        };
        Ok(Response::new(&folder, after.state, after.step, message))
    }

    fn answer_within(&mut self, seconds: f64) {
        self.wait_s = self.wait_s.min(seconds);
    }
}

impl Response {
    fn new(folder: &RunFolder, state: State, step: u64, message: String) -> Self {
        Self { run_id: folder.run_id().to_owned(), run_dir: folder.dir(), state, step, message }
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        format!("{}  {} at step {}\n{}", self.run_id, self.state.name(), self.step, self.message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runs::Status;

    #[test]
    fn a_run_that_has_ended_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join(RUNS), "a").unwrap();
        let mut ended = Status::starting(folder.run_id(), "a");
        ended.state = State::Done;
        status::write(&folder, &ended).unwrap();
        let request = Request { run: folder.dir().display().to_string(), wait_s: 5.0 };
        let response = request.run(&mut |_: &str| {}).unwrap();
        assert_eq!(response.state, State::Done);
        assert!(response.message.contains("already ended as done"));
        // what is not taken up yet may be in the hands of a server
        status::write(&folder, &Status::starting(folder.run_id(), "a")).unwrap();
        let early = Request { run: folder.dir().display().to_string(), wait_s: 0.0 };
        assert!(early.run(&mut |_: &str| {}).unwrap_err().to_string().contains("not begun yet"));
        let stranger = Request { run: "no-such-run".into(), wait_s: 0.0 };
        assert!(stranger.run(&mut |_: &str| {}).is_err());
    }
}
