//! Trackers that show the metrics of many runs: TensorBoard, Trackio, Weights & Biases, MLflow.
//!
//! Each works on a thread of its own behind a queue that is never waited for: a tracker that fails, hangs or is not there
//! costs a warning and its own metrics, never a step of training. Names of metrics are those of Hugging Face's
//! integrations.

mod python;
mod tensorboard;
mod worker;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::catalog::trackers::{ALL, JSONL, MLFLOW, NONE, PROJECT, TENSORBOARD, TRACKERS, TRACKIO, WANDB};
use crate::error::Result;
use crate::recipe::Plan;
use crate::runs::experiments::compare;
use crate::train::events::Event;
use python::Python;
use tensorboard::TensorBoard;
use worker::Worker;

/// What a tracker is told when it starts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Start {
    pub run_id: String,
    pub run_name: String,
    /// The run's folder.
    pub run_dir: PathBuf,
    /// The step that training goes on from; none for a run that begins.
    pub resumed_at: Option<u64>,
    /// The keys of the plan, dotted, and their values.
    pub config: Map<String, Value>,
    /// The project that runs are put together in.
    pub project: Option<String>,
    pub trackio_space_id: Option<String>,
    pub private: bool,
}

/// Metrics of one step, by the names they have in metrics.jsonl.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub step: u64,
    pub metrics: Vec<(String, f64)>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done,
    Failed,
    Cancelled,
}

/// Something that metrics are reported to. Called on a thread of its own, in order; the first error is its last call.
pub trait Tracker: Send {
    /// Before anything else.
    ///
    /// # Errors
    /// When it cannot be had; the message is told once.
    fn start(&mut self, start: &Start) -> Result<()>;

    /// Metrics of a step.
    ///
    /// # Errors
    /// When it is gone.
    fn log(&mut self, record: &Record) -> Result<()>;

    /// The last call.
    ///
    /// # Errors
    /// When what was told before may be lost.
    fn finish(&mut self, end: End) -> Result<()>;
}

/// The tracker of that name; none for a name that is no tracker's.
fn build(name: &str) -> Option<Box<dyn Tracker>> {
    match name {
        TENSORBOARD => Some(Box::new(TensorBoard::default())),
        TRACKIO | WANDB | MLFLOW => Some(Box::new(Python::new(name))),
        _ => None,
    }
}

/// All trackers of a run.
#[derive(Default)]
pub struct Trackers {
    workers: Vec<Worker>,
}

impl Trackers {
    /// Starts those that the plan names; `checkpoint` is the step that training goes on from.
    #[must_use]
    pub fn start(plan: &Plan, run_id: &str, run_dir: &Path, checkpoint: Option<u64>) -> Self {
        let wanted = &plan.args.report_to;
        if wanted.iter().all(|name| name == NONE || name == JSONL) {
            return Self::default();
        }
        let start = Start {
            run_id: run_id.to_owned(),
            run_name: plan.run_name.clone(),
            run_dir: run_dir.to_path_buf(),
            resumed_at: checkpoint,
            config: plan.to_json().map(|plan| compare::flat(&plan)).unwrap_or_default(),
            project: plan.args.project.clone(),
            trackio_space_id: plan.args.trackio_space_id.clone(),
            private: plan.hub.hub_private_repo,
        };
        // of all there are, those that are not to be had are no news
        let all = wanted.iter().any(|name| name == ALL);
        let named = |name: &str| wanted.iter().any(|own| own == name);
        let names = TRACKERS.iter().map(|tracker| tracker.name).filter(|name| all || named(name));
        let workers = names.filter_map(|name| Worker::start(name, build(name)?, &start, !named(name)));
        Self { workers: workers.collect() }
    }

    /// Reports what is a metric. Returns what people have to know.
    pub fn event(&mut self, event: &Event<'_>) -> Vec<String> {
        if self.workers.is_empty() {
            return Vec::new();
        }
        if let Some(record) = record(event) {
            self.workers.iter_mut().for_each(|worker| worker.log(&record));
        }
        self.workers.iter_mut().flat_map(Worker::told).collect()
    }

