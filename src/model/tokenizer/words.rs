//! Words between spaces, looked up as they stand, then without punctuation around them, then in lower case.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::flow::Tokens;
use crate::util::files;

/// The file it is saved in.
pub const CONFIG: &str = "whitespacetokenizer_config.json";

/// A vocabulary of whole words; words that are not in it are left out.
#[derive(Clone)]
pub struct Words {
    saved: Saved,
    ids: HashMap<String, u32>,
    stop: HashSet<String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Saved {
    vocab: Vec<String>,
    stop_words: Vec<String>,
    #[serde(default)]
    do_lower_case: bool,
}

impl Words {
    /// A word's token is its place in the vocabulary; stop words are left out.
    #[must_use]
    pub fn new(vocabulary: Vec<String>, stop_words: Vec<String>, lower_case: bool) -> Self {
        let ids = vocabulary.iter().cloned().zip(0..).collect();
        let stop = stop_words.iter().cloned().collect();
        Self { saved: Saved { vocab: vocabulary, stop_words, do_lower_case: lower_case }, ids, stop }
    }

    /// Reads the file in `directory`.
    ///
    /// # Errors
    /// When it is missing or a key is not what it should be.
    pub fn load(directory: &Path) -> Result<Self> {
        let file = directory.join(CONFIG);
        let saved: Saved = serde_json::from_str(&files::read_text(&file)?).map_err(|e| {
            Error::model(format!("`{}`: {e}", file.display()))
                .with_hint("it should hold `vocab` and `stop_words`, lists of words, and `do_lower_case`")
        })?;
        Ok(Self::new(saved.vocab, saved.stop_words, saved.do_lower_case))
    }

    /// The words.
    #[must_use]
    pub fn vocabulary(&self) -> &[String] {
        &self.saved.vocab
    }

    fn to_json(&self) -> String {
        serde_json::to_string(&self.saved).unwrap_or_default()
    }

    /// A hash of all that changes tokens.
    #[must_use]
    pub fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.to_json().as_bytes())
    }

    /// Writes the file into `directory`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        files::write_atomic(&directory.join(CONFIG), self.to_json().as_bytes())
    }

    fn id(&self, word: &str) -> Option<u32> {
        let mut word = word.to_owned();
        for attempt in 0..3 {
            match attempt {
                1 => word = word.trim_matches(|c: char| c.is_ascii_punctuation()).to_owned(),
                2 => word = word.to_lowercase(),
                _ => {}
            }
            if self.stop.contains(&word) {
                return None;
            }
            // nothing is left of what is punctuation alone
            if let Some(id) = self.ids.get(&word).filter(|_| attempt != 1 || !word.is_empty()) {
                return Some(*id);
            }
        }
        None
    }

    /// The tokens of texts, `prompt` in front of each, the first `limit` of them.
    #[must_use]
    pub fn tokenize(&self, texts: &[&str], prompt: Option<&str>, limit: Option<usize>) -> Vec<Tokens> {
        let one = |text: &&str| {
            let mut text = format!("{}{text}", prompt.unwrap_or(""));
            if self.saved.do_lower_case {
                text = text.to_lowercase();
            }
            let mut ids: Vec<u32> = text.split_whitespace().filter_map(|word| self.id(word)).collect();
            let full_length = ids.len() as u32;
            ids.truncate(limit.unwrap_or(usize::MAX));
            // words are cut, not prompts: the reference tells this tokenizer's models of no prompt
            Tokens { ids, prompt_length: 0, full_length }
        };
        texts.par_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_looked_up_in_three_ways() {
        let words = ["the", "cat", "U.S.", "Cat"].map(str::to_owned).to_vec();
        let words = Words::new(words, vec!["a".to_owned()], false);
        let ids = |text: &str| words.tokenize(&[text], None, None).remove(0).ids;
        assert_eq!(ids("The cat, CAT! U.S. a unknown ..."), [0, 1, 1, 2]);
        assert_eq!(ids("Cat (a) A"), [3]);
        let cut = words.tokenize(&["cat the cat"], Some("the "), Some(2)).remove(0);
        assert_eq!((cut.ids, cut.full_length), (vec![0, 1], 4));
    }
}
