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
    ///
    /// # Errors
    /// [`Error::Usage`] when these are names of columns that are added.
    pub fn new(
        pool: &'a Pool,
        mined: &'a Mined,
        settings: &'a Settings,
        (anchor, positive): (&str, &str),
    ) -> Result<Self> {
        let rows = Self { pool, mined, settings, anchor: anchor.to_owned(), positive: positive.to_owned() };
        let names = rows.columns();
        let mut seen = HashSet::new();
        match names.iter().find(|name| !seen.insert(*name)) {
            Some(name) => Err(Error::usage(format!("the rows would have two columns `{name}`"))
                .with_hint("name the anchors' and positives' columns otherwise in the data")),
            None => Ok(rows),
        }
    }

    /// The names of the columns, in order.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        let Settings { output_format, output_scores, num_negatives, .. } = *self.settings;
        columns(output_format, output_scores, num_negatives, (&self.anchor, &self.positive))
    }

    /// Gives each row to `take`, in the anchors' order.
    ///
    /// # Errors
    /// `take`'s.
    pub fn each(&self, take: &mut dyn FnMut(Map<String, Value>) -> Result<()>) -> Result<()> {
        for (query, negatives) in self.mined.negatives.iter().enumerate() {
            match self.settings.output_format {
                OutputFormat::LabeledPair => self.pairs(query, negatives, take)?,
                format => {
                    for place in 0..self.pool.positives()[query].len() {
                        match format {
                            OutputFormat::Triplet => self.triplets((query, place), negatives, take)?,
                            OutputFormat::NTuple => self.tuple((query, place), negatives, take)?,
                            _ => self.list((query, place), negatives, take)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn anchor(&self, query: usize) -> Map<String, Value> {
        Map::from_iter([(self.anchor.clone(), json!(self.pool.queries()[query]))])
    }

    fn document(&self, number: u32) -> &str {
        &self.pool.documents()[number as usize]
    }

    fn triplets(
        &self,
        (query, place): (usize, usize),
        negatives: &[Hit],
        take: &mut dyn FnMut(Map<String, Value>) -> Result<()>,
    ) -> Result<()> {
        for negative in negatives {
            let mut row = self.anchor(query);
            row.insert(self.positive.clone(), json!(self.document(self.pool.positives()[query][place])));
            row.insert("negative".to_owned(), json!(self.document(negative.rank)));
            if self.settings.output_scores {
                row.insert("scores".to_owned(), json!([self.mined.positives[query][place], negative.score]));
            }
            take(row)?;
        }
        Ok(())
    }

    fn tuple(
        &self,
        (query, place): (usize, usize),
        negatives: &[Hit],
        take: &mut dyn FnMut(Map<String, Value>) -> Result<()>,
    ) -> Result<()> {
        if negatives.len() < self.settings.num_negatives {
            return Ok(());
        }
        let mut row = self.anchor(query);
        row.insert(self.positive.clone(), json!(self.document(self.pool.positives()[query][place])));
        for (i, negative) in negatives.iter().enumerate() {
            row.insert(format!("negative_{}", i + 1), json!(self.document(negative.rank)));
        }
        if self.settings.output_scores {
            row.insert("scores".to_owned(), json!(self.scores((query, place), negatives)));
        }
        take(row)
    }

    fn list(
        &self,
        (query, place): (usize, usize),
        negatives: &[Hit],
        take: &mut dyn FnMut(Map<String, Value>) -> Result<()>,
    ) -> Result<()> {
        if negatives.is_empty() {
            return Ok(());
        }
        let numbers =
            std::iter::once(self.pool.positives()[query][place]).chain(negatives.iter().map(|negative| negative.rank));
        let documents: Vec<&str> = numbers.map(|number| self.document(number)).collect();
        let mut row = self.anchor(query);
        row.insert(self.positive.clone(), json!(documents));
        if self.settings.output_scores {
            row.insert("scores".to_owned(), json!(self.scores((query, place), negatives)));
        } else {
            let labels: Vec<u8> = std::iter::once(1).chain(negatives.iter().map(|_| 0)).collect();
            row.insert("labels".to_owned(), json!(labels));
        }
        take(row)
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
            let mut row = self.anchor(query);
            row.insert(self.positive.clone(), json!(self.document(number)));
            if self.settings.output_scores {
                row.insert("score".to_owned(), json!(score));
            } else {
                row.insert("label".to_owned(), json!(label));
            }
            take(row)?;
        }
        Ok(())
    }

    fn scores(&self, (query, place): (usize, usize), negatives: &[Hit]) -> Vec<f32> {
        std::iter::once(self.mined.positives[query][place]).chain(negatives.iter().map(|n| n.score)).collect()
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
            OutputFormat::Triplet => positives * wanted,
            OutputFormat::LabeledPair => queries * wanted + self.pool.rows(),
            OutputFormat::NTuple | OutputFormat::LabeledList => positives,
        }
    }
}

/// The names of the columns of a format, in order.
#[must_use]
pub fn columns(
    format: OutputFormat,
    scores: bool,
    num_negatives: usize,
    (anchor, positive): (&str, &str),
) -> Vec<String> {
    let mut names = vec![anchor.to_owned(), positive.to_owned()];
    match format {
        OutputFormat::Triplet => names.push("negative".to_owned()),
        OutputFormat::NTuple => names.extend((1..=num_negatives).map(|i| format!("negative_{i}"))),
        OutputFormat::LabeledPair => names.push(if scores { "score" } else { "label" }.to_owned()),
        OutputFormat::LabeledList => names.push(if scores { "scores" } else { "labels" }.to_owned()),
    }
    if scores && matches!(format, OutputFormat::Triplet | OutputFormat::NTuple) {
        names.push("scores".to_owned());
    }
    names
}
