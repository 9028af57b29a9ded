//! `run`: trains a model by a recipe, in a folder of its own, to a verdict.

mod detached;
mod existing;
mod gate;
mod turn;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::publish::{Publishing, publish};
use super::{Answer, Reporter, Verb, engine, record};
use crate::error::{Error, Result};
use crate::flow::ModelType;
use crate::recipe::Plan;
use crate::runs::experiments::{self, Entry};
use crate::runs::folder::{RUNS, display};
use crate::runs::status::{self, PUBLISH, Status};
use crate::runs::trackers::{End, Trackers};
use crate::runs::verdict::Judgement;
use crate::runs::{Ending, Recorder, RunFolder, State, Verdict, keys, queue, report};
use crate::train::Outcome;
use crate::train::events::{Event, Listener};
use crate::util::{clock, files, interrupt, memory};

/// What `--resume` without a run means.
const LATEST: &str = "latest";

/// Train a model by a recipe.
///
/// Evaluates before and after, saves the model with its card, enters `logs/experiments.md` and ends with a `VERDICT:`
/// line; all of it lies in `runs/<run_id>/`. It wants a smoke test of the same recipe, settings and data that was passed,
/// and waits while another run trains on this machine.
#[derive(Debug, Clone, Default, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The recipe, a TOML file. May be left out when `resume` names a run.
    #[serde(default)]
    pub recipe: Option<PathBuf>,
    /// Override one value of the recipe, as `args.max_steps=10`. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    #[serde(default)]
    pub set: Vec<String>,
    /// Go on with an unfinished run from its last checkpoint, by its saved plan: a run's id or folder, or `latest`
    /// for the newest unfinished run with the recipe's `run_name`.
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = LATEST)]
    #[serde(default)]
    pub resume: Option<String>,
    /// A name for this start: a second one with the same key starts nothing and answers with the run that there is.
    #[arg(long, value_name = "KEY")]
    #[serde(default)]
    pub key: Option<String>,
    /// Begin without a smoke test.
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
    /// Begin at once, beside the runs that are under way on this machine.
    #[arg(long)]
    #[serde(default)]
    pub now: bool,
    /// Return at once; the run goes on as a process of its own and outlives the terminal.
    #[arg(long)]
    #[serde(skip)]
    pub detach: bool,
    /// Also save the model as it was before the first step.
    #[arg(skip)]
    #[serde(skip)]
    pub keep_base: bool,
    /// Take up a run whose folder another process prepared.
    #[arg(long, hide = true, conflicts_with_all = ["recipe", "resume", "set", "detach", "key", "force"])]
    #[serde(skip)]
    pub prepared: Option<PathBuf>,
}

