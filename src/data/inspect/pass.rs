//! The pass over the rows: what is counted of each, and what the counts come to.

use super::eval::EvalTexts;
use super::labels::LabelCount;
use super::language::Languages;
use super::tally::Tally;
use super::text::{LengthCount, Looker, asks, overlap, words};
use super::{ColumnReport, Columns, Duplicates, FalseNegatives, Inspection, Shape, Signs, join};
use crate::data::source::{Cells, Files, Rows, Value};
use crate::error::{Error, Result};
use crate::flow::Preprocess;

/// Of so many rows all are looked at closely, then every sixteenth up to a million, then every 256th.
const CLOSELY: u64 = 20_000;
const MILLION: u64 = 1_000_000;
/// Texts that go through a tokenizer at a time.
const BLOCK: usize = 4096;
/// Texts with fewer letters and digits say nothing.
const NEAR_EMPTY: u32 = 3;

/// For how many rows a row stands that is looked at closely; `None` for one that is not.
fn weight(row: u64) -> Option<u64> {
    let every = match row {
        0..CLOSELY => 1,
        CLOSELY..MILLION => 16,
        _ => 256,
    };
    row.is_multiple_of(every).then_some(every)
}

/// What is counted of a column.
#[derive(Default)]
struct Column {
    /// Estimated for a text in English and for one in another language; with a tokenizer the first alone.
    lengths: [LengthCount; 2],
    /// Texts that wait for the tokenizer.
    block: Vec<(String, u64)>,
    empty: u64,
    near_empty: u64,
    texts: Tally,
    languages: Languages,
}

/// A part of the rows that were looked at closely.
#[derive(Default, Clone, Copy)]
struct Part {
    of: u64,
    all: u64,
}

impl Part {
    fn add(&mut self, is: bool, weight: u64) {
        self.all += weight;
        self.of += if is { weight } else { 0 };
    }

    fn value(self) -> f64 {
        self.of as f64 / self.all.max(1) as f64
    }
}

pub(super) struct Pass<'a> {
    tokenizer: Option<&'a dyn Preprocess>,
    looker: Looker,
    eval: Option<EvalTexts>,
    columns: Vec<Column>,
    labels: LabelCount,
    rows: u64,
    unusable: u64,
    first_unusable: Option<String>,
    exact: Tally,
    normal: Tally,
    /// Pairs of the first two texts.
    pairs: Tally,
    asks: [Part; 2],
    same: Part,
    nearer_negative: Part,
    equal_negative: Part,
}

impl<'a> Pass<'a> {
    pub fn new(
        columns: &Columns,
        tokenizer: Option<&'a dyn Preprocess>,
        eval: Option<EvalTexts>,
        looker: Looker,
    ) -> Self {
        Self {
            tokenizer,
            looker,
            eval,
            columns: columns.inputs.iter().map(|_| Column::default()).collect(),
            labels: LabelCount::default(),
            rows: 0,
            unusable: 0,
            first_unusable: None,
            exact: Tally::default(),
            normal: Tally::default(),
            pairs: Tally::default(),
            asks: [Part::default(); 2],
            same: Part::default(),
            nearer_negative: Part::default(),
            equal_negative: Part::default(),
        }
    }

    pub fn read(&mut self, files: &Files, columns: &Columns) -> Result<()> {
        let mut rows = Rows::new(files, Some(columns.wanted()));
        while let Some((place, cells)) = rows.next_row()? {
            let number = self.rows;
            self.rows += 1;
            let typed = files.get(place.file as usize).is_none_or(|f| f.format.is_typed());
            let problem = match cells {
                Ok(cells) => self.row(number, &cells, columns, typed)?,
                Err(problem) => Some(problem.text),
            };
            if let Some(problem) = problem {
                self.unusable += 1;
                self.first_unusable.get_or_insert_with(|| format!("{}: {problem}", files.locate(place)));
            }
        }
        for column in &mut self.columns {
            column.tokenize(self.tokenizer)?;
        }
        Ok(())
    }

