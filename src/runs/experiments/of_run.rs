//! The entry of a run of this program: from its plan, and from how it ended.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::compare::flat;
use super::entry::{Entry, Source};
use crate::error::{Error, Kind, Result};
use crate::recipe::plan::{Location, ModelSource};
use crate::recipe::{self, Plan};
use crate::runs::folder::RunFolder;
use crate::runs::status::{self, State};
use crate::runs::verdict::Judgement;
use crate::train::Outcome;
use crate::util::{clock, files};

impl Entry {
    /// What is known of a run before it ends.
    #[must_use]
    pub fn planned(plan: &Plan, folder: &RunFolder) -> Self {
        let names: Vec<&str> = plan.train_dataset.iter().map(|d| d.name.as_str()).collect();
        Self {
            run_id: folder.run_id().to_owned(),
            run_name: plan.run_name.clone(),
            date: clock::now(),
            source: Source::Run,
            run_dir: Some(folder.dir()),
            model_type: Some(plan.model_type),
            base: base(plan).unwrap_or_else(|| "from scratch".to_owned()),
            data: names.join(", "),
            loss: losses(plan).join(" + "),
            settings: settings(plan),
            plan: plan.to_json().map(|plan| flat(&plan)).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// The entry of a run that ended with a model.
    #[must_use]
    pub fn finished(plan: &Plan, folder: &RunFolder, judgement: &Judgement, outcome: &Outcome) -> Self {
        let entry = Self::planned(plan, folder).judged(judgement).took(outcome.seconds);
        Self {
            train_rows: Some(outcome.train_rows),
            greater_is_better: judgement.metric.is_some().then_some(outcome.greater_is_better),
            steps: Some(outcome.steps),
            best_step: outcome.best_step,
            ..entry
        }
    }

    /// The entry of a run that did not.
    #[must_use]
    pub fn unfinished(plan: &Plan, folder: &RunFolder, error: &Error, seconds: f64) -> Self {
        let cancelled = error.kind() == Kind::Cancelled;
        Self::ended(plan, folder, cancelled, Some(error.to_string())).took(seconds)
    }

    fn ended(plan: &Plan, folder: &RunFolder, cancelled: bool, message: Option<String>) -> Self {
        let verdict = if cancelled { "CANCELLED" } else { "FAILED" };
        Self { verdict: verdict.to_owned(), message, ..Self::planned(plan, folder) }
    }

    /// The entry of a run by what its folder says.
    ///
    /// # Errors
    /// When the run is under way, or its files cannot be read.
    pub fn of_folder(folder: &RunFolder) -> Result<Self> {
        let status = status::read(folder)?;
        let plan = Plan::load(&folder.plan_file())?;
        let ended = Self { date: status.heartbeat.clone(), ..Self::default() };
        let entry = match status.state {
            State::Queued | State::Running => {
                return Err(Error::usage(format!("run `{}` is still {}", folder.run_id(), status.state.name()))
                    .with_hint("it enters itself when it ends; follow it with `tallow status --wait 600`"));
            }
            State::Failed | State::Cancelled => {
                Self::ended(&plan, folder, status.state == State::Cancelled, status.message).took(status.seconds)
            }
            State::Done => {
                let path = folder.outcome_file();
                let unreadable = |e: serde_json::Error| {
                    Error::data(format!("`{}` is not the outcome of a run: {e}", path.display()))
                        .with_hint("the run's folder is damaged; start the run again from its recipe")
                };
                let document: Value = serde_json::from_slice(&files::read(&path)?).map_err(unreadable)?;
                let outcome: Outcome = serde_json::from_value(document.get("training").cloned().unwrap_or_default())
                    .map_err(unreadable)?;
                let judgement: Judgement = serde_json::from_value(document).map_err(unreadable)?;
                let judgement = judgement.with_costs(&outcome.final_metrics);
                Self::finished(&plan, folder, &judgement, &outcome)
            }
        };
        // when it ended, not when it is entered; to the second
        let date = ended.date.split('.').next().unwrap_or_default().trim_end_matches('Z').to_owned();
        Ok(Self { date: if date.is_empty() { entry.date } else { date + "Z" }, ..entry })
    }
}

/// Where the model comes from; none for one made from scratch.
#[must_use]
pub fn base(plan: &Plan) -> Option<String> {
    match &plan.model.source {
        ModelSource::Base(Location::Hub(id)) => Some(id.clone()),
        ModelSource::Base(Location::Path(path)) => Some(path.display().to_string()),
        ModelSource::Distilled { teacher: Location::Hub(id), .. } => Some(id.clone()),
        ModelSource::Distilled { teacher: Location::Path(path), .. } => Some(path.display().to_string()),
        ModelSource::StaticEmbedding { .. }
        | ModelSource::StaticEmbeddingAndTokenizer { .. }
        | ModelSource::Config { .. }
        | ModelSource::ConfigAndTokenizer { .. } => None,
    }
}

/// The losses of all data sets, wrappers first, each once.
#[must_use]
pub fn losses(plan: &Plan) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for dataset in &plan.train_dataset {
        let wrapper = dataset.loss.matryoshka.as_ref().map(|_| "MatryoshkaLoss".to_owned());
        for name in wrapper.into_iter().chain([dataset.loss.name.clone()]) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// What one changes from run to run.
fn settings(plan: &Plan) -> String {
    let args = &plan.args;
    let length = match args.max_steps {
        Some(steps) => format!("{steps} steps"),
        None => format!("{} epochs", args.num_train_epochs),
    };
    let batch = (args.per_device_train_batch_size as u64).saturating_mul(args.gradient_accumulation_steps);
    format!("lr {:e}, batch {batch}, {length}", args.learning_rate)
}

/// The file in a run's folder with what was set over its recipe.
const SETS: &str = "set.json";

/// Keeps what was set over a run's recipe beside its copy.
///
/// # Errors
/// When it cannot be written.
pub fn keep_sets(folder: &RunFolder, set: &[String]) -> Result<()> {
    if set.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_string(set).map_err(|e| Error::Internal(format!("what was set: {e}")))?;
    files::write_atomic(&folder.dir().join(SETS), text.as_bytes())
}

/// A run's recipe.
#[derive(Debug, Clone)]
pub struct Written {
    /// Where it was read from; relative paths in it are read from there.
    pub path: PathBuf,
    /// What was set over it, as `key=value`.
    pub set: Vec<String>,
    /// Its tables with that.
    pub tables: Map<String, Value>,
}

/// The recipe of a run as it was when the run began, with what was set over it.
///
/// # Errors
/// When the run's folder or its recipe is not there.
pub fn effective_recipe(folder: &RunFolder) -> Result<Written> {
    let plan = Plan::load(&folder.plan_file())?;
    let path = folder.dir().join(SETS);
    let set: Vec<String> = match path.is_file() {
        true => serde_json::from_slice(&files::read(&path)?)
            .map_err(|e| Error::data(format!("`{}` is damaged: {e}", path.display())))?,
        false => Vec::new(),
    };
    let tables = recipe::tables(&plan.recipe, &files::read_text(&folder.recipe_file())?, &set)?;
    Ok(Written { path: plan.recipe, set, tables })
}
