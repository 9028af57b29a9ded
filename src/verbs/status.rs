//! `status`: where a run stands, and waiting for its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Answer, Reporter, Verb};
use crate::error::Result;
use crate::runs::folder::{RUNS, display};
use crate::runs::status::{self, Status};
use crate::runs::{RunFolder, State, Verdict, keys};
use crate::util::{clock, files, interrupt};

/// Show where a run stands; true even after its process was killed.
#[derive(Debug, Clone, Default, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The run: its id, the beginning of its id, or its folder. The latest run when left out.
    #[serde(default)]
    pub run: Option<String>,
    /// Wait up to this many seconds for the run to end.
    #[arg(long = "wait", value_name = "S", default_value_t = 0.0)]
    #[serde(default)]
    pub wait_s: f64,
    /// Pictures of loss and metric over steps, too.
    #[arg(skip)]
    #[serde(default)]
    pub curves: bool,
}

/// Where a run stands.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The run's id.
    pub run_id: String,
    /// Its folder.
    pub run_dir: PathBuf,
    /// `queued`, `running`, `done`, `failed` or `cancelled`.
    pub state: State,
    /// What it is at: `starting`, `queued`, `data`, `baseline`, `train`, `evaluate`, `save`, `publish`, `ended`.
    pub phase: String,
    /// When it was first started (UTC).
    pub started: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Optimizer steps of the whole run; 0 until known.
    pub total_steps: u64,
    /// Epochs done.
    pub epoch: f64,
    /// Seconds since its process took it up.
    pub seconds: f64,
    /// Seconds until the last step, estimated from the pace so far.
    pub remaining_seconds: Option<f64>,
    /// Seconds since it last said that it lives.
    pub heartbeat_age_seconds: f64,
    /// The process that runs it.
    pub pid: u32,
    /// Its exit code, once it ended by itself.
    pub exit_code: Option<i32>,
    /// The last values by name.
    pub metrics: BTreeMap<String, f64>,
    /// Why it failed, or the verdict line.
    pub message: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Its place among the runs that wait, 1 for the next, while it is queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// What it waits for, while it is queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The key it was started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The verdict, once it is done.
    pub verdict: Option<Verdict>,
    /// The metric's key.
    pub metric: Option<String>,
    /// The metric after training.
    pub score: Option<f64>,
    /// The metric before training.
    pub baseline: Option<f64>,
    /// The improvement.
    pub delta: Option<f64>,
    /// The trained model's folder, once it is there.
    pub model_dir: Option<PathBuf>,
    /// The adapter's folder in PEFT's format, of a run that trained one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_dir: Option<PathBuf>,
    /// The model's page on the Hub, where it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub_url: Option<String>,
    /// Why it was not published, though it was to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub_error: Option<String>,
    /// The log for people.
    pub log_file: PathBuf,
}

const POLL: Duration = Duration::from_millis(200);

impl Verb for Request {
    type Response = Response;

    fn run(self, _reporter: &mut dyn Reporter) -> Result<Response> {
        let folder = RunFolder::find(Path::new(RUNS), self.run.as_deref())?;
        Ok(Response::new(&folder, wait(&folder, self.wait_s)?))
    }

    fn answer_within(&mut self, seconds: f64) {
        self.wait_s = self.wait_s.min(seconds);
    }
}

/// The status once the run has ended or the time is over.
pub(super) fn wait(folder: &RunFolder, seconds: f64) -> Result<Status> {
    let deadline = Duration::try_from_secs_f64(seconds).ok().and_then(|wait| Instant::now().checked_add(wait));
    loop {
        let status = status::read(folder)?;
        let over = deadline.is_none_or(|d| Instant::now() >= d) || interrupt::requested();
        if !status.state.under_way() || over {
            return Ok(status);
        }
        std::thread::sleep(POLL);
    }
}

impl Response {
    /// Whether it has not ended.
    #[must_use]
    pub fn under_way(&self) -> bool {
        self.state.under_way()
    }