    /// Counts a row; what is wrong with it, if it cannot be used.
    fn row(&mut self, number: u64, cells: &Cells, columns: &Columns, typed: bool) -> Result<Option<String>> {
        let cell = |name: &str| cells.iter().find(|(n, _)| n.as_ref() == name).map(|(_, value)| value);
        let weight = weight(number);
        let mut problem = None;
        let (mut exact, mut normal, mut hashes) = (0u64, 0u64, Vec::with_capacity(columns.inputs.len()));
        let mut texts: Vec<&str> = Vec::with_capacity(columns.inputs.len());
        for (i, name) in columns.inputs.iter().enumerate() {
            let values: &[String] = match cell(name) {
                Some(Value::Text(text)) if !text.trim().is_empty() => std::slice::from_ref(text),
                Some(Value::Texts(list)) if !list.is_empty() => list,
                other => {
                    self.columns[i].empty += 1;
                    let found = match other {
                        None | Some(Value::Null) => "nothing",
                        Some(Value::Text(_) | Value::Texts(_)) => "an empty text",
                        Some(other) => other.kind(),
                    };
                    problem.get_or_insert_with(|| format!("column `{name}` has {found}"));
                    continue;
                }
            };
            for text in values {
                let look = self.looker.look(text);
                exact = join(exact, look.exact);
                normal = join(normal, look.normal);
                hashes.push(look.normal);
                let column = &mut self.columns[i];
                column.near_empty += u64::from(look.letters < NEAR_EMPTY);
                column.texts.add(look.exact);
                match (self.tokenizer, weight) {
                    (None, _) => {
                        for (lengths, tokens) in column.lengths.iter_mut().zip(look.tokens) {
                            lengths.add(tokens, 1);
                        }
                    }
                    (Some(_), Some(weight)) => column.block.push((text.clone(), weight)),
                    (Some(_), None) => {}
                }
                if let Some(weight) = weight {
                    column.languages.add(text, weight);
                }
            }
            self.columns[i].tokenize_full(self.tokenizer)?;
            texts.extend(values.first().map(String::as_str));
        }
        if let Some(name) = &columns.label {
            match cell(name) {
                Some(value) if self.labels.add(value, typed) => {}
                _ => {
                    problem.get_or_insert_with(|| format!("column `{name}` has no label"));
                }
            }
        }
        if problem.is_some() {
            return Ok(problem);
        }
        self.exact.add(exact);
        self.normal.add(normal);
        if let [first, second, ..] = hashes.as_slice() {
            self.pairs.add(join(join(0, *first), *second));
        }
        if let Some(eval) = &mut self.eval {
            eval.meet(&hashes);
        }
        if let Some(weight) = weight {
            self.closely(&texts, &hashes, weight);
        }
        Ok(None)
    }

    fn closely(&mut self, texts: &[&str], hashes: &[u64], weight: u64) {
        for (part, text) in self.asks.iter_mut().zip(texts) {
            part.add(asks(text), weight);
        }
        let [anchor, positive, rest @ ..] = texts else { return };
        self.same.add(hashes[0] == hashes[1], weight);
        let Some(negative) = rest.first() else { return };
        self.equal_negative.add(hashes[2..].contains(&hashes[1]), weight);
        let anchor = words(anchor);
        let nearer = overlap(&anchor, &words(negative)) > overlap(&anchor, &words(positive));
        self.nearer_negative.add(nearer, weight);
    }

