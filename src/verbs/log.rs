//! `log`: enters a run into the experiments, or says more about one that is there.

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::experiments::{Options, Proposed, proposed};
use super::{Answer, Reporter, Verb};
use crate::error::{Error, Result};
use crate::runs::RunFolder;
use crate::runs::experiments::{self, Entry, beside_log, jsonl, read_log};
use crate::runs::folder::{RUNS, display};

/// Enter a run into `logs/experiments.md` and `experiments.jsonl`, or add a note to its entry, and say what to try next.
///
/// Runs of `tallow run` enter themselves. A run that a Python script of `tallow render` made is entered from its log: the
/// last `VERDICT:` line, and what the script beside it says.
#[derive(Debug, Clone, Default, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A run: its id, the beginning of its id, or its folder.
    #[serde(default)]
    pub run: Option<String>,
    /// The log of a training script, in place of a run: `logs/RUN_NAME.log`.
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    #[serde(default)]
    pub script_log: Option<PathBuf>,
    /// The script that wrote it. Default: the one beside the folder of the log that has its `RUN_NAME`.
    #[arg(long, value_name = "FILE", requires = "script_log")]
    #[serde(default)]
    pub script: Option<PathBuf>,
    /// Something to remember about the run.
    #[arg(long, value_name = "TEXT")]
    #[serde(default)]
    pub note: Option<String>,
    /// What was learned, in your words, in place of what the numbers say.
    #[arg(long, value_name = "TEXT")]
    #[serde(default)]
    pub learned: Option<String>,
    /// The page of experiments. Default: `logs/experiments.md` beside the folder of runs or in the folder of the log.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub experiments: Option<PathBuf>,
}

/// The entry.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    pub run_id: String,
    /// Whether the run had an entry before.
    pub renewed: bool,
    /// `WIN`, `MARGINAL`, `REGRESSION`, `NONE`, `FAILED` or `CANCELLED`.
    pub verdict: String,
    pub metric: Option<String>,
    pub score: Option<f64>,
    pub baseline: Option<f64>,
    pub delta: Option<f64>,
    /// Where the delta lies at 95 %.
    pub delta_interval: Option<[f64; 2]>,
    /// What differs from the run before with the same metric.
    pub tried: String,
    /// What the numbers say, or what was said.
    pub learned: String,
    /// The page for people.
    pub experiments: PathBuf,
    /// The same for programs.
    pub jsonl: PathBuf,
    /// What to try next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposed: Option<Proposed>,
    pub next: String,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _: &mut dyn Reporter) -> Result<Response> {
        let (page, entry, renewed) = match (&self.run, &self.script_log) {
            (Some(run), None) => self.of_run(run)?,
            (None, Some(log)) => {
                let page = self.experiments.clone().unwrap_or_else(|| beside_log(log));
                let entry = read_log(log, self.script.as_deref(), &page)?;
                let (entry, renewed) = experiments::enter(&page, entry)?;
                (page, entry, renewed)
            }
            _ => {
                return Err(Error::usage("one run is needed, or the log of one script").with_hint(
                    "use `tallow log RUN`, or `tallow log --script-log logs/NAME.log` for a run of a Python script",
                ));
            }
        };
        let entry = match (&self.note, &self.learned) {
            (None, None) => entry,
            (note, learned) => experiments::amend(&page, &entry.run_id, note.as_deref(), learned.as_deref())?,
        };
        let known = experiments::read(&page)?;
        let proposed = proposed(&known, Some(&entry.run_id), &Options::default()).ok();
        let next = match &proposed {
            Some(proposed) if proposed.proposal.stop => proposed.proposal.what.clone(),
            Some(_) => format!("`tallow experiments propose {} -o next.toml` writes what is proposed", entry.run_id),
            None => "`tallow experiments` lists them all".to_owned(),
        };
        Ok(Response {
            renewed,
            verdict: entry.verdict,
            metric: entry.metric,
            score: entry.score,
            baseline: entry.baseline,
            delta: entry.delta,
            delta_interval: entry.delta_interval,
            tried: entry.tried,
            learned: entry.said.unwrap_or(entry.learned),
            run_id: entry.run_id,
            jsonl: jsonl(&page),
            experiments: page,
            proposed,
            next,
        })
    }
}

impl Request {
    /// The entry of a run, made of its folder where there is none yet or nothing is to be added.
    fn of_run(&self, run: &str) -> Result<(PathBuf, Entry, bool)> {
        let folder = RunFolder::find(Path::new(RUNS), Some(run));
        let page = match (&self.experiments, &folder) {
            (Some(page), _) => page.clone(),
            (None, Ok(folder)) => folder.experiments_file(),
            (None, Err(_)) => PathBuf::from(experiments::DEFAULT_FILE),
        };
        let known = experiments::read(&page)?;
        let id = folder.as_ref().map_or(run, RunFolder::run_id);
        if (self.note.is_some() || self.learned.is_some() || folder.is_err())
            && let Ok(entry) = known.find(id)
        {
            return Ok((page, entry.clone(), true));
        }
        let (entry, renewed) = experiments::enter(&page, Entry::of_folder(&folder?)?)?;
        Ok((page, entry, renewed))
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let what = if self.renewed { "renewed" } else { "entered" };
        let mut lines = vec![format!("{what} {} in {}", self.run_id, display(&self.experiments))];
        let number = |x: Option<f64>| x.map_or_else(|| "n/a".to_owned(), |x| format!("{x:.4}"));
        let metric = self.metric.as_deref().unwrap_or("no metric");
        let (score, baseline) = (number(self.score), number(self.baseline));
        lines.push(format!("result  {}, {metric} {score}, before {baseline}", self.verdict));
        lines.push(format!("tried   {}", self.tried));
        lines.push(format!("learned {}", self.learned));
        if let Some(proposed) = &self.proposed {
            lines.extend(proposed.lines());
        }
        lines.push(format!("next    {}", self.next));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_run_or_one_log() {
        let mut silent = |_: &str| {};
        let both = Request { run: Some("a".into()), script_log: Some("b".into()), ..Request::default() };
        for request in [Request::default(), both] {
            assert!(request.run(&mut silent).unwrap_err().hint().unwrap().contains("--script-log"));
        }
        let missing = Request { script_log: Some("/nonexistent/a.log".into()), ..Request::default() };
        assert!(missing.run(&mut silent).unwrap_err().to_string().contains("/nonexistent/a.log"));
    }
}
