//! One experiment: what was run, and what came of it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::catalog::iterate::{Ended, Past};
use crate::flow::ModelType;
use crate::runs::verdict::Judgement;

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A run of this program.
    #[default]
    Run,
    /// The log of a training script.
    Script,
    /// A row of the table that has no entry.
    Table,
}

/// A line of `experiments.jsonl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Entry {
    /// The run's id; of a script its `RUN_NAME`.
    pub run_id: String,
    /// The recipe's `run_name`.
    pub run_name: String,
    /// When it ended (UTC).
    pub date: String,
    pub source: Source,
    /// The run's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_dir: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_type: Option<ModelType>,
    /// The base model.
    pub base: String,
    /// The training data.
    pub data: String,
    /// Rows of all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_rows: Option<u64>,
    pub loss: String,
    /// What one changes from run to run: learning rate, batch size, length.
    pub settings: String,
    /// The metric that decides, `eval_` in front.
    pub metric: Option<String>,
    pub greater_is_better: Option<bool>,
    pub baseline: Option<f64>,
    pub score: Option<f64>,
    /// The improvement; positive is better.
    pub delta: Option<f64>,
    /// Where the delta lies at 95 %.
    pub delta_interval: Option<[f64; 2]>,
    /// What the score costs: active dimensions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub costs: Vec<(String, f64)>,
    /// `WIN`, `MARGINAL`, `REGRESSION`, `NONE`, `FAILED`, `CANCELLED`.
    pub verdict: String,
    /// Wall time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Optimizer steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// The step of the model that was kept, where that was the best one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_step: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What differs from the run before with the same metric.
    pub tried: String,
    /// What the numbers say.
    pub learned: String,
    /// What people say was learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The keys of its plan, dotted, and their values.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub plan: Map<String, Value>,
}

impl Entry {
    /// Takes the numbers of a judgement.
    #[must_use]
    pub fn judged(mut self, judgement: &Judgement) -> Self {
        self.metric.clone_from(&judgement.metric);
        self.baseline = finite(judgement.baseline);
        self.score = finite(judgement.score);
        self.delta = finite(judgement.delta);
        self.delta_interval = judgement.delta_interval;
        self.costs.clone_from(&judgement.costs);
        self.verdict = judgement.verdict.name().to_owned();
        self
    }

    /// Sets the time it took.
    #[must_use]
    pub fn took(mut self, seconds: f64) -> Self {
        self.seconds = finite(Some(seconds));
        self
    }

    /// Whether more of the metric is better: as it was said, else by the metric's name.
    #[must_use]
    pub fn greater_is_better(&self) -> bool {
        self.greater_is_better.unwrap_or_else(|| !self.metric.as_deref().unwrap_or_default().ends_with("loss"))
    }

    /// Whether its score can be compared with another's: the same metric on the same held-out data, as far as is known, and
    /// where it is a loss the same loss.
    #[must_use]
    pub fn measured_as(&self, other: &Self) -> bool {
        let bare = |entry: &Self| {
            entry.metric.as_deref().map(|metric| metric.strip_prefix("eval_").unwrap_or(metric).to_owned())
        };
        let held_out = |entry: &Self| -> Vec<(String, Value)> {
            let own = entry.plan.iter().filter(|(key, _)| {
                let names = ["path", "limit", "hub.id", "hub.split"];
                (key.starts_with("evaluator.") || key.starts_with("eval_dataset."))
                    && names.iter().any(|name| key.contains(&format!(".{name}")))
            });
            own.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let metric = match (bare(self), bare(other)) {
            (Some(own), Some(theirs)) => own == theirs,
            // a run that failed has none yet, and its plan says what it would have had
            (own, theirs) => own.is_none() != theirs.is_none() && !self.plan.is_empty() && !other.plan.is_empty(),
        };
        let (own, theirs) = (held_out(self), held_out(other));
        let unknown = self.source != Source::Run || other.source != Source::Run;
        metric && (unknown || own == theirs) && (!(self.is_loss() || other.is_loss()) || self.lost_as(other))
    }

    fn is_loss(&self) -> bool {
        self.metric.as_deref().is_some_and(|metric| metric.ends_with("loss"))
    }

    /// Whether its losses and their settings are another's, as far as is known.
    fn lost_as(&self, other: &Self) -> bool {
        let settings = |entry: &Self| -> Map<String, Value> {
            let of_losses = |key: &str| {
                let mut parts = key.splitn(4, '.');
                matches!(parts.next(), Some("train_dataset" | "eval_dataset")) && parts.nth(1) == Some("loss")
            };
            entry.plan.iter().filter(|(key, _)| of_losses(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let unknown = self.plan.is_empty() || other.plan.is_empty() || self.source != other.source;
        let named = self.loss == other.loss || self.loss.is_empty() || other.loss.is_empty();
        named && (unknown || settings(self) == settings(other))
    }

    /// As rules see it.
    #[must_use]
    pub fn past(&self) -> Past {
        let ended = match self.verdict.as_str() {
            "FAILED" => Ended::Failed(self.message.clone().unwrap_or_else(|| "it failed".to_owned())),
            "CANCELLED" => Ended::Cancelled,
            _ => Ended::Done,
        };
        let part = |best: u64| self.steps.filter(|steps| *steps > 0).map(|steps| best as f64 / steps as f64);
        Past {
            run_id: self.run_id.clone(),
            ended,
            settings: self.plan.clone(),
            baseline: self.baseline,
            score: self.score,
            delta: self.delta,
            interval: self.delta_interval,
            greater_is_better: self.greater_is_better(),
            best_at: self.best_step.and_then(part),
            train_rows: self.train_rows,
            seconds: self.seconds,
            costs: self.costs.clone(),
        }
    }

    /// Keeps what people said of the entry it renews.
    pub(super) fn amended_as(&mut self, earlier: &Self) {
        if self.notes.is_empty() {
            self.notes.clone_from(&earlier.notes);
        }
        if self.said.is_none() {
            self.said.clone_from(&earlier.said);
        }
    }

    /// Whether `row` of the table is this entry's: the same run; of a script one of the same name and scores.
    pub(super) fn is_row(&self, row: &Self) -> bool {
        let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 5.1e-5,
            (a, b) => a.is_none() && b.is_none(),
        };
        let same = || near(self.score, row.score) && near(self.baseline, row.baseline);
        // runs of one script share its name
        let own = row.run_id == self.run_id && (self.source == Source::Run || same());
        own || (self.source == Source::Script && row.run_id == self.run_name && same())
    }
}

/// JSON has no NaN.
pub(super) fn finite(number: Option<f64>) -> Option<f64> {
    number.filter(|number| number.is_finite())
}
