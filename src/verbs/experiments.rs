//! `experiments`: what was tried, how two runs differ, and what to try next.

mod look;

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Answer, Reporter, Verb, next_recipe};
use crate::catalog::findings::findings;
use crate::catalog::iterate::{self, Facts, Past, Proposal, noise};
use crate::error::{Error, Result};
use crate::flow::ModelType;
use crate::recipe::Plan;
use crate::runs::RunFolder;
use crate::runs::experiments::compare::{Difference, differences, shown};
use crate::runs::experiments::{self, DEFAULT_FILE, Entry, Experiments, Written, effective_recipe};
use crate::runs::folder::{RUNS, display};
use crate::util::files;

/// What is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum Action {
    /// The runs so far, the newest first.
    #[default]
    List,
    /// What differs between two runs, and whether their scores do.
    Compare,
    /// One thing to change, or that it is time to stop.
    Propose,
}

/// List the runs so far, compare two, or propose what to try next.
///
/// `tallow experiments`, `tallow experiments compare A B`, `tallow experiments propose [RUN] -o next.toml`. A proposal
/// changes one thing: data and negatives first, then loss, batch size, learning rate; or it says stop.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What is asked.
    #[arg(value_enum, default_value_t = Action::List)]
    #[serde(default)]
    pub action: Action,
    /// Runs, by id, the beginning of an id, or folder: two to compare; the one to go on from, by default the best of the
    /// newest series.
    #[serde(default)]
    pub runs: Vec<String>,
    /// Only runs with this metric.
    #[arg(long, value_name = "KEY")]
    #[serde(default)]
    pub metric: Option<String>,
    /// Only runs of this type of model.
    #[arg(long, value_name = "TYPE", value_parser = super::engine::model_type)]
    #[serde(default)]
    pub model_type: Option<ModelType>,
    /// Only runs with this verdict: `WIN`, `MARGINAL`, `REGRESSION`, `NONE`, `FAILED`, `CANCELLED`.
    #[arg(long, value_name = "VERDICT")]
    #[serde(default)]
    pub verdict: Option<String>,
    /// So many runs at most.
    #[arg(long, value_name = "N", default_value_t = LISTED)]
    #[serde(default = "listed")]
    pub limit: usize,
    /// Write the proposed recipe here.
    #[arg(long, short, value_name = "FILE")]
    #[serde(default)]
    pub output: Option<PathBuf>,
    /// Write over a file that is there.
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
    /// Propose more also after a clear win.
    #[arg(long)]
    #[serde(default)]
    pub further: bool,
    /// Seconds that all runs of the series together may take.
    #[arg(long, value_name = "S")]
    #[serde(default)]
    pub budget_s: Option<f64>,
    /// The page of experiments. Default: `logs/experiments.md`.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub experiments: Option<PathBuf>,
}

const LISTED: usize = 20;

const fn listed() -> usize {
    LISTED
}

/// A run in short.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Listed {
    pub run_id: String,
    /// When it ended (UTC).
    pub date: String,
    pub verdict: String,
    pub metric: Option<String>,
    pub score: Option<f64>,
    pub baseline: Option<f64>,
    pub delta: Option<f64>,
    /// Where the delta lies at 95 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_interval: Option<[f64; 2]>,
    pub loss: String,
    pub settings: String,
    /// What differs from the run before with the same metric.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tried: String,
}

/// Two runs side by side.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Comparison {
    pub first: Listed,
    pub second: Listed,
    /// Keys of their plans that differ; names and places aside.
    pub differences: Vec<Difference>,
    /// Differences beyond those.
    pub more: usize,
    /// By how much the second is better; none where scores cannot be compared.
    pub gain: Option<f64>,
    /// How large a difference has to be to mean something.
    pub noise: Option<f64>,
    pub within_noise: Option<bool>,
    /// The same in a sentence.
    pub says: String,
}

/// What to try next.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Proposed {
    /// The run it goes on from.
    pub run: String,
    pub proposal: Proposal,
    /// The keys it changes, before and after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Difference>,
    /// What trains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(skip)]
    #[schemars(skip)]
    written: Option<Written>,
}

