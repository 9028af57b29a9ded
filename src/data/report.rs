//! What a data set turned out to hold: rows used and left out, lengths, truncation, repetition, labels.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::columns::OnBadRow;
use super::source::{Files, Place, Problem, Reason};
use crate::error::{Error, Result};
use crate::util::numbers::thousands;

/// Everything worth telling about a data set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DataReport {
    pub name: Option<String>,
    pub files: Vec<String>,
    /// Rows looked at, bad ones included.
    pub rows_read: u64,
    pub rows_used: u64,
    /// Rows left out, by reason.
    pub skipped: Vec<Skipped>,
    pub columns: Vec<ColumnReport>,
    /// Rows equal to an earlier one in all input columns.
    pub repeated_rows: u64,
    /// Tokens an epoch goes through, truncation applied.
    pub total_tokens: u64,
    /// The limit texts were cut to.
    pub max_seq_length: Option<usize>,
    pub label: Option<LabelReport>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Spent on reading and tokenising, or on finding it in the cache.
    pub seconds: f64,
    pub from_cache: bool,
}

/// Rows left out for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    pub reason: Reason,
    pub rows: u64,
    /// The first of them.
    pub examples: Vec<Example>,
}

/// One bad row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    pub place: Place,
    pub text: String,
}

/// One input column.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ColumnReport {
    pub name: String,
    pub prompt: Option<String>,
    /// Texts in all rows: one a row, but in a column of lists.
    #[serde(default)]
    pub texts: u64,
    /// Texts cut to `max_seq_length`.
    pub truncated: u64,
    /// Texts the tokenizer made nothing of.
    pub without_tokens: u64,
    /// Texts equal to an earlier one of the column.
    pub repeated: u64,
    /// Token lengths before truncation.
    pub lengths: Lengths,
    /// Tokens after truncation.
    pub tokens: u64,
}

/// How long texts are, in tokens, special tokens and prompt included.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Lengths {
    pub mean: f64,
    pub p50: u32,
    pub p90: u32,
    pub p99: u32,
    pub max: u32,
}

/// The label column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelReport {
    pub column: String,
    /// `float`, `int` or `matrix`.
    pub kind: String,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    /// Rows by label where there are few different ones (at most 256), in order of label.
    pub classes: Vec<(f64, u64)>,
    /// Class names by number, where the data has names.
    pub names: Vec<String>,
}

impl DataReport {
    /// Rows left out.
    #[must_use]
    pub fn rows_skipped(&self) -> u64 {
        self.skipped.iter().map(|s| s.rows).sum()
    }

    /// A few lines for people: rows, what was left out and why, lengths, labels, notes.
    #[must_use]
    pub fn lines(&self, files: &Files) -> Vec<String> {
        let name = self.name.as_deref().map(|n| format!("{n}: ")).unwrap_or_default();
        let cached = if self.from_cache { " (tokenised before)" } else { "" };
        let (rows, tokens) = (thousands(self.rows_used), thousands(self.total_tokens));
        let mut lines = vec![format!("{name}{rows} rows, {tokens} tokens from {}{cached}", files.describe())];
        for skipped in &self.skipped {
            let first = skipped.examples.first().map(|e| format!(", first {}", e.show(files))).unwrap_or_default();
            lines.push(format!("left out: {} rows ({}){first}", thousands(skipped.rows), skipped.reason.name()));
        }
        for column in &self.columns {
            let l = column.lengths;
            let mut line =
                format!("`{}`: tokens p50 {}, p90 {}, p99 {}, max {}", column.name, l.p50, l.p90, l.p99, l.max);
            if let (Some(limit), 1..) = (self.max_seq_length, column.truncated) {
                let share = 100.0 * column.truncated as f64 / column.texts.max(1) as f64;
                line.push_str(&format!("; {} cut to {limit} ({share:.1} %)", thousands(column.truncated)));
            }
            if column.repeated > 0 {
                line.push_str(&format!("; {} repeat an earlier text", thousands(column.repeated)));
            }
            if column.without_tokens > 0 {
                line.push_str(&format!("; {} without a token", thousands(column.without_tokens)));
            }
            lines.push(line);
        }
        if let Some(label) = &self.label {
            let LabelReport { column, kind, .. } = label;
            let classes =
                if label.classes.is_empty() { String::new() } else { format!(", {} different", label.classes.len()) };
            lines.push(format!(
                "label `{column}`: {kind}, {} to {}, mean {:.3}{classes}",
                label.min, label.max, label.mean
            ));
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }
}

impl Example {
    /// `` `a.jsonl` line 3, column `query`: empty text ``.
    #[must_use]
    pub fn show(&self, files: &Files) -> String {
        format!("{}{}", files.locate(self.place), self.text)
    }
}

/// Counts bad rows while a data set is read.
#[derive(Debug)]
pub struct BadRows {
    on_bad_row: OnBadRow,
    by_reason: BTreeMap<Reason, (u64, Vec<Example>)>,
    first: Vec<Example>,
    total: u64,
}

/// Rows named in an error.
const NAMED: usize = 5;

impl BadRows {
    pub fn new(on_bad_row: OnBadRow) -> Self {
        Self { on_bad_row, by_reason: BTreeMap::new(), first: Vec::new(), total: 0 }
    }

