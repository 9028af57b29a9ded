//! What does a run's folder tell? Everything may be missing: a failed run gets a report too.

use serde_json::{Map, Value};

use super::captured::{Captured, Seen};
use crate::error::Result;
use crate::eval::trainer_key;
use crate::recipe::Plan;
use crate::runs::RunFolder;
use crate::runs::status::{self, Status};
use crate::runs::verdict::{Judgement, Verdict};
use crate::train::Outcome;
use crate::util::files;

/// A line of training metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trained {
    pub step: f64,
    pub epoch: f64,
    pub loss: f64,
    pub learning_rate: f64,
    pub grad_norm: f64,
    /// Terms of the loss and active dimensions, where there are such.
    pub told: Vec<(String, f64)>,
}

/// A line of evaluation metrics, keys with `eval_`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluated {
    pub step: f64,
    pub epoch: f64,
    pub seconds: f64,
    pub values: Vec<(String, f64)>,
}

impl Evaluated {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<f64> {
        self.values.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Facts {
    pub status: Status,
    pub plan: Option<Plan>,
    pub recipe: Option<String>,
    pub trained: Vec<Trained>,
    pub evaluated: Vec<Evaluated>,
    pub captured: Captured,
    pub outcome: Option<Outcome>,
    /// Of a run that is done: its verdict; of another one what its last evaluation says so far.
    pub judgement: Option<Judgement>,
}

const TRAINING: [&str; 7] = ["step", "epoch", "loss", "learning_rate", "grad_norm", "seconds", "rows_per_second"];

impl Facts {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// When it has no status.
    pub fn read(folder: &RunFolder) -> Result<Self> {
        let status = status::read(folder)?;
        let (trained, evaluated) = metrics(folder);
        let outcome = files::read(&folder.outcome_file()).ok();
        let outcome: Option<Value> = outcome.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut facts = Self {
            plan: Plan::load(&folder.plan_file()).ok(),
            recipe: files::read_text(&folder.recipe_file()).ok(),
            captured: Captured::read(folder),
            outcome: outcome.as_ref().and_then(|o| serde_json::from_value(o.get("training")?.clone()).ok()),
            judgement: None,
            status,
            trained,
            evaluated,
        };
        facts.judgement = facts.judge(outcome.as_ref());
        Ok(facts)
    }

    /// The key of the metric that decides, with `eval_`.
    #[must_use]
    pub fn metric(&self) -> Option<String> {
        let named = || self.plan.as_ref()?.args.metric_for_best_model.as_deref().map(trainer_key);
        let seen = || self.captured.before.as_ref().map(|seen| &seen.primary).filter(|key| !key.is_empty());
        let outcome = self.outcome.as_ref().and_then(|outcome| outcome.metric.clone());
        outcome.or_else(named).or_else(|| seen().map(|key| trainer_key(key)))
    }

    /// Whether more of that metric is better.
    #[must_use]
    pub fn greater_is_better(&self) -> bool {
        let planned = self.plan.as_ref().is_none_or(|plan| plan.args.greater_is_better);
        self.outcome.as_ref().map_or(planned, |outcome| outcome.greater_is_better)
    }

    /// The evaluation before training.
    #[must_use]
    pub fn baseline(&self) -> Option<&Evaluated> {
        self.evaluated.first().filter(|first| first.step == 0.0)
    }

    /// The evaluation of the model that was kept, or of the newest one.
    #[must_use]
    pub fn kept(&self) -> Option<&Evaluated> {
        let best = self.outcome.as_ref().and_then(|outcome| outcome.best_step);
        let found = best.and_then(|best| self.evaluated.iter().find(|evaluated| evaluated.step == best as f64));
        found.or(self.evaluated.last()).filter(|evaluated| evaluated.step > 0.0)
    }

    /// What was seen before, and of the model that was kept or of the newest.
    #[must_use]
    pub fn seen(&self) -> (Option<&Seen>, Option<&Seen>) {
        let best = self.outcome.as_ref().and_then(|outcome| outcome.best_step);
        (self.captured.before.as_ref(), self.captured.after(best))
    }

    fn judge(&self, outcome: Option<&Value>) -> Option<Judgement> {
        if let Some(outcome) = outcome {
            let number = |key: &str| outcome.get(key).and_then(Value::as_f64);
            let text = |key: &str| outcome.get(key).and_then(Value::as_str).map(str::to_owned);
            let verdict = outcome.get("verdict").and_then(|v| serde_json::from_value(v.clone()).ok());
            let interval = outcome.get("delta_interval").and_then(|v| serde_json::from_value(v.clone()).ok());
            return Some(Judgement {
                verdict: verdict.unwrap_or(Verdict::None),
                metric: text("metric"),
                score: number("score"),
                baseline: number("baseline"),
                delta: number("delta"),
                delta_interval: interval.flatten(),
                costs: Vec::new(),
            });
        }
        let metric = self.metric()?;
        let (score, baseline) = (self.kept()?.get(&metric), self.baseline()?.get(&metric));
        Some(Judgement::new(Some(&metric), score, baseline, self.greater_is_better()))
    }
}

/// The lines of `metrics.jsonl`, each kind in order of steps; half a line at the end is nothing.
fn metrics(folder: &RunFolder) -> (Vec<Trained>, Vec<Evaluated>) {
    let text = files::read_text(&folder.metrics_file()).unwrap_or_default();
    let (mut trained, mut evaluated) = (Vec::new(), Vec::new());
    for line in text.lines().filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok()) {
        // what JSON could not hold was no number
        let number = |key: &str| line.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let (step, epoch) = (number("step"), number("epoch"));
        if line.contains_key("loss") {
            let told = line.iter().filter(|(key, _)| !TRAINING.contains(&key.as_str()));
            trained.push(Trained {
                step,
                epoch,
                loss: number("loss"),
                learning_rate: number("learning_rate"),
                grad_norm: number("grad_norm"),
                told: told.map(|(key, value)| (key.clone(), value.as_f64().unwrap_or(f64::NAN))).collect(),
            });
        } else {
            let values = line.iter().filter(|(key, _)| key.starts_with("eval_"));
            let values = values.map(|(key, value)| (key.clone(), value.as_f64().unwrap_or(f64::NAN))).collect();
            evaluated.push(Evaluated { step, epoch, seconds: number("seconds"), values });
        }
    }
    (trained, evaluated)
}
