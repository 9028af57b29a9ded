//! What do the labels say? Their kind, range and distribution.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::data::source::Value;

/// What a row is labelled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelFacts {
    /// 0 and 1.
    Binary,
    /// Whole numbers.
    Classes,
    /// Names of classes.
    Names,
    /// Numbers with fractions.
    Scores,
    /// Lists of numbers.
    Lists,
}

/// The label column.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LabelReport {
    pub column: String,
    pub kind: LabelFacts,
    /// Of numbers, or of those in lists.
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    /// Different labels, as far as they were counted.
    pub different: usize,
    /// The commonest, with their part of the rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commonest: Vec<(String, f64)>,
    /// The rarest label's rows, where labels are classes.
    #[serde(skip)]
    pub rarest: u64,
    /// Numbers in a list, where all lists have as many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_list: Option<usize>,
}

/// Different labels that are counted, and how many are shown.
const COUNTED: usize = 4096;
const SHOWN: usize = 6;
/// Integers are classes up to so many different ones.
pub const MOST_CLASSES: usize = 1000;

/// Counts labels.
#[derive(Debug)]
pub struct LabelCount {
    min: f64,
    max: f64,
    sum: f64,
    numbers: u64,
    rows: u64,
    fractions: bool,
    names: u64,
    lists: u64,
    /// A list's length; 0 where they differ.
    length: Option<usize>,
    counts: HashMap<String, u64>,
}

impl Default for LabelCount {
    fn default() -> Self {
        Self {
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: 0.0,
            numbers: 0,
            rows: 0,
            fractions: false,
            names: 0,
            lists: 0,
            length: None,
            counts: HashMap::new(),
        }
    }
}

impl LabelCount {
    /// Counts a label; false when it is none. Cells of `typed` formats are what they are, others may be numbers in text.
    pub fn add(&mut self, value: &Value, typed: bool) -> bool {
        let number = match value {
            Value::Integer(x) => Some(*x as f64),
            Value::Number(x) => Some(*x),
            Value::Bool(x) => Some(f64::from(u8::from(*x))),
            Value::Text(text) if !typed => text.trim().parse().ok(),
            _ => None,
        };
        let key = match (number, value) {
            (Some(x), _) if x.is_finite() => {
                self.number(x);
                x.to_string()
            }
            (None, Value::Text(text)) if !text.trim().is_empty() => {
                self.names += 1;
                text.clone()
            }
            (None, Value::Numbers(list)) if !list.is_empty() && list.iter().all(|x| x.is_finite()) => {
                list.iter().for_each(|x| self.number(*x));
                self.lists += 1;
                let length = *self.length.get_or_insert(list.len());
                self.length = Some(if length == list.len() { length } else { 0 });
                self.rows += 1;
                return true;
            }
            _ => return false,
        };
        self.rows += 1;
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < COUNTED {
            self.counts.insert(key, 1);
        }
        true
    }

    fn number(&mut self, x: f64) {
        self.min = self.min.min(x);
        self.max = self.max.max(x);
        self.sum += x;
        self.numbers += 1;
        self.fractions |= x.fract() != 0.0;
    }

    /// What was counted; `None` without a label.
    pub fn finish(self, column: &str) -> Option<LabelReport> {
        if self.rows == 0 {
            return None;
        }
        let different = self.counts.len();
        let kind = if self.lists > 0 {
            LabelFacts::Lists
        } else if self.names > 0 {
            LabelFacts::Names
        } else if self.fractions || different > MOST_CLASSES {
            LabelFacts::Scores
        } else if self.min >= 0.0 && self.max <= 1.0 {
            LabelFacts::Binary
        } else {
            LabelFacts::Classes
        };
        let mut counts: Vec<(String, u64)> = self.counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let rarest = counts.last().map_or(0, |(_, n)| *n);
        let part = |n: u64| (1000.0 * n as f64 / self.rows as f64).round() / 1000.0;
        let short = |name: String| name.chars().take(30).collect::<String>();
        let commonest = if kind == LabelFacts::Scores { Vec::new() } else { counts };
        let commonest = commonest.into_iter().take(SHOWN).map(|(name, n)| (short(name), part(n))).collect();
        let finite = |x: f64| if x.is_finite() { x } else { 0.0 };
        Some(LabelReport {
            column: column.to_owned(),
            kind,
            min: finite(self.min),
            max: finite(self.max),
            mean: (1e4 * self.sum / self.numbers.max(1) as f64).round() / 1e4,
            different,
            commonest,
            rarest,
            per_list: self.length.filter(|length| *length > 0),
        })
    }
}

impl LabelReport {
    /// The part of rows whose label is 1, of labels 0 and 1.
    #[must_use]
    pub fn positives(&self) -> f64 {
        self.mean
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(values: &[Value], typed: bool) -> Option<LabelReport> {
        let mut count = LabelCount::default();
        for value in values {
            count.add(value, typed);
        }
        count.finish("label")
    }

    #[test]
    fn kinds_are_told() {
        let text = |t: &str| Value::Text(t.into());
        assert_eq!(of(&[Value::Integer(1), Value::Integer(0)], true).unwrap().kind, LabelFacts::Binary);
        assert_eq!(of(&[Value::Bool(true)], true).unwrap().kind, LabelFacts::Binary);
        assert_eq!(of(&[text("1.5"), text("2")], false).unwrap().kind, LabelFacts::Scores);
        assert_eq!(of(&[text("1"), text("2")], false).unwrap().kind, LabelFacts::Classes);
        let names = of(&[text("yes"), text("no"), text("yes")], true).unwrap();
        assert_eq!((names.kind, names.commonest[0].clone()), (LabelFacts::Names, ("yes".to_owned(), 0.667)));
        let lists = of(&[Value::Numbers(vec![1.0, 2.0]), Value::Numbers(vec![3.0, 4.0])], true).unwrap();
        assert_eq!((lists.kind, lists.per_list, lists.max), (LabelFacts::Lists, Some(2), 4.0));
        assert!(of(&[Value::Null, Value::Number(f64::NAN)], true).is_none());
    }
}