/// The answer: one of its parts.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The runs, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub experiments: Vec<Listed>,
    /// How many there are.
    pub total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposed: Option<Proposed>,
    /// The recipe that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<PathBuf>,
    pub next: String,
    #[serde(skip)]
    #[schemars(skip)]
    action: Action,
}

/// How a proposal is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub further: bool,
    pub budget_s: Option<f64>,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _: &mut dyn Reporter) -> Result<Response> {
        let page = self.experiments.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let known = experiments::read(&page)?;
        let named = self.runs.len();
        let wanted = match self.action {
            Action::List => 0..=0,
            Action::Compare => 2..=2,
            Action::Propose => 0..=1,
        };
        if !wanted.contains(&named) {
            return Err(Error::usage(format!("{named} runs were named")).with_hint(
                "it is `tallow experiments`, `tallow experiments compare A B` or `tallow experiments propose [RUN]`",
            ));
        }
        if self.output.is_some() && self.action != Action::Propose {
            return Err(Error::usage("only a proposal is written to a file")
                .with_hint("`tallow experiments propose -o next.toml`"));
        }
        match self.action {
            Action::List => Ok(self.list(&known, &page)),
            Action::Compare => {
                let comparison = compare(&known, &self.runs[0], &self.runs[1])?;
                let next = "`tallow experiments propose` says what to try next".to_owned();
                Ok(Response { comparison: Some(comparison), ..Response::new(self.action, &known, next) })
            }
            Action::Propose => self.propose(&known),
        }
    }
}

impl Response {
    fn new(action: Action, known: &Experiments, next: String) -> Self {
        Self {
            experiments: Vec::new(),
            total: known.entries.len(),
            comparison: None,
            proposed: None,
            recipe: None,
            next,
            action,
        }
    }
}

impl Request {
    fn list(&self, known: &Experiments, page: &Path) -> Response {
        let bare = |metric: &str| metric.strip_prefix("eval_").unwrap_or(metric).to_owned();
        let fits = |entry: &&Entry| {
            let metric = self
                .metric
                .as_deref()
                .is_none_or(|wanted| entry.metric.as_deref().is_some_and(|metric| bare(metric) == bare(wanted)));
            let verdict = self.verdict.as_deref().is_none_or(|wanted| entry.verdict.eq_ignore_ascii_case(wanted));
            metric && verdict && (self.model_type.is_none() || entry.model_type == self.model_type)
        };
        let fitting: Vec<&Entry> = known.entries.iter().rev().filter(fits).collect();
        let next = match known.entries.is_empty() {
            true => format!("`{}` has no runs yet: `tallow run RECIPE.toml` enters one", page.display()),
            false => "`tallow experiments compare A B`, or `tallow experiments propose`".to_owned(),
        };
        let experiments = fitting.iter().take(self.limit).map(|entry| Listed::from(*entry)).collect();
        Response { experiments, total: fitting.len(), ..Response::new(self.action, known, next) }
    }

    fn propose(&self, known: &Experiments) -> Result<Response> {
        let options = Options { further: self.further, budget_s: self.budget_s };
        let proposed = proposed(known, self.runs.first().map(String::as_str), &options)?;
        let Proposal { stop, set, what, .. } = &proposed.proposal;
        let mut recipe = None;
        let next = match (&self.output, &proposed.written) {
            _ if *stop => "no further run is proposed".to_owned(),
            _ if set.is_empty() => format!("by hand: {what}"),
            (Some(output), Some(written)) => {
                let broken = next_recipe::write(output, self.force, written, set, &proposed.about())?;
                recipe = Some(output.clone());
                let file = output.display();
                match broken {
                    Some(broken) => format!("`tallow check {file}` finds {broken}; then `tallow smoke-test {file}`"),
                    None => format!("`tallow smoke-test {file}`, then `tallow run {file}`"),
                }
            }
            (None, Some(_)) if proposed.command.is_some() => {
                "run it, or write its recipe with `-o next.toml`".to_owned()
            }
            (None, Some(written)) => {
                let file = written.path.display();
                format!("write it with `-o next.toml`: `{file}` is no longer the recipe of that run")
            }
            (_, None) => "set these values in the script, and run it under another `RUN_NAME`".to_owned(),
        };
        Ok(Response { proposed: Some(proposed), recipe, ..Response::new(self.action, known, next) })
    }
}

