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
}

impl RoutedPreprocess {
    pub(super) fn new(default: Arc<TextTokenizer>, columns: BTreeMap<String, Arc<TextTokenizer>>) -> Self {
        Self { default, columns }
    }
}

impl Preprocess for RoutedPreprocess {
    fn tokenize(&self, texts: &[&str], prompt: Option<&str>) -> Result<Vec<Tokens>> {
        self.default.tokenize(texts, prompt)
    }

    fn tokenize_column(&self, column: &str, texts: &[&str], prompt: Option<&str>) -> Result<Vec<Tokens>> {
        self.columns.get(column).unwrap_or(&self.default).tokenize(texts, prompt)
    }

    fn fingerprint(&self) -> u64 {
        if self.columns.is_empty() {
            return self.default.fingerprint();
        }
        let mut all = format!("{:x}", self.default.fingerprint());
        for (column, tokenizer) in &self.columns {
            all.push_str(&format!(" {column:?} {:x}", tokenizer.fingerprint()));
        }
        xxhash_rust::xxh3::xxh3_64(all.as_bytes())
    }

    fn max_seq_length(&self) -> Option<usize> {
        self.default.max_seq_length()
    }
}
