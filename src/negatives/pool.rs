//! Every anchor and every document once.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};

/// Pairs of anchors and positives, and the documents among which negatives are looked for. Rows with the same anchor are
/// positives of one anchor.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    queries: Vec<String>,
    documents: Vec<String>,
    /// `[queries]`: its positives' numbers among the documents, each once.
    positives: Vec<Vec<u32>>,
    rows: usize,
    max_positives: usize,
}

impl Pool {
    /// From rows of pairs; negatives are looked for among `corpus` and all positives, or among the positives alone.
    ///
    /// # Errors
    /// [`Error::Data`] without pairs, and with more documents than 2^32.
    pub fn new(pairs: Vec<(String, String)>, corpus: Option<Vec<String>>) -> Result<Self> {
        if pairs.is_empty() {
            return Err(Error::data("there are no pairs to find negatives for"));
        }
        let rows = pairs.len();
        let mut pool = Self { rows, ..Self::default() };
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut documents: Vec<String> = Vec::new();
        let mut number = |text: String| -> Result<u32> {
            if let Some(number) = numbers.get(&text) {
                return Ok(*number);
            }
            let number = u32::try_from(documents.len()).map_err(|_| Error::data("more than 2^32 documents"))?;
            documents.push(text.clone());
            numbers.insert(text, number);
            Ok(number)
        };
        for text in corpus.into_iter().flatten() {
            if !text.trim().is_empty() {
                number(text)?;
            }
        }
        let mut queries: HashMap<String, usize> = HashMap::new();
        let mut rows_of: Vec<usize> = Vec::new();
        let mut known: HashSet<(usize, u32)> = HashSet::new();
        for (anchor, positive) in pairs {
            let positive = number(positive)?;
            let query = *queries.entry(anchor).or_insert_with_key(|anchor| {
                pool.queries.push(anchor.clone());
                pool.positives.push(Vec::new());
                rows_of.push(0);
                pool.queries.len() - 1
            });
            rows_of[query] += 1;
            if known.insert((query, positive)) {
                pool.positives[query].push(positive);
            }
        }
        pool.max_positives = rows_of.into_iter().max().unwrap_or(0);
        pool.documents = documents;
        Ok(pool)
    }

    /// The anchors, in the order they came.
    #[must_use]
    pub fn queries(&self) -> &[String] {
        &self.queries
    }

    /// The documents: the corpus, then positives that are not in it.
    #[must_use]
    pub fn documents(&self) -> &[String] {
        &self.documents
    }

    /// The positives of each anchor, as numbers of documents.
    #[must_use]
    pub fn positives(&self) -> &[Vec<u32>] {
        &self.positives
    }

    /// Rows the pairs came in.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The rows of the anchor with the most, the same pair counted again.
    #[must_use]
    pub fn max_positives(&self) -> usize {
        self.max_positives
    }
}