    /// What the counts come to.
    ///
    /// # Errors
    /// When there was no row that can be used.
    pub fn finish(self, columns: Columns) -> Result<Inspection> {
        let usable = self.rows - self.unusable;
        if usable == 0 {
            let first = self.first_unusable.unwrap_or_else(|| "there are no rows".to_owned());
            return Err(Error::data(format!("no row can be used; {first}"))
                .with_hint("name the columns with texts with `--columns`, and the label with `--label`"));
        }
        let label = self.labels.finish(columns.label.as_deref().unwrap_or_default());
        let (kind, per_list) = (label.as_ref().map(|l| l.kind), label.as_ref().and_then(|l| l.per_list));
        let shape = Shape::of(columns.inputs.len(), columns.lists, kind, per_list);
        let false_negatives = match self.columns.as_slice() {
            [anchors, positives, ..] if !columns.lists => {
                Some(false_negatives(&anchors.texts, &positives.texts, &self.pairs, usable))
            }
            _ => None,
        };
        let signs = Signs {
            asks: self.asks.map(Part::value),
            same: self.same.value(),
            nearer_negative: self.nearer_negative.value(),
            equal_negative: self.equal_negative.value(),
            grouped: self.columns.first().is_some_and(|first| first.texts.repeated() * 4 > usable),
        };
        Ok(Inspection {
            rows: self.rows,
            unusable: self.unusable,
            first_unusable: self.first_unusable,
            shape,
            tokens_estimated: self.tokenizer.is_none(),
            duplicates: Duplicates {
                exact: self.exact.repeated(),
                normalised: self.normal.repeated(),
                estimated: !self.exact.is_exact() || !self.normal.is_exact(),
            },
            columns: self
                .columns
                .into_iter()
                .zip(&columns.inputs)
                .enumerate()
                .map(|(i, (column, name))| {
                    let lists = columns.lists && i + 1 == columns.inputs.len();
                    column.report(name, lists, self.tokenizer.is_none())
                })
                .collect(),
            second_names: columns.second_names,
            ignored: columns.ignored,
            label,
            false_negatives,
            eval: self.eval.map(EvalTexts::finish),
            signs,
        })
    }
}

/// In a random batch of `b` of `n` rows two given rows are with probability `b (b - 1) / (n (n - 1))`; two rows of the
/// same anchor, or of the same positive, take each other's positive for wrong.
fn false_negatives(anchors: &Tally, positives: &Tally, pairs: &Tally, rows: u64) -> FalseNegatives {
    let wrong = (anchors.pairs() + positives.pairs()).saturating_sub(2 * pairs.pairs());
    let n = rows as f64;
    let expected = |batch: f64| {
        let batch = batch.min(n);
        let share = if n > 1.0 { batch * (batch - 1.0) / (n * (n - 1.0)) } else { 0.0 };
        (wrong as f64 * share * 100.0).round() / 100.0
    };
    FalseNegatives {
        anchors_with_several: anchors.shared(),
        positives_of_several: positives.shared(),
        per_batch_32: expected(32.0),
        per_batch_128: expected(128.0),
    }
}

impl Column {
    fn tokenize_full(&mut self, tokenizer: Option<&dyn Preprocess>) -> Result<()> {
        if self.block.len() < BLOCK { Ok(()) } else { self.tokenize(tokenizer) }
    }

    fn tokenize(&mut self, tokenizer: Option<&dyn Preprocess>) -> Result<()> {
        let Some(tokenizer) = tokenizer else { return Ok(()) };
        let texts: Vec<&str> = self.block.iter().map(|(text, _)| text.as_str()).collect();
        for (tokens, (_, weight)) in tokenizer.tokenize(&texts, None)?.iter().zip(&self.block) {
            self.lengths[0].add(tokens.full_length, *weight);
        }
        self.block.clear();
        Ok(())
    }

    fn report(self, name: &str, lists: bool, estimated: bool) -> ColumnReport {
        let languages = self.languages.main();
        let foreign = estimated && languages.first().is_some_and(|language| *language != "en");
        let count = &self.lengths[usize::from(foreign)];
        let lengths = count.histogram.lengths();
        ColumnReport {
            name: name.to_owned(),
            lists,
            tokens: [lengths.p50, lengths.p90, lengths.p99, lengths.max],
            over_128_256_512: count.over().map(|part| (part * 1e4).round() / 1e4),
            empty: self.empty,
            near_empty: self.near_empty,
            repeated: self.texts.repeated(),
            languages: languages.into_iter().map(str::to_owned).collect(),
        }
    }
}