/// How a run ended, or that it was started.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Response {
    /// The run's id, for `status` and `cancel`.
    pub run_id: String,
    /// Its folder.
    pub run_dir: PathBuf,
    /// `done`, or `running` or `queued` for a run that was started and left alone.
    pub state: State,
    /// Whether this call started or resumed it; false for a run that had the key already.
    #[serde(default)]
    pub started: bool,
    /// The key it was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The trained model's folder, once it is there.
    pub model_dir: Option<PathBuf>,
    /// The adapter's folder in PEFT's format, of a run that trained one; `model_dir` has it merged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_dir: Option<PathBuf>,
    /// Its page on the Hub, where it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_url: Option<String>,
    /// Why it was not published, though it was to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_error: Option<String>,
    /// sentence-transformers' class.
    pub model_type: ModelType,
    /// Optimizer steps done.
    pub steps: Option<u64>,
    /// `WIN` at a delta of 0.005 or more, `MARGINAL` at 0 or more, else `REGRESSION`; `NONE` when there was
    /// nothing to compare.
    pub verdict: Option<Verdict>,
    /// The metric after training.
    pub score: Option<f64>,
    /// The metric before training.
    pub baseline: Option<f64>,
    /// The improvement; positive is better, for losses too.
    pub delta: Option<f64>,
    /// The metric's key, as in `metric_for_best_model`.
    pub metric: Option<String>,
    /// How long it took.
    pub seconds: Option<f64>,
    /// The most memory the process had.
    pub peak_memory_bytes: Option<u64>,
    /// The model before training, where it was asked to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model_dir: Option<PathBuf>,
    /// The page that shows what the run did; missing where it could not be written, and while the run goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<PathBuf>,
    /// What to do next.
    pub next: String,
    /// The last line for people.
    #[serde(skip)]
    #[schemars(skip)]
    pub verdict_line: Option<String>,
    /// The line before it, where the metric's items are known.
    #[serde(skip)]
    #[schemars(skip)]
    pub interval_line: Option<String>,
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = vec![format!("run    {}", self.run_id), format!("folder {}", display(&self.run_dir))];
        if let Some(model) = &self.model_dir {
            lines.push(format!("model  {}", display(model)));
        }
        if let Some(adapter) = &self.adapter_dir {
            lines.push(format!("adapter {}", display(adapter)));
        }
        if let (Some(steps), Some(seconds), Some(bytes)) = (self.steps, self.seconds, self.peak_memory_bytes) {
            lines.push(format!(
                "took   {steps} steps in {}, peak memory {}",
                clock::human(seconds),
                memory::human(bytes)
            ));
        }
        if let Some(report) = &self.report {
            lines.push(format!("report {}", display(report)));
        }
        lines.push(format!("next   {}", self.next));
        lines.extend(self.interval_line.clone());
        lines.extend(self.verdict_line.clone());
        lines.join("\n")
    }
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        let detach = self.detach;
        let keep_base = self.keep_base;
        match prepare(self, !detach)? {
            Prepared::Existing(response) => Ok(*response),
            Prepared::Job(job) if detach => detached::start(&job),
            Prepared::Job(job) => execute(*job, keep_base, reporter),
        }
    }
}

/// What a request comes to.
enum Prepared {
    Job(Box<Job>),
    /// Its key has a run.
    Existing(Box<Response>),
}

/// A run about to be executed.
struct Job {
    plan: Plan,
    folder: RunFolder,
    notes: Vec<String>,
    /// Whether an earlier process had begun it.
    resume: bool,
    /// Where the folder may be taken away again when nothing came of the run: the folders around it that were not
    /// there before, innermost first.
    ours: Option<Vec<PathBuf>>,
    /// Whether it begins beside others.
    now: bool,
}

fn prepare(mut request: Request, foreground: bool) -> Result<Prepared> {
    queue::most()?;
    if let Some(dir) = &request.prepared {
        let folder = RunFolder::open(dir)?;
        let plan = Plan::load(&folder.plan_file())?;
        let job = Job { plan, folder, notes: Vec::new(), resume: false, ours: None, now: request.now };
        return Ok(Prepared::Job(Box::new(job)));
    }
    // `run --resume recipe.toml`: the recipe was taken for the name of a run
    if let (None, Some(named)) = (&request.recipe, &request.resume)
        && named.ends_with(".toml")
        && Path::new(named).is_file()
    {
        request.recipe = request.resume.replace(LATEST.to_owned()).map(PathBuf::from);
    }
    match &request.resume {
        Some(run) => resume(run, &request).map(|job| Prepared::Job(Box::new(job))),
        None => begin(&request, foreground),
    }
}

