//! Is anything that a model will be measured on among what it is trained on?

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::tally::ByHash;
use super::text::Looker;
use super::{Columns, Shape};
use crate::data::source::{DataFile, Files, Format, Rows, Value};
use crate::error::Result;

/// What the evaluation data are, and how much of them is among the training data.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct EvalReport {
    pub rows: u64,
    /// In the BEIR layout: rows are queries.
    pub beir: bool,
    pub shape: Shape,
    /// Input columns.
    pub columns: Vec<String>,
    /// Rows that are training rows, but for case and punctuation.
    pub rows_in_train: u64,
    /// Texts of the first column (queries) that the training data have in theirs.
    pub first_texts_in_train: u64,
    /// Texts of other columns, or of the corpus, that are anywhere among the training data.
    pub other_texts_in_train: u64,
    #[serde(skip)]
    pub label: Option<String>,
    /// Queries that come in several rows.
    #[serde(skip)]
    pub grouped: bool,
}

/// Different texts that are held against the training data.
const MOST: usize = 2 << 20;

/// The evaluation data's texts by their hashes, and which of them were met.
pub struct EvalTexts {
    report: EvalReport,
    rows: ByHash<bool>,
    first: ByHash<bool>,
    others: ByHash<bool>,
}

impl EvalTexts {
    /// Reads a file of rows, or a folder in the BEIR layout.
    pub fn read(path: &str, looker: &mut Looker) -> Result<Self> {
        let folder = Path::new(path);
        let file = |name: &str| DataFile {
            path: folder.join(name),
            shown: folder.join(name).display().to_string(),
            format: Format::JsonLines,
        };
        if is_beir(folder) {
            let mut texts = Self::new(true, Shape::Pairs, vec!["queries".into(), "corpus".into()], None);
            let queries = Files::from_iter([file("queries.jsonl")]);
            texts.report.rows = each(&queries, "text", looker, &mut |hash| put(&mut texts.first, hash))?;
            each(&Files::from_iter([file("corpus.jsonl")]), "text", looker, &mut |hash| put(&mut texts.others, hash))?;
            return Ok(texts);
        }
        let files = Files::resolve(&[path.to_owned()], Path::new(""))?;
        let columns = Columns::of(&files, None, None)?;
        let mut labels = super::LabelCount::default();
        let mut texts = Self::new(false, Shape::Unknown, columns.inputs.clone(), columns.label.clone());
        let mut rows = Rows::new(&files, Some(columns.wanted()));
        let mut repeated = false;
        while let Some((place, cells)) = rows.next_row()? {
            let Ok(cells) = cells else { continue };
            texts.report.rows += 1;
            let typed = files.get(place.file as usize).is_none_or(|f| f.format.is_typed());
            let mut row = 0u64;
            for (i, name) in columns.inputs.iter().enumerate() {
                let Some((_, Value::Text(text))) = cells.iter().find(|(n, _)| n.as_ref() == name) else { continue };
                let hash = looker.look(text).normal;
                row = super::join(row, hash);
                if i == 0 {
                    repeated |= texts.first.contains_key(&hash);
                    put(&mut texts.first, hash);
                } else {
                    put(&mut texts.others, hash);
                }
            }
            put(&mut texts.rows, row);
            if let Some((_, value)) = cells.iter().find(|(n, _)| columns.label.as_deref() == Some(n.as_ref())) {
                labels.add(value, typed);
            }
        }
        let label = labels.finish(columns.label.as_deref().unwrap_or_default());
        let (kind, per_list) = (label.as_ref().map(|l| l.kind), label.as_ref().and_then(|l| l.per_list));
        texts.report.shape = Shape::of(columns.inputs.len(), columns.lists, kind, per_list);
        texts.report.grouped = repeated;
        Ok(texts)
    }

    fn new(beir: bool, shape: Shape, columns: Vec<String>, label: Option<String>) -> Self {
        Self {
            report: EvalReport {
                rows: 0,
                beir,
                shape,
                columns,
                rows_in_train: 0,
                first_texts_in_train: 0,
                other_texts_in_train: 0,
                label,
                grouped: false,
            },
            rows: ByHash::default(),
            first: ByHash::default(),
            others: ByHash::default(),
        }
    }

    /// Meets a training row: the hashes of its texts, in the order of its columns.
    pub fn meet(&mut self, texts: &[u64]) {
        let met = |seen: &mut ByHash<bool>, hash: u64| {
            if let Some(seen) = seen.get_mut(&hash) {
                *seen = true;
            }
        };
        met(&mut self.rows, texts.iter().fold(0, |row, hash| super::join(row, *hash)));
        for (i, hash) in texts.iter().enumerate() {
            if i == 0 {
                met(&mut self.first, *hash);
            }
            met(&mut self.others, *hash);
        }
    }

    pub fn finish(self) -> EvalReport {
        let met = |seen: &ByHash<bool>| seen.values().filter(|seen| **seen).count() as u64;
        EvalReport {
            rows_in_train: if self.report.columns.len() > 1 { met(&self.rows) } else { 0 },
            first_texts_in_train: met(&self.first),
            other_texts_in_train: met(&self.others),
            ..self.report
        }
    }
}

fn put(texts: &mut ByHash<bool>, hash: u64) {
    if texts.len() < MOST {
        texts.entry(hash).or_insert(false);
    }
}

/// Whether a folder has queries and a corpus.
#[must_use]
pub fn is_beir(folder: &Path) -> bool {
    folder.join("corpus.jsonl").is_file() && folder.join("queries.jsonl").is_file()
}

/// The hashes of a column's texts; how many rows there are.
fn each(files: &Files, column: &str, looker: &mut Looker, take: &mut dyn FnMut(u64)) -> Result<u64> {
    let (mut rows, mut count) = (Rows::new(files, None), 0);
    while let Some((_, cells)) = rows.next_row()? {
        let Ok(cells) = cells else { continue };
        count += 1;
        if let Some((_, Value::Text(text))) = cells.iter().find(|(name, _)| name.as_ref() == column) {
            take(looker.look(text).normal);
        }
    }
    Ok(count)
}
