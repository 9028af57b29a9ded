//! Which tokens' vectors a text is compared by.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::{Config, Features, Module, write_json};
use crate::error::Result;
use crate::flow::PackedBatch;
use crate::model::tokenizer::TextTokenizer;
use crate::ops::Context;

/// Leaves out the vectors of tokens that say nothing, of documents for the most part.
pub struct MultiVectorMask {
    skiplist_words: Vec<String>,
    skiplist_tasks: Vec<String>,
    keep_only_token_ids: Option<Vec<u32>>,
    /// The tokens of the words, once the tokenizer is known.
    skipped: HashSet<u32>,
    /// Those words that are not one token.
    unknown: Vec<String>,
}

impl MultiVectorMask {
    /// Leaves out tokens of documents.
    #[must_use]
    pub fn new(skiplist_words: Vec<String>) -> Self {
        Self {
            skiplist_words,
            skiplist_tasks: vec!["document".to_owned()],
            keep_only_token_ids: None,
            skipped: HashSet::new(),
            unknown: Vec::new(),
        }
    }

    /// Reads the folder's config.json.
    ///
    /// # Errors
    /// When a key is not what it should be.
    pub fn load(directory: &Path) -> Result<Self> {
        let config = Config::read_if_there(directory, "config.json")?;
        let words = |key: &str| -> Result<Option<Vec<String>>> {
            let Some(value) = config.get(&[key]) else { return Ok(None) };
            match value {
                Value::String(one) => Ok(Some(vec![one.clone()])),
                all => serde_json::from_value(all.clone())
                    .map(Some)
                    .map_err(|_| config.bad(format!("`{key}` is not a list of texts"))),
            }
        };
        let keep_only_token_ids = match config.get(&["keep_only_token_ids"]) {
            None => None,
            Some(ids) => Some(
                serde_json::from_value::<Vec<u32>>(ids.clone())
                    .map_err(|_| config.bad("`keep_only_token_ids` is not a list of token ids"))?,
            ),
        };
        let made = Self::new(words("skiplist_words")?.unwrap_or_default());
        let skiplist_tasks = words("skiplist_tasks")?.unwrap_or_else(|| made.skiplist_tasks.clone());
        Ok(Self { skiplist_tasks, keep_only_token_ids, ..made })
    }

    /// Whether a token's vector counts in texts that are `task` to the model.
    fn keeps(&self, token: u32, task: Option<&str>) -> bool {
        let skips = self.skiplist_tasks.iter().any(|name| name == task.unwrap_or("document"));
        let only = self.keep_only_token_ids.as_ref().filter(|ids| task != Some("query") && !ids.is_empty());
        !(skips && self.skipped.contains(&token)) && only.is_none_or(|ids| ids.contains(&token))
    }
}

impl Module for MultiVectorMask {
    fn name(&self) -> &'static str {
        "MultiVectorMask"
    }

    fn forward(&self, mut features: Features, _: &Context) -> Result<Features> {
        let tokens = features.tokens(self.name())?;
        let task = features.task.as_deref();
        let ids = &features.batch.ids;
        let kept = (0u32..).zip(ids.iter()).filter(|(_, token)| self.keeps(**token, task)).map(|(i, _)| i);
        let kept: Vec<u32> = kept.collect();
        if kept.len() < ids.len() {
            let kept = Tensor::from_vec(kept.clone(), kept.len(), tokens.device())?;
            features.token_embeddings = Some(tokens.contiguous()?.index_select(&kept, 0)?); // [vectors, dim]
        }
        Ok(features)
    }

    fn vectors(&self, batch: &PackedBatch, task: Option<&str>) -> Option<Vec<u32>> {
        let count = |w: &[u32]| {
            let ids = batch.ids.get(w[0] as usize..w[1] as usize).unwrap_or_default();
            ids.iter().filter(|token| self.keeps(**token, task)).count() as u32
        };
        Some(batch.offsets.windows(2).map(count).collect())
    }

    fn unknown_words(&self) -> &[String] {
        &self.unknown
    }

    fn set_skiplist(&mut self, words: Option<&[String]>, tokenizer: &Arc<TextTokenizer>) {
        if let Some(words) = words {
            self.skiplist_words = words.to_vec();
        }
        self.skipped = self.skiplist_words.iter().filter_map(|word| tokenizer.token(word)).collect();
        let unknown = self.skiplist_words.iter().filter(|word| tokenizer.token(word).is_none());
        self.unknown = unknown.cloned().collect();
    }

    fn save(&self, directory: &Path) -> Result<()> {
        let config = json!({
            "skiplist_words": self.skiplist_words,
            "skiplist_tasks": self.skiplist_tasks,
            "keep_only_token_ids": self.keep_only_token_ids,
        });
        write_json(&directory.join("config.json"), &config)
    }
}
