//! Tokenizers by column: a model with routes may read queries and documents by different ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::tokenizer::TextTokenizer;
use crate::error::Result;
use crate::flow::{Preprocess, Tokens};

/// A tokenizer for all columns, and others for some.
pub struct RoutedPreprocess {
    default: Arc<TextTokenizer>,
    columns: BTreeMap<String, Arc<TextTokenizer>>,
    /// That of the first column and that of the others, where no name decides.
    places: Option<[Arc<TextTokenizer>; 2]>,
}

impl RoutedPreprocess {
    pub(super) fn new(
        default: Arc<TextTokenizer>,
        columns: BTreeMap<String, Arc<TextTokenizer>>,
        places: Option<[Arc<TextTokenizer>; 2]>,
    ) -> Self {
        Self { default, columns, places }
    }
}

impl Preprocess for RoutedPreprocess {
    fn tokenize(&self, texts: &[&str], prompt: Option<&str>) -> Result<Vec<Tokens>> {
        self.default.tokenize(texts, prompt)
    }

    fn tokenize_column(
        &self,
        (number, name): (usize, &str),
        texts: &[&str],
        prompt: Option<&str>,
    ) -> Result<Vec<Tokens>> {
        let by_place = self.places.as_ref().map(|[first, others]| if number == 0 { first } else { others });
        self.columns.get(name).or(by_place).unwrap_or(&self.default).tokenize(texts, prompt)
    }

    fn fingerprint(&self) -> u64 {
        if self.columns.is_empty() && self.places.is_none() {
            return self.default.fingerprint();
        }
        let mut all = format!("{:x}", self.default.fingerprint());
        for (column, tokenizer) in &self.columns {
            all.push_str(&format!(" {column:?} {:x}", tokenizer.fingerprint()));
        }
        for tokenizer in self.places.iter().flatten() {
            all.push_str(&format!(" {:x}", tokenizer.fingerprint()));
        }
        xxhash_rust::xxh3::xxh3_64(all.as_bytes())
    }

    fn max_seq_length(&self) -> Option<usize> {
        self.default.max_seq_length()
    }
}