fn begin(request: &Request, foreground: bool) -> Result<Prepared> {
    let Some(recipe) = &request.recipe else {
        return Err(Error::usage("no recipe was named").with_hint("use `tallow run RECIPE.toml`, or `--resume RUN`"));
    };
    if let Some(key) = &request.key {
        keys::check(key)?;
    }
    let (plan, notes) = engine::plan(recipe, &request.set)?;
    if let Some(key) = &request.key
        && let Some(response) = existing::find(&plan, key)?
    {
        return Ok(Prepared::Existing(Box::new(response)));
    }
    gate::check(&plan, request)?;
    engine::check_push(&plan)?;
    let made = RunFolder::missing_around(&plan.output_dir);
    // until the run has its key nobody else looks for one, and somebody may have been faster
    let looking = request.key.as_ref().map(|_| keys::lock(&plan.output_dir)).transpose()?;
    if let Some(key) = &request.key
        && let Some(folder) = keys::find(&plan.output_dir, key)?
    {
        // the answer looks at the data, which may take longer than others want to wait
        drop(looking);
        return Ok(Prepared::Existing(Box::new(existing::answer(&plan, &folder, key)?)));
    }
    let folder = RunFolder::create(&plan.output_dir, &plan.run_name)?;
    let fill = || -> Result<()> {
        // first: a start that is cut off here is a run that failed, and a look at any moment finds a state
        status::write(&folder, &Status::starting(folder.run_id(), &plan.run_name))?;
        plan.save(&folder.plan_file())?;
        files::copy(recipe, &folder.recipe_file())?;
        experiments::keep_sets(&folder, &request.set)?;
        request.key.as_deref().map_or(Ok(()), |key| keys::keep(&folder, key))
    };
    if let Err(error) = fill() {
        let _ = folder.withdraw(&made);
        return Err(error);
    }
    drop(looking);
    let ours = foreground.then_some(made);
    Ok(Prepared::Job(Box::new(Job { plan, folder, notes, resume: false, ours, now: request.now })))
}

fn resume(run: &str, request: &Request) -> Result<Job> {
    if !request.set.is_empty() {
        return Err(Error::usage("a resumed run goes on by its saved plan, so `--set` cannot change it")
            .with_hint("start a new run without `--resume`"));
    }
    if request.key.is_some() {
        return Err(Error::usage("a resumed run keeps the key it has, so `--key` cannot change it")
            .with_hint("leave `--key` out, or start a new run without `--resume`"));
    }
    let wanted = match &request.recipe {
        Some(recipe) => Some(engine::plan(recipe, &[])?.0),
        None => None,
    };
    let folder = match (run, &wanted) {
        (LATEST, Some(plan)) => RunFolder::latest_unfinished(&plan.output_dir, &plan.run_name)?,
        (LATEST, None) => {
            return Err(Error::usage("`--resume` needs a recipe or a run")
                .with_hint("use `tallow run RECIPE.toml --resume`, or `tallow run --resume RUN`"));
        }
        (id, plan) => RunFolder::find(plan.as_ref().map_or(Path::new(RUNS), |p| &p.output_dir), Some(id))?,
    };
    let status = status::read(&folder)?;
    match status.state {
        State::Queued => {
            return Err(Error::usage(format!("run `{}` waits for its turn", folder.run_id()))
                .with_hint(format!("follow it with `tallow status {}`", folder.run_id())));
        }
        State::Running => {
            return Err(Error::usage(format!("run `{}` is still running", folder.run_id()))
                .with_hint(format!("follow it with `tallow status {}`", folder.run_id())));
        }
        State::Done => {
            return Err(Error::usage(format!("run `{}` is done", folder.run_id()))
                .with_hint(format!("its model is in `{}`", display(&folder.model_dir()))));
        }
        State::Failed | State::Cancelled => {}
    }
    if !folder.planned() {
        return Err(Error::usage(format!("run `{}` was cut off before its plan was written", folder.run_id()))
            .with_hint("there is nothing to go on with: start it anew with `tallow run RECIPE.toml`"));
    }
    let plan = Plan::load(&folder.plan_file())?;
    engine::check_push(&plan)?;
    let (id, state) = (folder.run_id(), status.state.name());
    let mut notes = vec![match folder.checkpoint_step()? {
        Some(step) => format!("going on with run `{id}` ({state}) from its checkpoint at step {step}"),
        None => format!("run `{id}` ({state}) has no checkpoint: it starts again from step 0"),
    }];
    if let Some(recipe) = &request.recipe
        && files::read(recipe).ok() != files::read(&folder.recipe_file()).ok()
    {
        notes.push(format!("`{}` has changed since; the run goes on as it was planned", recipe.display()));
    }
    Ok(Job { plan, folder, notes, resume: true, ours: None, now: request.now })
}

