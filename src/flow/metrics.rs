//! What an evaluator returns: named numbers, one of them primary.

use serde::{Deserialize, Serialize};

/// Metrics in the order the evaluator makes them, keys with the evaluator's name as prefix.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Name and value, in order.
    pub values: Vec<(String, f64)>,
    /// The key of the metric that stands for the whole.
    pub primary: String,
}

impl Metrics {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<f64> {
        self.values.iter().find(|(k, _)| k == key).map(|(_, v)| *v)
    }

    /// The value of the primary metric.
    #[must_use]
    pub fn primary_value(&self) -> Option<f64> {
        self.get(&self.primary)
    }

    /// Appends a metric.
    pub fn push(&mut self, key: impl Into<String>, value: f64) {
        self.values.push((key.into(), value));
    }
}