    /// Ends them all, waiting a few seconds at most. Returns what people have to know.
    pub fn finish(&mut self, end: End) -> Vec<String> {
        let mut workers = std::mem::take(&mut self.workers);
        workers.iter_mut().for_each(|worker| worker.finish(end));
        let deadline = std::time::Instant::now() + worker::PATIENCE;
        workers.into_iter().flat_map(|worker| worker.wait(deadline)).collect()
    }
}

/// The metrics of an event, by their names in metrics.jsonl.
fn record(event: &Event<'_>) -> Option<Record> {
    let own =
        |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<Vec<_>>();
    match event {
        Event::Log(log) => {
            let mut metrics = own(&[
                ("loss", log.loss),
                ("grad_norm", log.grad_norm),
                ("learning_rate", log.learning_rate),
                ("epoch", log.epoch),
                ("rows_per_second", log.rows_per_second),
            ]);
            metrics.extend(log.told.iter().cloned());
            Some(Record { step: log.step, metrics })
        }
        Event::Evaluation { step, epoch, metrics, seconds, .. } => {
            let mut found: Vec<(String, f64)> =
                metrics.values.iter().map(|(key, value)| (format!("eval_{key}"), *value)).collect();
            found.extend(own(&[("eval_runtime", *seconds), ("epoch", *epoch)]));
            Some(Record { step: *step, metrics: found })
        }
        _ => None,
    }
}

/// `eval/x` for `eval_x`, `train/x` for all others: as the Trainer rewrites names.
fn rewritten(name: &str) -> String {
    match name.strip_prefix("eval_") {
        Some(rest) => format!("eval/{rest}"),
        None => format!("train/{name}"),
    }
}

/// The project of a run: what `variable` says, what the recipe says, or transformers' own, in the order given.
fn project(first: Option<String>, second: Option<String>) -> String {
    first.or(second).filter(|name| !name.trim().is_empty()).unwrap_or_else(|| PROJECT.to_owned())
}

/// An environment variable that says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flow::Metrics;
    use crate::train::events::TrainLog;

    #[test]
    fn every_name_is_a_tracker() {
        for tracker in TRACKERS {
            assert!(build(tracker.name).is_some(), "{}", tracker.name);
        }
        assert!(build(JSONL).is_none());
    }

    #[test]
    fn metrics_have_the_trainers_names() {
        let log = TrainLog {
            step: 3,
            epoch: 0.5,
            loss: 1.5,
            learning_rate: 2e-5,
            grad_norm: 1.0,
            seconds: 2.0,
            rows_per_second: 10.0,
            told: vec![("base_loss".into(), 1.0)],
        };
        let names =
            |record: &Record| -> Vec<String> { record.metrics.iter().map(|(name, _)| rewritten(name)).collect() };
        let found = record(&Event::Log(log)).unwrap();
        let want = ["loss", "grad_norm", "learning_rate", "epoch", "rows_per_second", "base_loss"];
        assert_eq!((found.step, names(&found)), (3, want.map(|name| format!("train/{name}")).to_vec()));
        let mut metrics = Metrics::default();
        metrics.push("dev_spearman_cosine", 0.8);
        let event = Event::Evaluation { step: 4, epoch: 1.0, metrics: &metrics, seconds: 0.5, tables: &[] };
        let found = record(&event).unwrap();
        assert_eq!(names(&found), ["eval/dev_spearman_cosine", "eval/runtime", "train/epoch"]);
        assert!(record(&Event::Message("x")).is_none());
    }

    #[test]
    fn projects_fall_back_to_transformers_own() {
        assert_eq!(project(Some("a".into()), Some("b".into())), "a");
        assert_eq!(project(None, Some("b".into())), "b");
        assert_eq!(project(None, Some("  ".into())), "huggingface");
    }
}