fn execute(job: Job, keep_base: bool, reporter: &mut dyn Reporter) -> Result<Response> {
    let Job { plan, folder, notes, resume, ours, now } = job;
    // the first Ctrl-C or SIGTERM ends the run between two steps, its state saved
    interrupt::install();
    let begun = Instant::now();
    let mut echo = |line: &str| reporter.line(line);
    let checkpoint = if resume { folder.checkpoint_step()? } else { None };
    let mut recorder = match Recorder::begin(&folder, &plan.run_name, checkpoint, &mut echo) {
        Ok(recorder) => recorder,
        Err(error) => {
            // a log that cannot be written, say: the run has not begun
            if let Some(made) = ours {
                let _ = folder.withdraw(&made);
            }
            return Err(error);
        }
    };
    recorder.line(&format!("run {} in {}", folder.run_id(), display(&folder.dir())));
    recorder.line(&plan.summary());
    notes.iter().for_each(|note| recorder.line(&format!("note: {note}")));

    let turn = turn::wait(&plan, &folder, now, &mut recorder);
    if turn.is_ok() {
        recorder.report_to(Trackers::start(&plan, folder.run_id(), &folder.dir(), checkpoint));
    }
    let mut publishing = Publishing::new(&plan, &folder, &mut recorder);
    let train =
        |publishing: &mut Publishing<'_, '_>| engine::train(&plan, &folder.dir(), resume, keep_base, publishing);
    // the turn ends with the training
    let trained = turn.and_then(|_turn| train(&mut publishing));
    if trained.is_ok() {
        publishing.finish();
    }
    let result = trained.and_then(|outcome| conclude(&plan, &folder, outcome));
    if result.is_ok() {
        // the verdict is the log's last line
        recorder.end_reports(End::Done);
    }
    match result {
        Ok((mut response, entry)) => {
            let line = response.verdict_line.clone().unwrap_or_default();
            let logged = record::enter(&folder, entry);
            if let Err(error) = logged {
                recorder.line(&format!("warning: no entry in the experiments log: {error}"));
            }
            recorder.line(&format!("model saved in {}", display(&folder.model_dir())));
            // last: whatever becomes of it, the run is kept
            if plan.hub.push_to_hub {
                recorder.event(&Event::Phase(PUBLISH));
                publish(&plan, &folder, &mut response, &mut recorder);
            }
            if response.verdict == Some(Verdict::None) {
                recorder.line("no verdict: without an [[evaluator]] or an [eval_dataset] there is no before and after");
            }
            response.interval_line.iter().for_each(|line| recorder.log_only(line));
            // on stdout the line is the answer; here it closes the log
            recorder.log_only(&line);
            recorder.finish(&Ending::Done(&line))?;
            response.report = make_report(&folder, reporter);
            Ok(response)
        }
        Err(error) => {
            recorder.log_only(&format!("error: {error}"));
            if recorder.began() {
                let entry = Entry::unfinished(&plan, &folder, &error, begun.elapsed().as_secs_f64());
                let _ = record::enter(&folder, entry);
            }
            let ending = Ending::Error(&error);
            match ours.filter(|_| !recorder.began() && !recorder.waited()) {
                Some(made) => {
                    recorder.withdraw(&ending)?;
                    let _ = folder.withdraw(&made);
                }
                None => {
                    recorder.finish(&ending)?;
                    make_report(&folder, reporter);
                }
            }
            Err(error)
        }
    }
}

/// The report of a run that has ended; that it cannot be written is told, and no more.
fn make_report(folder: &RunFolder, reporter: &mut dyn Reporter) -> Option<PathBuf> {
    match report::write(folder, None) {
        Ok(path) => Some(path),
        Err(error) => {
            reporter.line(&format!("warning: no report: {error}"));
            None
        }
    }
}