impl From<&Entry> for Listed {
    fn from(entry: &Entry) -> Self {
        Self {
            run_id: entry.run_id.clone(),
            date: entry.date.clone(),
            verdict: entry.verdict.clone(),
            metric: entry.metric.clone(),
            score: entry.score,
            baseline: entry.baseline,
            delta: entry.delta,
            delta_interval: entry.delta_interval,
            loss: entry.loss.clone(),
            settings: entry.settings.clone(),
            tried: entry.tried.clone(),
        }
    }
}

/// Differences that are listed at most.
const MOST: usize = 30;

/// Two runs side by side.
///
/// # Errors
/// When one is not among the experiments.
pub fn compare(known: &Experiments, first: &str, second: &str) -> Result<Comparison> {
    let (first, second) = (known.find(first)?, known.find(second)?);
    let mut differences = differences(&first.plan, &second.plan);
    let more = differences.len().saturating_sub(MOST);
    differences.truncate(MOST);
    let gain = noise::gain(&first.past(), &second.past()).filter(|_| first.measured_as(second));
    let says = match gain {
        None => "their scores cannot be compared: another metric, other held-out rows, or no score".to_owned(),
        Some(gain) => format!(
            "`{}` is {:+.4} against `{}`, {} {:.4}",
            second.run_id,
            gain.gain,
            first.run_id,
            if gain.is_noise() { "within noise of" } else { "more than noise of" },
            gain.noise
        ),
    };
    Ok(Comparison {
        first: first.into(),
        second: second.into(),
        differences,
        more,
        gain: gain.map(|gain| gain.gain),
        noise: gain.map(|gain| gain.noise),
        within_noise: gain.map(noise::Gain::is_noise),
        says,
    })
}

/// What the rules say about going on from `run`, or from the best run of the newest series. Data are looked at where they
/// are small files of this machine.
///
/// # Errors
/// When there is no such run, or none at all.
pub fn proposed(known: &Experiments, run: Option<&str>, options: &Options) -> Result<Proposed> {
    let newest = known.entries.last().ok_or_else(|| {
        Error::usage("there is no run to go on from")
            .with_hint("`tallow run RECIPE.toml` makes one; `tallow log --script-log FILE` enters that of a script")
    })?;
    let named = run.map(|run| known.find(run)).transpose()?;
    let series = |entry: &Entry| -> Vec<&Entry> {
        let own = |other: &&Entry| other.run_id == entry.run_id || other.measured_as(entry);
        known.entries.iter().filter(own).collect()
    };
    let members = series(named.unwrap_or(newest));
    let history: Vec<Past> = members.iter().map(|entry| entry.past()).collect();
    let from = match named {
        Some(entry) => entry.run_id.clone(),
        // a run that failed is mended first
        None if newest.score.is_none() => newest.run_id.clone(),
        None => iterate::best(&history).map_or_else(|| newest.run_id.clone(), |past| past.run_id.clone()),
    };
    let entry = known.find(&from)?;
    let past = entry.past();
    let folder = folder(entry);
    let written = folder.as_ref().and_then(|folder| effective_recipe(folder).ok());
    let unchanged = folder.as_ref().zip(written.as_ref()).is_some_and(|(folder, own)| is_unchanged(folder, own));
    let plan = folder.and_then(|folder| Plan::load(&folder.plan_file()).ok());
    let data = plan.as_ref().and_then(look::look_at);
    let findings = data.as_ref().map(findings).unwrap_or_default();
    let tables = written.as_ref().map(|written| written.tables.clone()).unwrap_or_default();
    let facts = Facts {
        model_type: entry.model_type.unwrap_or_default(),
        run: &past,
        history: &history,
        recipe: &tables,
        data: data.as_ref(),
        findings: &findings,
        further: options.further,
        budget_s: options.budget_s,
    };
    let proposal = iterate::propose(&facts);
    let command = written
        .as_ref()
        .filter(|_| unchanged && !proposal.stop && !proposal.set.is_empty())
        .map(|written| next_recipe::command(written, &proposal.set));
    let changes = changes(&facts, &proposal.set);
    Ok(Proposed { run: from, proposal, changes, command, written })
}

