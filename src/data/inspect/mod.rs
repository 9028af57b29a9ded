//! What is in a data set, before anything is trained on it? One pass over its rows, in bounded memory.
//!
//! Counts of rows are of all rows. What costs more (words, languages, a tokenizer's tokens) is looked at in the first rows
//! all, later in every sixteenth and every 256th, which then stand for the others.

pub mod eval;
pub mod labels;
mod language;
mod pass;
mod second_names;
pub mod shape;
mod tally;
mod text;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

pub use eval::{EvalReport, is_beir};
use labels::LabelCount;
pub use labels::{LabelFacts, LabelReport};
pub use shape::Shape;

use super::columns::LABEL_COLUMNS;
use super::probe::{ColumnInfo, ColumnKind, probe};
use super::source::Files;
use crate::error::{Error, Result};
use crate::flow::Preprocess;
use crate::util::suggest;

/// What to look at.
#[derive(Default)]
pub struct Request<'a> {
    /// A file, glob or directory.
    pub data: &'a str,
    /// The columns with texts, in the loss's order; all of them without.
    pub columns: Option<&'a [String]>,
    /// The label column; found by its name without.
    pub label: Option<&'a str>,
    /// What the model will be measured on.
    pub eval: Option<&'a str>,
    /// The base model's tokenizer; lengths are estimated without.
    pub tokenizer: Option<&'a dyn Preprocess>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Inspection {
    /// Rows, those that cannot be used among them.
    pub rows: u64,
    /// Rows that cannot be used, and what is wrong with the first of them.
    pub unusable: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_unusable: Option<String>,
    pub shape: Shape,
    /// The columns with texts, in the file's order.
    pub columns: Vec<ColumnReport>,
    /// Columns that are the label in other words, and so no inputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub second_names: Vec<String>,
    /// Columns that have no part in training.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// Whether token lengths are estimates.
    pub tokens_estimated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelReport>,
    pub duplicates: Duplicates,
    /// Of rows with an anchor and a positive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_negatives: Option<FalseNegatives>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalReport>,
    #[serde(skip)]
    pub signs: Signs,
}

impl Inspection {
    /// Whether the first two columns are in different languages.
    #[must_use]
    pub fn translated(&self) -> bool {
        let [first, second, ..] = self.columns.as_slice() else { return false };
        let told = !first.languages.is_empty() && !second.languages.is_empty();
        told && first.languages.iter().all(|language| !second.languages.contains(language))
    }
}

/// A column with texts.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ColumnReport {
    pub name: String,
    /// Whether it holds lists of texts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lists: bool,
    /// Token lengths: percentiles 50, 90, 99 and the longest.
    pub tokens: [u32; 4],
    /// The part of the texts with more than 128, 256 and 512 tokens.
    pub over_128_256_512: [f64; 3],
    /// Missing or empty.
    pub empty: u64,
    /// With two letters or fewer.
    pub near_empty: u64,
    /// Equal to an earlier text of the column.
    pub repeated: u64,
    /// A rough guess, the commonest first; empty where it could not be told.
    pub languages: Vec<String>,
}

/// Rows that come again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Duplicates {
    /// Equal to an earlier row.
    pub exact: u64,
    /// Equal but for case, spaces and punctuation.
    pub normalised: u64,
    /// Whether the numbers are estimates.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

/// What in-batch negatives would take for wrong and is right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
pub struct FalseNegatives {
    /// Anchors with several positives.
    pub anchors_with_several: u64,
    /// Positives of several anchors.
    pub positives_of_several: u64,
    /// Wrong negatives expected in a random batch of 32 rows, and of 128; `no_duplicates` keeps them apart.
    pub per_batch_32: f64,
    pub per_batch_128: f64,
}

/// What speaks for columns in a wrong order and the like; parts of the rows looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Signs {
    /// Texts of the first and of the second column that ask.
    pub asks: [f64; 2],
    /// Rows whose first two texts are the same.
    pub same: f64,
    /// Rows whose negative has more of the anchor's words than the positive.
    pub nearer_negative: f64,
    /// Rows whose negative is the positive.
    pub equal_negative: f64,
    /// The first column's texts come in several rows.
    pub grouped: bool,
}

