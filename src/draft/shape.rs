//! What rows look like, as far as a beginning depends on it: the texts, and what kind of label there is.

use std::path::Path;

use crate::data::columns::LABEL_COLUMNS;
use crate::data::probe::{ColumnInfo, ColumnKind, probe};
use crate::data::source::{Files, Rows, Value};
use crate::error::{Error, Result};

/// Rows looked at to tell classes from scores.
const ROWS: usize = 1000;
/// What the first and the second column of pairs, and texts that do not belong to them, are called in public data sets.
const FIRST: [&str; 9] =
    ["anchor", "query", "question", "sentence1", "text1", "premise", "source", "english", "sentence_A"];
const SECOND: [&str; 12] = [
    "positive",
    "passage",
    "answer",
    "document",
    "sentence2",
    "text2",
    "hypothesis",
    "target",
    "non_english",
    "sentence_B",
    "context",
    "response",
];
const OTHERS: [&str; 2] = ["negative", "hard_negative"];

/// What labels there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Labels {
    /// 0 and 1.
    Binary,
    /// Other whole numbers, or names.
    Classes,
    /// Numbers.
    Scores,
    /// A list of numbers a row.
    Vectors,
}

/// The columns that matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Shape {
    /// The texts, in the loss's order.
    pub(super) texts: Vec<String>,
    /// A column with lists of texts.
    pub(super) list: Option<String>,
    pub(super) label: Option<(String, Labels)>,
}

impl Shape {
    /// Looks at a data set's first rows.
    ///
    /// # Errors
    /// When it cannot be read, or has no texts.
    pub(super) fn of(paths: &[String], base: &Path, columns: Option<&[String]>, label: Option<&str>) -> Result<Self> {
        let files = Files::resolve(paths, base)?;
        let found = probe(&files)?;
        let kind = |name: &str| found.iter().find(|c| c.name == name).map(|c| c.kind);
        let label = match label {
            Some(name) => Some(name),
            None => LABEL_COLUMNS.into_iter().find(|name| kind(name).is_some_and(|kind| kind != ColumnKind::Empty)),
        };
        let label = match label {
            Some(name) => Some((name.to_owned(), labels(&files, name, kind(name))?)),
            None => None,
        };
        let texts = match columns {
            Some(names) => names.iter().filter(|n| kind(n) != Some(ColumnKind::Texts)).cloned().collect(),
            None => texts(&found, label.as_ref().map(|(name, _)| name.as_str())),
        };
        let list =
            found.iter().find(|c| c.kind == ColumnKind::Texts && columns.is_none_or(|names| names.contains(&c.name)));
        if texts.is_empty() {
            return Err(Error::data(format!("no column of {} holds texts", files.describe()))
                .with_hint("name the columns with `--set 'train_dataset.0.columns=[\"question\", \"answer\"]'`"));
        }
        Ok(Self { texts, list: list.map(|c| c.name.clone()), label })
    }

    pub(super) fn labels(&self) -> Option<Labels> {
        self.label.as_ref().map(|(_, labels)| *labels)
    }

    /// In words, for messages.
    pub(super) fn described(&self) -> String {
        let mut parts = vec![match self.texts.len() {
            1 => format!("a text (`{}`)", self.texts[0]),
            n => format!("{n} texts (`{}`)", self.texts.join("`, `")),
        }];
        if let Some(list) = &self.list {
            parts.push(format!("a list of texts (`{list}`)"));
        }
        if let Some((name, labels)) = &self.label {
            let what = match labels {
                Labels::Binary => "labels 0 and 1",
                Labels::Classes => "classes",
                Labels::Scores => "scores",
                Labels::Vectors => "lists of numbers",
            };
            parts.push(format!("{what} (`{name}`)"));
        }
        parts.join(", ")
    }
}

/// Those that names tell belong together; else all of them.
fn texts(columns: &[ColumnInfo], label: Option<&str>) -> Vec<String> {
    let texts: Vec<&str> = columns
        .iter()
        .filter(|c| c.kind == ColumnKind::Text && Some(c.name.as_str()) != label)
        .map(|c| c.name.as_str())
        .collect();
    let known = |names: &[&'static str]| names.iter().find(|name| texts.contains(name)).copied();
    let lists = columns.iter().any(|c| c.kind == ColumnKind::Texts);
    match (known(&FIRST), known(&SECOND)) {
        (Some(first), Some(second)) => {
            let others = texts.iter().filter(|name| OTHERS.iter().any(|other| name.starts_with(other)));
            [first, second].into_iter().chain(others.copied()).map(str::to_owned).collect()
        }
        (Some(first), None) if lists => vec![first.to_owned()],
        _ => texts.into_iter().map(str::to_owned).collect(),
    }
}

fn labels(files: &Files, name: &str, kind: Option<ColumnKind>) -> Result<Labels> {
    match kind {
        None => {
            return Err(Error::data(format!("{} has no column `{name}`", files.describe()))
                .with_hint("`label` names the column with labels or scores"));
        }
        Some(ColumnKind::Bool) => return Ok(Labels::Binary),
        Some(ColumnKind::Text) => return Ok(Labels::Classes),
        Some(ColumnKind::Numbers) => return Ok(Labels::Vectors),
        Some(_) => {}
    }
    let mut rows = Rows::new(files, None);
    let (mut whole, mut binary) = (true, true);
    for _ in 0..ROWS {
        let Some((_, cells)) = rows.next_row()? else { break };
        let Ok(cells) = cells else { continue };
        let number = match cells.iter().find(|(column, _)| column.as_ref() == name) {
            Some((_, Value::Integer(n))) => *n as f64,
            Some((_, Value::Number(x))) => *x,
            Some((_, Value::Text(text))) => text.trim().parse().unwrap_or(f64::NAN),
            _ => continue,
        };
        whole &= number.fract() == 0.0;
        binary &= number == 0.0 || number == 1.0;
    }
    Ok(match (binary, whole) {
        (true, _) => Labels::Binary,
        (_, true) => Labels::Classes,
        _ => Labels::Scores,
    })
}