/// The keys that are set, with what they were: as written, else as planned.
fn changes(facts: &Facts<'_>, set: &Map<String, Value>) -> Vec<Difference> {
    let before = |key: &str| facts.written(key).or_else(|| facts.run.settings.get(key)).cloned().unwrap_or(Value::Null);
    set.iter().map(|(key, value)| Difference { key: key.clone(), first: before(key), second: value.clone() }).collect()
}

/// Whether the file that a run's recipe was read from still says what it said then.
fn is_unchanged(folder: &RunFolder, written: &Written) -> bool {
    match (files::read(&written.path), files::read(&folder.recipe_file())) {
        (Ok(now), Ok(then)) => now == then,
        _ => false,
    }
}

/// The folder of an entry's run, where it is still there.
fn folder(entry: &Entry) -> Option<RunFolder> {
    let own = entry.run_dir.as_ref().and_then(|dir| RunFolder::open(dir).ok());
    own.or_else(|| RunFolder::find(Path::new(RUNS), Some(&entry.run_id)).ok())
}

impl Proposed {
    /// What it says, for the head of a recipe.
    fn about(&self) -> Vec<String> {
        let Proposal { rule, what, why, .. } = &self.proposal;
        vec![format!("After {}, one thing changed ({rule}): {what}.", self.run), format!("Why: {why}.")]
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let Proposal { rule, stop, what, why, evidence, mind, .. } = &self.proposal;
        let mut lines = vec![format!("{}    {what} ({rule})", if *stop { "stop" } else { "try " })];
        if !why.is_empty() {
            lines.push(format!("because {why}"));
        }
        lines.extend(evidence.iter().map(|evidence| format!("seen    {evidence}")));
        let change = |d: &Difference| format!("change  {}: {} -> {}", d.key, shown(&d.first), shown(&d.second));
        lines.extend(self.changes.iter().map(change));
        lines.extend(mind.iter().map(|mind| format!("mind    {mind}")));
        lines.extend(self.command.iter().map(|command| format!("command {command}")));
        lines
    }
}

impl Listed {
    fn line(&self) -> String {
        let number = |x: Option<f64>| x.map_or_else(|| "n/a".to_owned(), |x| format!("{x:.4}"));
        let delta = self.delta.map_or_else(|| "n/a".to_owned(), |delta| format!("{delta:+.4}"));
        let metric = self.metric.as_deref().unwrap_or("no metric");
        let settings: Vec<&str> = [self.loss.as_str(), &self.settings].into_iter().filter(|t| !t.is_empty()).collect();
        format!(
            "{:<10} {} {delta:>8}  {}  {metric}  {}",
            self.verdict,
            number(self.score),
            self.run_id,
            settings.join(", ")
        )
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = Vec::new();
        match self.action {
            Action::List => {
                lines.extend(self.experiments.iter().map(Listed::line));
                let more = self.total.saturating_sub(self.experiments.len());
                if more > 0 {
                    lines.push(format!("and {more} more (`--limit`)"));
                }
            }
            Action::Compare => {
                if let Some(found) = &self.comparison {
                    lines.extend([found.first.line(), found.second.line()]);
                    let line =
                        |d: &Difference| format!("differs {}: {} -> {}", d.key, shown(&d.first), shown(&d.second));
                    lines.extend(found.differences.iter().map(line));
                    if found.more > 0 {
                        lines.push(format!("and {} more", found.more));
                    }
                    lines.push(format!("so      {}", found.says));
                }
            }
            Action::Propose => {
                if let Some(proposed) = &self.proposed {
                    lines.push(format!("from    {}", proposed.run));
                    lines.extend(proposed.lines());
                }
                lines.extend(self.recipe.iter().map(|recipe| format!("wrote   {}", display(recipe))));
            }
        }
        lines.push(format!("next    {}", self.next));
        lines.join("\n")
    }
}
