//! `runs`: all runs of a folder, newest first.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Answer, Reporter, Verb};
use crate::error::Result;
use crate::runs::folder::{RUNS, display};
use crate::runs::status::{self, Status};
use crate::runs::{RunFolder, State, Verdict, keys};
use crate::util::{clock, files};

/// List the runs, newest first: how they stand, or how they ended.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The folder of runs, a recipe's `output_dir`.
    #[arg(default_value = RUNS)]
    #[serde(default = "folder")]
    pub folder: PathBuf,
    /// Only those in this state: `queued`, `running`, `done`, `failed` or `cancelled`.
    #[arg(long, value_name = "STATE", value_parser = state)]
    #[serde(default)]
    pub state: Option<State>,
    /// The most that are listed; 0 for all.
    #[arg(long, value_name = "N", default_value_t = default_limit())]
    #[serde(default = "default_limit")]
    pub limit: usize,
}

fn folder() -> PathBuf {
    RUNS.into()
}

const fn default_limit() -> usize {
    20
}

fn state(text: &str) -> std::result::Result<State, String> {
    let states = [State::Queued, State::Running, State::Done, State::Failed, State::Cancelled];
    let found = states.into_iter().find(|state| state.name() == text);
    found.ok_or_else(|| "give queued, running, done, failed or cancelled".to_owned())
}

/// The runs.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// Where they lie.
    pub folder: PathBuf,
    /// Newest first.
    pub runs: Vec<Row>,
    /// Those that were asked for, listed or not.
    pub total: usize,
}

/// One run.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Row {
    /// The run's id, for `status`, `cancel` and `run --resume`.
    pub run_id: String,
    /// `queued`, `running`, `done`, `failed` or `cancelled`; none where its status cannot be read.
    pub state: Option<State>,
    /// Optimizer steps done.
    pub step: u64,
    /// Optimizer steps of the whole run; 0 until known.
    pub total_steps: u64,
    /// The verdict, once it is done.
    pub verdict: Option<Verdict>,
    /// The metric after training.
    pub score: Option<f64>,
    /// The improvement; positive is better.
    pub delta: Option<f64>,
    /// The metric's key.
    pub metric: Option<String>,
    /// When it was started (UTC).
    pub started: String,
    /// How long it took, or has been under way.
    pub seconds: f64,
    /// The key it was started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why it failed, what it waits for, or why its status cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _reporter: &mut dyn Reporter) -> Result<Response> {
        let rows = RunFolder::all(&self.folder)?.into_iter().map(|folder| Row::new(&folder));
        let mut runs: Vec<Row> = rows.filter(|row| self.state.is_none() || row.state == self.state).collect();
        let total = runs.len();
        if self.limit > 0 {
            runs.truncate(self.limit);
        }
        Ok(Response { folder: files::absolute(&self.folder), runs, total })
    }
}

impl Row {
    fn new(folder: &RunFolder) -> Self {
        match status::read(folder) {
            Ok(status) => Self::of(folder, status),
            Err(error) => Self {
                run_id: folder.run_id().to_owned(),
                state: None,
                step: 0,
                total_steps: 0,
                verdict: None,
                score: None,
                delta: None,
                metric: None,
                started: folder.stamped(),
                seconds: 0.0,
                key: keys::of(folder),
                message: Some(error.to_string()),
            },
        }
    }

    fn of(folder: &RunFolder, status: Status) -> Self {
        let done = status.state == State::Done;
        let outcome = done.then(|| files::read(&folder.outcome_file()).ok()).flatten();
        let outcome: Value = outcome.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let number = |name: &str| outcome.get(name).and_then(Value::as_f64);
        Self {
            run_id: status.run_id,
            state: Some(status.state),
            step: status.step,
            total_steps: status.total_steps,
            verdict: outcome.get("verdict").and_then(|v| serde_json::from_value(v.clone()).ok()),
            score: number("score"),
            delta: number("delta"),
            metric: outcome.get("metric").and_then(Value::as_str).map(str::to_owned),
            started: status.started,
            seconds: number("seconds").unwrap_or(status.seconds),
            key: keys::of(folder),
            message: match status.state {
                State::Failed => status.message,
                State::Queued => status.waits_for,
                State::Running | State::Done | State::Cancelled => None,
            },
        }
    }

