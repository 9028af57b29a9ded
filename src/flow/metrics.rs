//! What an evaluator returns: named numbers, one of them primary.

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Look;

/// Metrics in the order the evaluator makes them, keys with the evaluator's name as prefix.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Name and value, in order; a JSON object, NaN as `null`.
    #[serde(serialize_with = "to_map", deserialize_with = "from_map")]
    pub values: Vec<(String, f64)>,
    /// The key of the metric that stands for the whole.
    pub primary: String,
    /// What single metrics are made of, where an evaluator tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// Values that stand in CSV files and nowhere else.
    #[serde(skip)]
    pub details: Vec<(String, f64)>,
    /// Files an evaluator was asked to write beside its metrics.
    #[serde(skip)]
    pub documents: Vec<Document>,
    /// What people can look at behind single metrics, where an evaluator tells.
    #[serde(skip)]
    pub looks: Vec<Look>,
    /// What makes the metrics worthless.
    #[serde(skip)]
    pub alarm: Option<String>,
}

/// A file's name and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub file: String,
    pub text: String,
}

/// The items behind a metric, so that those of two models can be drawn together and the metric made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The metric's key.
    pub key: String,
    /// How it comes from the items.
    pub statistic: Statistic,
    /// One label an item, the same for every model; empty for [`Statistic::Mean`].
    pub labels: Vec<f64>,
    /// `[columns][items]`: the metric is the best of the columns'.
    pub scores: Vec<Vec<f64>>,
}

/// How a metric comes from its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// The scores' mean.
    Mean,
    /// The mean of the means of the scores with the same label.
    MeanOfMeans,
    /// Spearman's correlation of labels and scores.
    Spearman,
    /// The average precision of the scores for the labels above 0.
    AveragePrecision,
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

    /// Appends the items behind the primary metric; left out where one is not finite, which JSON could not hold.
    pub fn push_sample(&mut self, statistic: Statistic, labels: Vec<f64>, scores: Vec<Vec<f64>>) {
        if scores.iter().flatten().any(|score| !score.is_finite()) {
            return;
        }
        self.samples.push(Sample { key: self.primary.clone(), statistic, labels, scores });
    }

    /// Appends a metric.
    pub fn push(&mut self, key: impl Into<String>, value: f64) {
        self.values.push((key.into(), value));
    }
}

fn to_map<S: Serializer>(values: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(values.len()))?;
    for (key, value) in values {
        map.serialize_entry(key, &value.is_finite().then_some(value))?;
    }
    map.end()
}

fn from_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, f64)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, f64)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of numbers")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, Option<f64>>()? {
                pairs.push((key, value.unwrap_or(f64::NAN)));
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn order_and_nan_survive_json() {
        let mut metrics = Metrics::default();
        metrics.push("b", 0.5);
        metrics.push("a", f64::NAN);
        metrics.primary = "b".to_owned();
        let text = serde_json::to_string(&metrics).unwrap();
        assert_eq!(text, r#"{"values":{"b":0.5,"a":null},"primary":"b"}"#);
        let back: Metrics = serde_json::from_str(&text).unwrap();
        assert_eq!(back.primary_value(), Some(0.5));
        assert!(back.get("a").unwrap().is_nan());
    }
}