/// The roles of columns, by their names and kinds.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns {
    pub inputs: Vec<String>,
    /// Whether the last input holds lists.
    pub lists: bool,
    pub label: Option<String>,
    /// Columns that say the label in other words; `ignored` has them too.
    pub second_names: Vec<String>,
    pub ignored: Vec<String>,
}

impl Columns {
    /// As a recipe would have it.
    ///
    /// # Errors
    /// When the files cannot be read, a named column is missing, or there is no text.
    pub fn of(files: &Files, inputs: Option<&[String]>, label: Option<&str>) -> Result<Self> {
        let columns = probe(files)?;
        let names = || columns.iter().map(|c| c.name.as_str());
        for name in inputs.unwrap_or_default().iter().map(String::as_str).chain(label) {
            if !columns.iter().any(|c| c.name == name) {
                return Err(Error::data(format!("no column `{name}` in {}", files.describe()))
                    .with_hint(suggest::hint(name, names())));
            }
        }
        let named = |name: &&str| names().any(|n| n == *name) && !inputs.is_some_and(|i| i.iter().any(|n| n == *name));
        let label = label.or_else(|| LABEL_COLUMNS.into_iter().find(|name| named(name)));
        let text = |c: &&ColumnInfo| matches!(c.kind, ColumnKind::Text | ColumnKind::Texts);
        let mut second_names = Vec::new();
        let found: Vec<String> = match inputs {
            Some(inputs) => inputs.to_vec(),
            None => {
                let texts = columns.iter().filter(text).filter(|c| label != Some(c.name.as_str()));
                let mut texts: Vec<String> = texts.map(|c| c.name.clone()).collect();
                if let (Some(label), 2..) = (label, texts.len()) {
                    second_names = second_names::find(files, label, &texts)?;
                    texts.retain(|name| !second_names.contains(name));
                }
                texts
            }
        };
        if found.is_empty() {
            let kinds: Vec<String> = columns.iter().map(|c| format!("`{}` ({})", c.name, c.kind.name())).collect();
            return Err(Error::data(format!("{} has no column with texts", files.describe()))
                .with_hint(format!("it has {}", kinds.join(", "))));
        }
        let is_list = |name: &String| columns.iter().any(|c| c.name == *name && c.kind == ColumnKind::Texts);
        let ignored = columns.iter().filter(|c| !found.contains(&c.name) && label != Some(c.name.as_str()));
        Ok(Self {
            lists: found.iter().any(is_list),
            ignored: ignored.map(|c| c.name.clone()).collect(),
            label: label.map(str::to_owned),
            second_names,
            inputs: found,
        })
    }

    /// The columns to read.
    pub fn wanted(&self) -> Vec<String> {
        self.inputs.iter().chain(&self.label).cloned().collect()
    }
}

/// The hash of a row that grows by a text.
fn join(row: u64, text: u64) -> u64 {
    crate::util::seed::mix(row.rotate_left(17) ^ text)
}

/// Looks at a data set.
///
/// # Errors
/// When the files cannot be read, or a column that was named is not there.
pub fn inspect(request: &Request<'_>) -> Result<Inspection> {
    if is_beir(Path::new(request.data)) {
        return Err(Error::data(format!(
            "`{}` is a folder to measure retrieval with, not rows to train on",
            request.data
        ))
        .with_hint("give it as `--eval`, and a file of rows as the data"));
    }
    let files = Files::resolve(&[request.data.to_owned()], Path::new(""))?;
    let columns = Columns::of(&files, request.columns, request.label)?;
    let mut looker = text::Looker::default();
    let eval = request.eval.map(|path| eval::EvalTexts::read(path, &mut looker)).transpose()?;
    let mut pass = pass::Pass::new(&columns, request.tokenizer, eval, looker);
    pass.read(&files, &columns)?;
    pass.finish(columns)
}

#[cfg(test)]
mod tests;
