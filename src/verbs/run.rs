//! `run`: trains a model by a recipe, in a folder of its own, to a verdict.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::publish::{Publishing, publish};
use super::{Answer, Reporter, Verb, engine, record};
use crate::error::{Error, Result};
use crate::flow::ModelType;
use crate::recipe::Plan;
use crate::runs::folder::{RUNS, display};
use crate::runs::log::LogFile;
use crate::runs::process;
use crate::runs::status::{self, PUBLISH, Status};
use crate::runs::verdict::Judgement;
use crate::runs::{Ending, Recorder, RunFolder, State, Verdict, report};
use crate::train::Outcome;
use crate::train::events::{Event, Listener};
use crate::util::{clock, files, interrupt, memory};

/// What `--resume` without a run means.
const LATEST: &str = "latest";

/// Train a model by a recipe.
///
/// Evaluates before training, trains, evaluates again, saves the model with its card, adds a row to
/// `logs/experiments.md` and ends with a `VERDICT:` line. Everything lies in `runs/<run_id>/`.
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
    /// Return at once; the run goes on as a process of its own and outlives the terminal.
    #[arg(long)]
    #[serde(skip)]
    pub detach: bool,
    /// Also save the model as it was before the first step.
    #[arg(skip)]
    #[serde(skip)]
    pub keep_base: bool,
    /// Take up a run whose folder another process prepared.
    #[arg(long, hide = true, conflicts_with_all = ["recipe", "resume", "set", "detach"])]
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
    /// `done`, or `running` for a run that was started and left alone.
    pub state: State,
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
        let job = prepare(self, !detach)?;
        if detach { start(&job) } else { execute(job, keep_base, reporter) }
    }
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
}

fn prepare(mut request: Request, foreground: bool) -> Result<Job> {
    if let Some(dir) = &request.prepared {
        let folder = RunFolder::open(dir)?;
        let plan = Plan::load(&folder.plan_file())?;
        return Ok(Job { plan, folder, notes: Vec::new(), resume: false, ours: None });
    }
    // `run --resume recipe.toml`: the recipe was taken for the name of a run
    if let (None, Some(named)) = (&request.recipe, &request.resume)
        && named.ends_with(".toml")
        && Path::new(named).is_file()
    {
        request.recipe = request.resume.replace(LATEST.to_owned()).map(PathBuf::from);
    }
    match &request.resume {
        Some(run) => resume(run, &request),
        None => begin(&request, foreground),
    }
}

fn begin(request: &Request, foreground: bool) -> Result<Job> {
    let Some(recipe) = &request.recipe else {
        return Err(Error::usage("no recipe was named").with_hint("use `tallow run RECIPE.toml`, or `--resume RUN`"));
    };
    let (plan, notes) = engine::plan(recipe, &request.set)?;
    engine::check_push(&plan)?;
    let made = RunFolder::missing_around(&plan.output_dir);
    let folder = RunFolder::create(&plan.output_dir, &plan.run_name)?;
    let fill = || -> Result<()> {
        plan.save(&folder.plan_file())?;
        files::copy(recipe, &folder.recipe_file())?;
        status::write(&folder, &Status::starting(folder.run_id(), &plan.run_name))
    };
    if let Err(error) = fill() {
        let _ = folder.withdraw(&made);
        return Err(error);
    }
    Ok(Job { plan, folder, notes, resume: false, ours: foreground.then_some(made) })
}

fn resume(run: &str, request: &Request) -> Result<Job> {
    if !request.set.is_empty() {
        return Err(Error::usage("a resumed run goes on by its saved plan, so `--set` cannot change it")
            .with_hint("start a new run without `--resume`"));
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
    Ok(Job { plan, folder, notes, resume: true, ours: None })
}

/// Starts the job as a process of its own and waits only until that has taken it up.
fn start(job: &Job) -> Result<Response> {
    let dir = job.folder.dir();
    if !job.notes.is_empty() {
        // the new process knows the plan, not how it came about
        let notes: Vec<String> = job.notes.iter().map(|note| format!("note: {note}")).collect();
        LogFile::open(&job.folder.log_file(&job.plan.run_name))?.write(&notes.join("\n"))?;
    }
    let flag = if job.resume { "--resume" } else { "--prepared" };
    let arguments: [&OsStr; 3] = [OsStr::new("run"), OsStr::new(flag), dir.as_os_str()];
    let here = std::env::current_dir().map_err(Error::io("find", "the current directory"))?;
    let mut child = process::spawn_detached(&arguments, &here, &job.folder.console_file())?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let taken_up = status::read_raw(&job.folder).is_ok_and(|s| s.process.pid == child.id());
        if taken_up || Instant::now() > deadline {
            break;
        }
        if let Ok(Some(exit)) = child.try_wait() {
            let words = process::tail(&job.folder.console_file(), 4);
            let error = Error::train(format!("the run's process ended at once ({exit}): {words}"))
                .with_hint(format!("its output is in `{}`", display(&job.folder.console_file())));
            let mut failed = Status::starting(job.folder.run_id(), &job.plan.run_name);
            failed.state = State::Failed;
            failed.message = Some(error.to_string());
            failed.exit_code = exit.code();
            status::write(&job.folder, &failed)?;
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // a child nobody waits for stays in the process table for as long as a server lives
    std::thread::spawn(move || child.wait());
    let run_id = job.folder.run_id();
    Ok(Response {
        run_id: run_id.to_owned(),
        run_dir: dir,
        state: State::Running,
        model_dir: None,
        adapter_dir: None,
        hub_url: None,
        hub_error: None,
        model_type: job.plan.model_type,
        steps: None,
        verdict: None,
        score: None,
        baseline: None,
        delta: None,
        metric: None,
        seconds: None,
        peak_memory_bytes: None,
        base_model_dir: None,
        report: None,
        next: format!("follow it with `tallow status {run_id} --wait 600`, stop it with `tallow cancel {run_id}`"),
        verdict_line: None,
        interval_line: None,
    })
}

fn execute(job: Job, keep_base: bool, reporter: &mut dyn Reporter) -> Result<Response> {
    let Job { plan, folder, notes, resume, ours } = job;
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

    let mut publishing = Publishing::new(&plan, &folder, &mut recorder);
    let trained = engine::train(&plan, &folder.dir(), resume, keep_base, &mut publishing);
    if trained.is_ok() {
        publishing.finish();
    }
    let result = trained.and_then(|outcome| conclude(&plan, &folder, outcome));
    match result {
        Ok((mut response, row)) => {
            let line = response.verdict_line.clone().unwrap_or_default();
            let logged = record::enter(&folder, &row);
            if let Err(error) = logged {
                recorder.line(&format!("warning: no row in the experiments log: {error}"));
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
                let row = record::unfinished(&plan, &folder, &error, begun.elapsed().as_secs_f64());
                let _ = record::enter(&folder, &row);
            }
            let ending = Ending::Error(&error);
            match ours.filter(|_| !recorder.began()) {
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

fn conclude(plan: &Plan, folder: &RunFolder, outcome: Outcome) -> Result<(Response, crate::runs::experiments::Row)> {
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
    let row = record::finished(plan, folder, &judgement, &outcome);
    Ok((response, row))
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
