//! An earlier run, as rules see it.

use serde_json::{Map, Value};

/// Active dimensions from which on embeddings are not sparse.
const DENSE: f64 = 1000.0;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ended {
    /// With a model.
    #[default]
    Done,
    /// With an error: its message.
    Failed(String),
    /// It was stopped.
    Cancelled,
}

/// What is known of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Past {
    pub run_id: String,
    pub ended: Ended,
    /// The keys of its plan, dotted (`args.learning_rate`, `train_dataset.0.loss.name`), and their values.
    pub settings: Map<String, Value>,
    pub baseline: Option<f64>,
    pub score: Option<f64>,
    /// The improvement over the baseline; positive is better.
    pub delta: Option<f64>,
    /// Where the delta lies at 95 %.
    pub interval: Option<[f64; 2]>,
    /// Whether more of the metric is better.
    pub greater_is_better: bool,
    /// At which part of its steps the model that was kept was made, 0 to 1; `None` where the last one was kept.
    pub best_at: Option<f64>,
    pub train_rows: Option<u64>,
    pub seconds: Option<f64>,
    /// Active dimensions of a SparseEncoder, by what they are of.
    pub costs: Vec<(String, f64)>,
}

impl Past {
    /// A number among the settings.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<f64> {
        self.settings.get(key)?.as_f64()
    }

    /// A text among the settings.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.settings.get(key)?.as_str()
    }

    /// Whether a switch is on.
    #[must_use]
    pub fn is_on(&self, key: &str) -> bool {
        self.settings.get(key).and_then(Value::as_bool) == Some(true)
    }

    /// Whether a table, or something in it, is set.
    #[must_use]
    pub fn has_table(&self, table: &str) -> bool {
        self.settings.iter().any(|(key, value)| {
            !value.is_null() && key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// Whether a setting has a value; numbers that differ by rounding are the same.
    #[must_use]
    pub fn has(&self, key: &str, value: &Value) -> bool {
        let Some(own) = self.settings.get(key) else { return false };
        match (own.as_f64(), value.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
            _ => own == value,
        }
    }

    /// Whether embeddings that should be sparse are not.
    #[must_use]
    pub fn is_dense(&self) -> bool {
        self.costs.iter().any(|(_, active)| *active > DENSE)
    }

    /// The score, larger for better; `None` without one that is a number.
    #[must_use]
    pub fn merit(&self) -> Option<f64> {
        let score = self.score.filter(|score| score.is_finite())?;
        Some(if self.greater_is_better { score } else { -score })
    }
}