    /// The cells of the table.
    fn cells(&self) -> [String; 8] {
        let steps = match self.total_steps {
            0 => self.step.to_string(),
            total => format!("{}/{total}", self.step),
        };
        let number = |value: Option<f64>, sign: bool| match value {
            Some(value) if sign => format!("{value:+.4}"),
            Some(value) => format!("{value:.4}"),
            None => String::new(),
        };
        // `2026-08-21 10:20`
        let when = self.started.get(..16).unwrap_or(&self.started).replace('T', " ");
        [
            self.run_id.clone(),
            self.state.map_or("unreadable", State::name).to_owned(),
            steps,
            self.verdict.map_or_else(String::new, |verdict| verdict.name().to_owned()),
            number(self.score, false),
            number(self.delta, true),
            when,
            clock::human(self.seconds),
        ]
    }
}

const HEAD: [&str; 8] = ["run", "state", "step", "verdict", "score", "delta", "started (UTC)", "took"];

/// What is said of a run beside the table has this many characters at most.
const SHOWN: usize = 160;

impl Answer for Response {
    fn human(&self) -> String {
        if self.runs.is_empty() {
            return format!("no runs in `{}`", display(&self.folder));
        }
        let rows: Vec<[String; 8]> = self.runs.iter().map(Row::cells).collect();
        let head = HEAD.map(str::to_owned);
        let width = |column: usize| {
            std::iter::once(&head).chain(&rows).map(|cells| cells[column].chars().count()).max().unwrap_or_default()
        };
        let widths: [usize; 8] = std::array::from_fn(width);
        let line = |cells: &[String; 8]| {
            let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let mut lines = vec![line(&head)];
        for (row, cells) in self.runs.iter().zip(&rows) {
            lines.push(line(cells));
            if let Some(message) = &row.message {
                let first = message.lines().next().unwrap_or_default();
                lines.push(format!("  {}", first.chars().take(SHOWN).collect::<String>()));
            }
        }
        if self.total > self.runs.len() {
            lines.push(format!("and {} more: `--limit 0` lists all", self.total - self.runs.len()));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;

    fn list(runs: &Path, state: Option<State>, limit: usize) -> Response {
        Request { folder: runs.to_path_buf(), state, limit }.run(&mut |_: &str| {}).unwrap()
    }

    #[test]
    fn runs_are_listed_whatever_their_state() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join(RUNS);
        assert!(list(&runs, None, 0).human().starts_with("no runs in"));
        let put = |name: &str, started: &str, state: State| {
            let folder = RunFolder::create(&runs, name).unwrap();
            let mut status = Status::starting(folder.run_id(), name);
            (status.started, status.state, status.step, status.total_steps) = (started.to_owned(), state, 5, 20);
            status.message = Some("the disk is full".to_owned());
            status::write(&folder, &status).unwrap();
            folder
        };
        let done = put("a", "2026-01-01T10:20:30.5Z", State::Done);
        let outcome = r#"{"verdict": "WIN", "score": 0.81, "delta": 0.02, "metric": "eval_x", "seconds": 90.0}"#;
        std::fs::write(done.outcome_file(), outcome).unwrap();
        put("b", "2026-01-03T10:20:30.5Z", State::Failed);
        let broken = put("c", "2026-01-02T10:20:30.5Z", State::Running);
        std::fs::write(broken.status_file(), "{\"run").unwrap();

        let all = list(&runs, None, 0);
        let states: Vec<Option<State>> = all.runs.iter().map(|row| row.state).collect();
        assert!(states.contains(&None) && states.contains(&Some(State::Failed)), "{states:?}");
        let text = all.human();
        let of = |word: &str| text.lines().find(|line| line.contains(word)).unwrap();
        for part in ["done", "5/20", "WIN", "0.8100", "+0.0200", "2026-01-01 10:20", "1 min 30 s"] {
            assert!(of("WIN").contains(part), "{part}: {text}");
        }
        assert!(
            of("unreadable").starts_with(broken.run_id()) && text.contains("status.json` cannot be read"),
            "{text}"
        );
        assert!(text.contains("\n  the disk is full"), "{text}");

        let failed = list(&runs, Some(State::Failed), 1);
        assert_eq!((failed.runs.len(), failed.total, failed.runs[0].run_id.starts_with("b-")), (1, 1, true));
        let one = list(&runs, None, 1);
        assert!(one.human().ends_with("and 2 more: `--limit 0` lists all"), "{}", one.human());
        assert!(state("gone").is_err() && state("queued") == Ok(State::Queued));
    }
}