    /// Where it stands, in a line: `train, step 12 of 300, loss 1.2345, about 3 min left`.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = self.phase.clone();
        if self.state == State::Queued {
            return self.message.clone().unwrap_or(line);
        }
        if self.total_steps > 0 {
            line.push_str(&format!(", step {} of {}", self.step, self.total_steps));
        }
        if let Some(loss) = self.metrics.get("loss") {
            line.push_str(&format!(", loss {loss:.4}"));
        }
        if let Some(left) = self.remaining_seconds {
            line.push_str(&format!(", about {} left", clock::human(left)));
        }
        line
    }

    pub(super) fn new(folder: &RunFolder, status: Status) -> Self {
        let outcome = outcome(folder).filter(|_| status.state == State::Done);
        let field = |name: &str| outcome.as_ref().and_then(|o| o.get(name));
        let number = |name: &str| field(name).and_then(Value::as_f64);
        let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
        let running = status.state == State::Running;
        let hint = status.hint.clone().or_else(|| match status.state {
            State::Queued | State::Running => {
                Some(format!("wait for its end with `tallow status {} --wait 600`", status.run_id))
            }
            State::Cancelled => Some(format!("go on with `tallow run --resume {}`", status.run_id)),
            State::Done | State::Failed => None,
        });
        Self {
            run_dir: folder.dir(),
            remaining_seconds: remaining(&status).filter(|_| running),
            heartbeat_age_seconds: status.heartbeat_age().max(0.0),
            verdict: field("verdict").and_then(|v| serde_json::from_value(v.clone()).ok()),
            metric: text("metric"),
            score: number("score"),
            baseline: number("baseline"),
            delta: number("delta"),
            model_dir: text("model_dir").map(PathBuf::from),
            adapter_dir: text("adapter_dir").map(PathBuf::from),
            hub_url: text("hub_url"),
            hub_error: text("hub_error"),
            key: keys::of(folder),
            position: status.position.filter(|_| status.state == State::Queued),
            waits_for: status.waits_for.filter(|_| status.state == State::Queued),
            log_file: folder.log_file(&status.run_name),
            run_id: status.run_id,
            state: status.state,
            phase: status.phase,
            started: status.started,
            step: status.step,
            total_steps: status.total_steps,
            epoch: status.epoch,
            seconds: status.seconds,
            pid: status.process.pid,
            exit_code: status.exit_code,
            metrics: status.metrics,
            message: status.message,
            hint,
        }
    }
}

fn outcome(folder: &RunFolder) -> Option<Value> {
    serde_json::from_slice(&files::read(&folder.outcome_file()).ok()?).ok()
}

/// By the pace so far, evaluations and checkpoints included.
fn remaining(status: &Status) -> Option<f64> {
    let per_step = status.seconds_per_step.filter(|s| s.is_finite() && *s > 0.0)?;
    let steps = status.total_steps.checked_sub(status.step)?;
    (status.total_steps > 0).then_some(steps as f64 * per_step)
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = vec![format!("{}  {}", self.run_id, self.state.name())];
        if let Some(reason) = &self.waits_for {
            lines.push(format!("waits   at place {}: {reason}", self.position.unwrap_or_default()));
        } else if self.state == State::Running {
            let of = if self.total_steps > 0 { format!(" of {}", self.total_steps) } else { String::new() };
            let left = self.remaining_seconds.map(|s| format!(", about {} left", clock::human(s))).unwrap_or_default();
            lines.push(format!("phase   {}, step {}{of}, {}{left}", self.phase, self.step, clock::human(self.seconds)));
            lines.push(format!("alive   {} ago, process {}", clock::human(self.heartbeat_age_seconds), self.pid));
        } else {
            lines.push(format!("steps   {} of {} in {}", self.step, self.total_steps, clock::human(self.seconds)));
        }
        let shown = self.metrics.iter().filter(|(key, _)| *key == "loss" || Some(*key) == self.metric.as_ref());
        for (key, value) in shown {
            lines.push(format!("{key:<7} {value:.4}"));
        }
        lines.push(format!("folder  {}", display(&self.run_dir)));
        lines.push(format!("log     {}", display(&self.log_file)));
        if let Some(model) = &self.model_dir {
            lines.push(format!("model   {}", display(model)));
        }
        if let Some(hint) = &self.hint {
            lines.push(format!("next    {hint}"));
        }
        lines.extend(self.message.clone());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folder(state: State) -> (tempfile::TempDir, RunFolder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join(RUNS), "a").unwrap();
        let mut status = Status::starting(folder.run_id(), "a");
        (status.state, status.step, status.total_steps) = (state, 10, 30);
        status.seconds_per_step = Some(0.5);
        status::write(&folder, &status).unwrap();
        (dir, folder)
    }

    #[test]
    fn a_running_run_tells_what_is_left() {
        let (_dir, folder) = folder(State::Running);
        let response = Response::new(&folder, status::read(&folder).unwrap());
        assert_eq!(response.remaining_seconds, Some(10.0));
        assert!(response.human().contains("step 10 of 30"), "{}", response.human());
        assert!(response.hint.unwrap().contains("--wait"));
    }

    #[test]
    fn a_done_run_tells_its_verdict() {
        let (_dir, folder) = folder(State::Done);
        std::fs::write(folder.outcome_file(), r#"{"verdict": "WIN", "score": 0.8, "metric": "eval_x"}"#).unwrap();
        let response = Response::new(&folder, status::read(&folder).unwrap());
        assert_eq!((response.verdict, response.score, response.baseline), (Some(Verdict::Win), Some(0.8), None));
        assert_eq!(response.remaining_seconds, None);
    }

    #[test]
    fn waiting_ends_with_the_run_or_the_time() {
        let (_dir, done) = folder(State::Done);
        let begun = Instant::now();
        wait(&done, 30.0).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5));
        let (_dir, running) = folder(State::Running);
        let begun = Instant::now();
        assert_eq!(wait(&running, 0.5).unwrap().state, State::Running);
        assert!(begun.elapsed() >= Duration::from_millis(500));
        wait(&running, f64::NAN).unwrap();
    }

    #[test]
    fn fronts_cut_the_waiting() {
        let mut request = Request { run: None, wait_s: 600.0, curves: false };
        request.answer_within(24.0);
        assert_eq!(request.wait_s, 24.0);
    }
}
