//! Rows for the samplers' tests.

use super::RowFacts;
use crate::util::seed::{Rng, mix};

/// Made-up rows.
pub struct Facts {
    /// `[rows][columns]`, flat.
    pub ids: Vec<u64>,
    pub columns: usize,
    /// `[rows]`, or empty for 1 each.
    pub tokens: Vec<usize>,
    /// `[rows]`, or empty for none.
    pub classes: Vec<i64>,
}

impl Facts {
    /// Rows of one text each, no two alike, with these numbers of tokens.
    pub fn distinct(tokens: Vec<usize>) -> Self {
        Self { ids: (0..tokens.len() as u64).map(mix).collect(), columns: 1, tokens, classes: Vec::new() }
    }

    /// Texts drawn so that a few are very common; rows of 1 to 40 tokens.
    pub fn skewed(rng: &mut Rng, rows: usize, columns: usize, texts: u64) -> Self {
        let ids = (0..rows * columns).map(|_| mix(((rng.uniform().powi(3)) * texts as f64) as u64)).collect();
        let tokens = (0..rows).map(|_| 1 + rng.below(40) as usize).collect();
        Self { ids, columns, tokens, classes: Vec::new() }
    }
}

impl RowFacts for Facts {
    fn rows(&self) -> usize {
        self.classes.len().max(self.ids.len() / self.columns)
    }

    fn ids(&self, row: u32) -> &[u64] {
        &self.ids[row as usize * self.columns..][..self.columns]
    }

    fn tokens(&self, row: u32) -> usize {
        self.tokens.get(row as usize).copied().unwrap_or(1)
    }

    fn class(&self, row: u32) -> Option<i64> {
        self.classes.get(row as usize).copied()
    }
}