    pub fn add(&mut self, place: Place, problem: &Problem) {
        let column = problem.column.as_ref().map(|c| format!(", column `{c}`")).unwrap_or_default();
        let example = Example { place, text: format!("{column}: {}", problem.text) };
        self.total += 1;
        let (count, examples) = self.by_reason.entry(problem.reason).or_default();
        *count += 1;
        if examples.len() < NAMED {
            examples.push(example.clone());
        }
        if self.first.len() < NAMED {
            self.first.push(example);
        }
    }

    /// Whether the data set is refused already, so that the rest need only be counted.
    pub fn refused(&self) -> bool {
        self.on_bad_row == OnBadRow::Refuse && self.total > 0
    }

    /// The counts by reason, or the refusal.
    pub fn finish(self, files: &Files, rows_read: u64) -> Result<Vec<Skipped>> {
        if !self.refused() {
            let skipped = self.by_reason.into_iter();
            return Ok(skipped.map(|(reason, (rows, examples))| Skipped { reason, rows, examples }).collect());
        }
        let shown: Vec<String> = self.first.iter().map(|e| e.show(files)).collect();
        const HINT: &str = "correct them; a training data set can leave them out with `on_bad_row = \"skip\"`";
        if let ([only], 1) = (shown.as_slice(), self.total) {
            return Err(Error::data(only.clone()).with_hint(HINT.replace("them", "it")));
        }
        let (total, of) = (thousands(self.total), thousands(rows_read));
        let more = if self.total as usize > shown.len() { "\n  …" } else { "" };
        let text =
            format!("{total} of {of} rows in {} cannot be used:\n  {}{more}", files.describe(), shown.join("\n  "));
        Err(Error::data(text).with_hint(HINT))
    }
}

/// Exact percentiles in memory that grows with the number of different lengths only.
#[derive(Debug, Default)]
pub(super) struct Histogram(HashMap<u32, u64>);

impl Histogram {
    pub fn add(&mut self, length: u32) {
        self.add_many(length, 1);
    }

    pub fn add_many(&mut self, length: u32, times: u64) {
        *self.0.entry(length).or_default() += times;
    }

    pub fn lengths(&self) -> Lengths {
        let mut counts: Vec<(u32, u64)> = self.0.iter().map(|(l, n)| (*l, *n)).collect();
        counts.sort_unstable();
        let total: u64 = counts.iter().map(|c| c.1).sum();
        // The nearest rank: the smallest length that at least that share of the texts do not exceed.
        let at = |share: f64| {
            let rank = (share * total as f64).ceil() as u64;
            let mut seen = 0;
            let found = counts.iter().find(|(_, n)| {
                seen += n;
                seen >= rank
            });
            found.map_or(0, |c| c.0)
        };
        let sum: f64 = counts.iter().map(|(l, n)| f64::from(*l) * *n as f64).sum();
        Lengths {
            mean: sum / total.max(1) as f64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: counts.last().map_or(0, |c| c.0),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|l| histogram.add(l));
        let lengths = histogram.lengths();
        assert_eq!((lengths.p50, lengths.p90, lengths.p99, lengths.max), (50, 90, 99, 100));
        assert!((lengths.mean - 50.5).abs() < 1e-12);
        assert_eq!(Histogram::default().lengths(), Lengths::default());
    }

    #[test]
    fn of_lists_the_share_that_was_cut_is_of_texts() {
        let column = ColumnReport { name: "documents".into(), texts: 40, truncated: 30, ..ColumnReport::default() };
        let report =
            DataReport { rows_used: 10, max_seq_length: Some(8), columns: vec![column], ..DataReport::default() };
        let lines = report.lines(&Files::default());
        assert!(lines.iter().any(|line| line.ends_with("; 30 cut to 8 (75.0 %)")), "{lines:?}");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([7u64, 999, 1000, 1_234_567].map(thousands), ["7", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_refusal_names_five_and_counts_all() {
        let files = Files::default();
        let mut bad = BadRows::new(OnBadRow::Refuse);
        for number in 1..=7 {
            bad.add(Place { file: 0, number }, &Problem::cell(Reason::EmptyText, "query", "empty text"));
        }
        let error = bad.finish(&files, 1234).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("7 of 1,234 rows in no file cannot be used:\n  row 1, column `query`: empty text\n")
        );
        assert_eq!(error.to_string().lines().count(), 7);
        assert!(error.hint().unwrap().contains("on_bad_row = \"skip\""));
    }
}