/// What `outcome.json` holds: the answer, and everything training said about itself.
#[derive(Debug, Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    answer: &'a Response,
    verdict_line: &'a str,
    /// Where the delta lies at 95 %; `null` where that is not known.
    delta_interval: Option<[f64; 2]>,
    training: &'a Outcome,
}

/// What to do with the model that was trained.
fn try_it(plan: &Plan, model: &str) -> String {
    let command = match plan.model_type {
        ModelType::CrossEncoder if plan.model.num_labels.unwrap_or(1) > 1 => {
            format!("predict {model} --input PAIRS.jsonl --output classes.jsonl")
        }
        ModelType::CrossEncoder => format!("rank {model} --documents FILE --query \"...\""),
        _ => format!("search {model} --corpus FILE --query \"...\""),
    };
    format!("try it: `tallow {command}`")
}

fn conclude(plan: &Plan, folder: &RunFolder, outcome: Outcome) -> Result<(Response, Entry)> {
    let metric = outcome.metric.as_deref();
    let judgement = Judgement::new(metric, outcome.score, outcome.baseline, outcome.greater_is_better)
        .with_interval(outcome.delta_interval)
        .with_costs(&outcome.final_metrics);
    let line = judgement.line();
    record::write_card(folder, plan, &outcome, &judgement)?;
    let response = Response {
        run_id: folder.run_id().to_owned(),
        run_dir: folder.dir(),
        state: State::Done,
        started: true,
        key: keys::of(folder),
        model_dir: Some(outcome.model_dir.clone()),
        adapter_dir: outcome.adapter_dir.clone(),
        hub_url: None,
        hub_error: None,
        model_type: plan.model_type,
        steps: Some(outcome.steps),
        verdict: Some(judgement.verdict),
        score: judgement.score,
        baseline: judgement.baseline,
        delta: judgement.delta,
        metric: judgement.metric.clone(),
        seconds: Some(outcome.seconds),
        peak_memory_bytes: Some(outcome.peak_memory_bytes),
        base_model_dir: outcome.base_model_dir.clone(),
        report: None,
        next: try_it(plan, &display(&outcome.model_dir)),
        verdict_line: Some(line.clone()),
        interval_line: judgement.interval_line(),
    };
    let delta_interval = judgement.delta_interval;
    let whole = Record { answer: &response, verdict_line: &line, delta_interval, training: &outcome };
    let text = serde_json::to_string_pretty(&whole).map_err(|e| Error::Internal(format!("outcome: {e}")))?;
    files::write_atomic(&folder.outcome_file(), text.as_bytes())?;
    let entry = Entry::finished(plan, folder, &judgement, &outcome);
    Ok((response, entry))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_that_cannot_be_meant() {
        let mut silent = |_: &str| {};
        let error = Request::default().run(&mut silent).unwrap_err();
        assert!(error.to_string().contains("no recipe"));
        let error = Request { resume: Some(LATEST.into()), ..Request::default() }.run(&mut silent).unwrap_err();
        assert!(error.hint().unwrap().contains("--resume RUN"));
        let keyed = Request { resume: Some("x".into()), key: Some("k".into()), ..Request::default() };
        assert!(keyed.run(&mut silent).unwrap_err().to_string().contains("--key"));
        let set = Request { resume: Some("x".into()), set: vec!["a=1".into()], ..Request::default() };
        assert!(set.run(&mut silent).unwrap_err().to_string().contains("--set"));
    }

    #[test]
    fn json_requests_know_their_fields_only() {
        let request: Request = serde_json::from_str(r#"{"recipe": "a.toml", "set": ["args.max_steps=1"]}"#).unwrap();
        assert_eq!(request.set, ["args.max_steps=1"]);
        let error = serde_json::from_str::<Request>(r#"{"recipe": "a.toml", "prepared": "x"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field"), "{error}");
    }
}
