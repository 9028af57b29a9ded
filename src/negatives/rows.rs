//! Rows of a data set, made of negatives.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::pool::Pool;
use super::select::Mined;
use super::{OutputFormat, Settings, Statistics};
use crate::error::{Error, Result};
use crate::scoring::blocks::Hit;

/// The mined data set, row by row, and what it says of itself.
#[derive(Debug)]
pub struct Rows<'a> {
    pool: &'a Pool,
    mined: &'a Mined,
    settings: &'a Settings,
    anchor: String,
    positive: String,
}

impl<'a> Rows<'a> {
    /// Rows whose first columns have the names that the pairs' columns have.
    #[must_use]
    pub fn new(pool: &'a Pool, mined: &'a Mined, settings: &'a Settings, (anchor, positive): (&str, &str)) -> Self {
        Self { pool, mined, settings, anchor: anchor.to_owned(), positive: positive.to_owned() }
    }

    /// The names of the columns, in order.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        columns(self.settings, (&self.anchor, &self.positive))
    }

    /// Gives each row to `take`, in the anchors' order.
    ///
    /// # Errors
    /// `take`'s.
    pub fn each(&self, take: &mut dyn FnMut(Map<String, Value>) -> Result<()>) -> Result<()> {
        for (query, negatives) in self.mined.negatives.iter().enumerate() {
            if self.settings.output_format == OutputFormat::LabeledPair {
                self.pairs(query, negatives, take)?;
                continue;
            }
            for place in 0..self.pool.positives()[query].len() {
                match self.settings.output_format {
                    OutputFormat::Triplet => {
                        negatives.iter().try_for_each(|negative| take(self.triplet((query, place), negative)))?;
                    }
                    OutputFormat::NTuple if negatives.len() >= self.settings.num_negatives => {
                        take(self.tuple((query, place), negatives))?;
                    }
                    OutputFormat::LabeledList if !negatives.is_empty() => take(self.list((query, place), negatives))?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// A row's anchor and what stands beside it.
    fn head(&self, query: usize, second: Value) -> Map<String, Value> {
        Map::from_iter([(self.anchor.clone(), json!(self.pool.queries()[query])), (self.positive.clone(), second)])
    }

    fn document(&self, number: u32) -> Value {
        json!(self.pool.documents()[number as usize])
    }

    fn positive(&self, (query, place): (usize, usize)) -> u32 {
        self.pool.positives()[query][place]
    }

    fn triplet(&self, pair: (usize, usize), negative: &Hit) -> Map<String, Value> {
        let mut row = self.head(pair.0, self.document(self.positive(pair)));
        row.insert("negative".to_owned(), self.document(negative.rank));
        if self.settings.output_scores {
            row.insert("scores".to_owned(), self.scores(pair, std::slice::from_ref(negative)));
        }
        row
    }

    fn tuple(&self, pair: (usize, usize), negatives: &[Hit]) -> Map<String, Value> {
        let mut row = self.head(pair.0, self.document(self.positive(pair)));
        for (i, negative) in negatives.iter().enumerate() {
            row.insert(format!("negative_{}", i + 1), self.document(negative.rank));
        }
        if self.settings.output_scores {
            row.insert("scores".to_owned(), self.scores(pair, negatives));
        }
        row
    }

    fn list(&self, pair: (usize, usize), negatives: &[Hit]) -> Map<String, Value> {
        let numbers = std::iter::once(self.positive(pair)).chain(negatives.iter().map(|negative| negative.rank));
        let mut row = self.head(pair.0, numbers.map(|number| self.document(number)).collect());
        if self.settings.output_scores {
            row.insert("scores".to_owned(), self.scores(pair, negatives));
        } else {
            let labels: Vec<u8> = std::iter::once(1).chain(negatives.iter().map(|_| 0)).collect();
            row.insert("labels".to_owned(), json!(labels));
        }
        row
    }

    fn pairs(
        &self,
        query: usize,
        negatives: &[Hit],
        take: &mut dyn FnMut(Map<String, Value>) -> Result<()>,
    ) -> Result<()> {
        let positives = self.pool.positives()[query].iter().zip(&self.mined.positives[query]);
        let all = positives
            .map(|(number, score)| (*number, *score, 1))
            .chain(negatives.iter().map(|negative| (negative.rank, negative.score, 0)));
        for (number, score, label) in all {
            let mut row = self.head(query, self.document(number));
            if self.settings.output_scores {
                row.insert("score".to_owned(), json!(score));
            } else {
                row.insert("label".to_owned(), json!(label));
            }
            take(row)?;
        }
        Ok(())
    }

    /// The positive's score, then the negatives'.
    fn scores(&self, (query, place): (usize, usize), negatives: &[Hit]) -> Value {
        let positive = self.mined.positives[query][place];
        std::iter::once(positive).chain(negatives.iter().map(|negative| negative.score)).collect()
    }

    /// Scores of all positives, and of the negatives that rows hold, with how far each lies below the positive.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let (mut positives, mut negatives, mut differences) = (Vec::new(), Vec::new(), Vec::new());
        let wanted = self.settings.num_negatives;
        for (scores, hits) in self.mined.positives.iter().zip(&self.mined.negatives) {
            positives.extend_from_slice(scores);
            if self.settings.output_format == OutputFormat::NTuple && hits.len() < wanted {
                continue;
            }
            for positive in scores {
                negatives.extend(hits.iter().map(|hit| hit.score));
                differences.extend(hits.iter().map(|hit| positive - hit.score));
            }
        }
        Statistics::new(positives, negatives, differences)
    }

    /// The rows there would be if every anchor had all negatives.
    #[must_use]
    pub fn most(&self) -> usize {
        let (queries, wanted) = (self.pool.queries().len(), self.settings.num_negatives);
        let positives: usize = self.pool.positives().iter().map(Vec::len).sum();
        match self.settings.output_format {
            OutputFormat::Triplet => positives.saturating_mul(wanted),
            OutputFormat::LabeledPair => queries.saturating_mul(wanted).saturating_add(self.pool.rows()),
            OutputFormat::NTuple | OutputFormat::LabeledList => positives,
        }
    }
}

/// The names of the columns of rows, in order.
#[must_use]
pub fn columns(settings: &Settings, (anchor, positive): (&str, &str)) -> Vec<String> {
    let (format, scores) = (settings.output_format, settings.output_scores);
    let mut names = vec![anchor.to_owned(), positive.to_owned()];
    match format {
        OutputFormat::Triplet => names.push("negative".to_owned()),
        OutputFormat::NTuple => names.extend((1..=settings.num_negatives).map(|i| format!("negative_{i}"))),
        OutputFormat::LabeledPair => names.push(if scores { "score" } else { "label" }.to_owned()),
        OutputFormat::LabeledList => names.push(if scores { "scores" } else { "labels" }.to_owned()),
    }
    if scores && matches!(format, OutputFormat::Triplet | OutputFormat::NTuple) {
        names.push("scores".to_owned());
    }
    names
}

/// Refuses rows that would have two columns of one name, and n-tuples of more negatives than an anchor can have.
///
/// # Errors
/// [`Error::Usage`] naming the column, or both numbers.
pub fn check(pool: &Pool, settings: &Settings, names: (&str, &str)) -> Result<()> {
    let most = pool.documents().len() - usize::from(!settings.include_positives);
    let wanted = settings.num_negatives;
    if settings.output_format == OutputFormat::NTuple && wanted > most {
        return Err(Error::usage(format!(
            "n-tuples have `num_negatives` ({wanted}) negatives each, and no anchor can have more than {most}"
        ))
        .with_hint("lower `num_negatives`, or give more documents with `corpus`"));
    }
    let names = columns(settings, names);
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err(Error::usage(format!("the rows would have two columns `{name}`"))
            .with_hint("name the anchors' and positives' columns otherwise in the data")),
        None => Ok(()),
    }
}
