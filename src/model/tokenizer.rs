//! Texts to tokens, in parallel, with truncation counted instead of silent.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::{Encoding, Tokenizer};

use crate::error::{Error, Result};
use crate::flow::{Piece, Preprocess, Tokens};
use crate::util::files;

pub mod beside;
mod pairs;
mod pieces;
pub mod prune;
pub mod train;
mod words;

pub use pairs::PairTemplate;
pub use words::Words;

/// What cuts texts into tokens.
#[derive(Clone)]
enum Kind {
    /// A `tokenizer.json`.
    Fast(Box<Tokenizer>),
    /// Words between spaces.
    Words(Words),
}

/// What repositories without a `tokenizer.json` have in its place.
const SLOW: [&str; 6] =
    ["vocab.txt", "vocab.json", "spm.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"];

/// A tokenizer and how the model uses it.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Kind,
    source: PathBuf,
    /// The file as it was: its folder may be gone when the model is saved.
    bytes: Vec<u8>,
    max_seq_length: Option<usize>,
    lower_case: bool,
    special_tokens: bool,
    content_hash: u64,
}

impl TextTokenizer {
    /// Reads `tokenizer.json` in a directory, or the file itself.
    ///
    /// `special_tokens`: whether texts are framed (`[CLS] … [SEP]`), as transformers do and static embeddings do not.
    ///
    /// # Errors
    /// When there is no such file or it is not a tokenizer.
    pub fn load(path: &Path, special_tokens: bool) -> Result<Self> {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        if !file.exists() {
            let slow = SLOW.into_iter().find(|name| file.with_file_name(name).exists());
            let hint = match slow {
                Some(name) => format!(
                    "it has only a slow tokenizer (`{name}`); convert it once in Python: \
                     `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)`"
                ),
                None => "a model directory needs its tokenizer.json beside the weights".to_owned(),
            };
            return Err(Error::model(format!("no tokenizer at `{}`", file.display())).with_hint(hint));
        }
        Self::from_bytes(files::read(&file)?, &file, special_tokens)
    }

    /// Reads what stands in a `tokenizer.json`; `file` is where that is, or would be.
    ///
    /// # Errors
    /// When it is not a tokenizer.
    pub fn from_bytes(bytes: Vec<u8>, file: &Path, special_tokens: bool) -> Result<Self> {
        let mut inner = Tokenizer::from_bytes(&bytes).map_err(|e| {
            Error::model(format!("`{}` is not a tokenizer: {e}", file.display()))
                .with_hint("it should be the tokenizer.json that `tokenizers` or `transformers` saved")
        })?;
        inner.with_padding(None);
        // Where nothing else limits the length, as in a static embedding, the file's own truncation does.
        let own_limit = inner.get_truncation().map(|t| t.max_length).filter(|_| !special_tokens);
        inner.with_truncation(None).map_err(|e| Error::model(format!("`{}`: {e}", file.display())))?;
        Ok(Self {
            inner: Kind::Fast(Box::new(inner)),
            source: file.to_path_buf(),
            max_seq_length: own_limit,
            lower_case: false,
            special_tokens,
            content_hash: content_hash(&bytes)?,
            bytes,
        })
    }

    /// Reads `whitespacetokenizer_config.json` in a directory.
    ///
    /// # Errors
    /// When it is missing or a key is not what it should be.
    pub fn whitespace(directory: &Path) -> Result<Self> {
        Ok(Self::of_words(Words::load(directory)?, directory.join(words::CONFIG)))
    }

    /// Words between spaces; `source` is the file they came from.
    #[must_use]
    pub fn of_words(words: Words, source: PathBuf) -> Self {
        Self {
            content_hash: words.hash(),
            inner: Kind::Words(words),
            source,
            bytes: Vec::new(),
            max_seq_length: None,
            lower_case: false,
            special_tokens: false,
        }
    }

    /// The `tokenizer.json` as it was found; empty of one that has another form.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.bytes
    }

    /// The special tokens before a text and after it.
    ///
    /// # Errors
    /// When no text can be tokenised.
    pub fn frame(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let Kind::Fast(inner) = &self.inner else {
            return Ok((Vec::new(), Vec::new()));
        };
        // a text that every vocabulary has a token for, if only that of unknown words
        let encoding = self.encode(inner, &["a"], None)?;
        let Some(encoding) = encoding.first() else {
            return Ok((Vec::new(), Vec::new()));
        };
        let (ids, mask) = (encoding.get_ids(), encoding.get_special_tokens_mask());
        let before = mask.iter().take_while(|m| **m == 1).count();
        let after = mask[before..].iter().rev().take_while(|m| **m == 1).count();
        Ok((ids[..before].to_vec(), ids[ids.len() - after..].to_vec()))
    }

    /// Limits the length, special tokens counted in.
    pub fn set_max_seq_length(&mut self, limit: Option<usize>) {
        self.max_seq_length = limit;
    }

    /// Lower-cases texts before the tokenizer sees them.
    pub fn set_lower_case(&mut self, lower_case: bool) {
        self.lower_case = lower_case;
    }

    /// Number of tokens in the vocabulary, added ones included.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        match &self.inner {
            Kind::Fast(inner) => inner.get_vocab_size(true),
            Kind::Words(words) => words.vocabulary().len(),
        }
    }

    /// The token that fills batches up, by the names that it has in BERT's and RoBERTa's vocabularies.
    #[must_use]
    pub fn padding(&self) -> Option<u32> {
        match &self.inner {
            Kind::Fast(inner) => inner.token_to_id("[PAD]").or_else(|| inner.token_to_id("<pad>")),
            Kind::Words(_) => None,
        }
    }

    /// Whether there is such a token.
    #[must_use]
    pub fn has(&self, token: &str) -> bool {
        self.token(token).is_some()
    }

    /// Whether texts are lower-cased before it sees them.
    #[must_use]
    pub fn lower_case(&self) -> bool {
        self.lower_case
    }

    /// The word of a token.
    #[must_use]
    pub fn word(&self, token: u32) -> Option<String> {
        match &self.inner {
            Kind::Fast(inner) => inner.id_to_token(token),
            Kind::Words(words) => words.vocabulary().get(token as usize).cloned(),
        }
    }

    /// The number of a token.
    #[must_use]
    pub fn token(&self, word: &str) -> Option<u32> {
        match &self.inner {
            Kind::Fast(inner) => inner.token_to_id(word),
            Kind::Words(words) => words.vocabulary().iter().position(|known| known == word).map(|i| i as u32),
        }
    }

    /// Makes a marker that stands before texts, as `[Q] `, one token, where the vocabulary has it and the tokenizer would
    /// cut it up; says whether it was made one.
    ///
    /// Source: `MultiVectorEncoder._register_prefix_tokens` of sentence-transformers.
    ///
    /// # Errors
    /// When the changed tokenizer cannot be read.
    pub fn keep_whole(&mut self, marker: &str) -> Result<bool> {
        let Kind::Fast(inner) = &self.inner else { return Ok(false) };
        let word = marker.split_whitespace().next().unwrap_or_default();
        let Some((content, id)) = [marker, word].into_iter().find_map(|text| Some((text, inner.token_to_id(text)?)))
        else {
            return Ok(false);
        };
        let fail = |e: tokenizers::Error| Error::data(format!("`{content}` cannot be tokenised: {e}"));
        if content.is_empty() || inner.encode_fast(content, false).map_err(fail)?.get_ids() == [id] {
            return Ok(false);
        }
        let mut file = parse(&self.bytes)?;
        let token = serde_json::json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        });
        match file["added_tokens"].as_array_mut() {
            Some(tokens) => {
                tokens.retain(|known| known["content"] != content);
                tokens.push(token);
                tokens.sort_by_key(|known| known["id"].as_u64());
            }
            None => file["added_tokens"] = serde_json::json!([token]),
        }
        let bytes = serde_json::to_vec_pretty(&file)
            .map_err(|e| Error::Internal(format!("the tokenizer cannot be written: {e}")))?;
        let changed = Self::from_bytes(bytes, &self.source, self.special_tokens)?;
        *self = Self { max_seq_length: self.max_seq_length, lower_case: self.lower_case, ..changed };
        Ok(true)
    }

    /// Whether another one gives the same tokens, lengths aside.
    #[must_use]
    pub fn same_tokens(&self, other: &Self) -> bool {
        (self.content_hash, self.lower_case, self.special_tokens)
            == (other.content_hash, other.lower_case, other.special_tokens)
    }

    /// Whether another one has the same tokens under the same numbers.
    #[must_use]
    pub fn same_vocabulary(&self, other: &Self) -> bool {
        match (&self.inner, &other.inner) {
            _ if self.content_hash == other.content_hash => true,
            (Kind::Fast(own), Kind::Fast(other)) => own.get_vocab(true) == other.get_vocab(true),
            _ => false,
        }
    }

    /// The file it came from.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Tokens kept of a text; `None` for no limit.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        self.max_seq_length
    }

    /// Writes `tokenizer.json` into `directory`: as it was found, but for a static embedding with the limit in force,
    /// which has no other place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        if let Kind::Words(words) = &self.inner {
            return words.save(directory);
        }
        let target = directory.join("tokenizer.json");
        let own_limit = |file: &Value| file["truncation"]["max_length"].as_u64().map(|n| n as usize);
        if !self.special_tokens {
            let mut file = parse(&self.bytes)?;
            if own_limit(&file) != self.max_seq_length {
                file["truncation"] = match self.max_seq_length {
                    None => Value::Null,
                    Some(limit) => serde_json::json!({
                        "direction": "Right", "max_length": limit, "strategy": "LongestFirst", "stride": 0,
                    }),
                };
                let text = serde_json::to_string_pretty(&file)
                    .map_err(|e| Error::Internal(format!("the tokenizer cannot be written: {e}")))?;
                return files::write_atomic(&target, text.as_bytes());
            }
        }
        files::write_atomic(&target, &self.bytes)
    }

    fn encode(&self, inner: &Tokenizer, texts: &[&str], prompt: Option<&str>) -> Result<Vec<Encoding>> {
        let prompt = prompt.filter(|p| !p.is_empty());
        let fail = |e: tokenizers::Error| Error::data(format!("a text cannot be tokenised: {e}"));
        if prompt.is_none() && !self.lower_case {
            return inner.encode_batch_fast(texts.to_vec(), self.special_tokens).map_err(fail);
        }
        let prepared: Vec<String> = texts
            .iter()
            .map(|text| {
                let text = format!("{}{text}", prompt.unwrap_or(""));
                if self.lower_case { text.to_lowercase() } else { text }
            })
            .collect();
        inner.encode_batch_fast(prepared, self.special_tokens).map_err(fail)
    }

    /// How many leading tokens a prompt makes: its own and the special token before it, not the one after.
    fn prompt_length(&self, inner: &Tokenizer, prompt: Option<&str>) -> Result<u32> {
        let Some(prompt) = prompt.filter(|p| !p.is_empty()) else {
            return Ok(0);
        };
        let encoding = self.encode(inner, &[prompt], None)?;
        let Some(encoding) = encoding.first() else {
            return Ok(0);
        };
        let trailing = encoding.get_special_tokens_mask().last().copied().unwrap_or(0);
        Ok(encoding.len() as u32 - trailing)
    }

    /// Cuts the middle out: what follows the last content token that fits, before the trailing special tokens.
    fn cut(&self, encoding: &Encoding) -> Vec<u32> {
        let ids = encoding.get_ids();
        match self.max_seq_length {
            Some(limit) if ids.len() > limit => {
                let mask = encoding.get_special_tokens_mask();
                let trailing = mask.iter().rev().take_while(|m| **m == 1).count().min(limit);
                let mut kept = ids[..limit - trailing].to_vec();
                kept.extend_from_slice(&ids[ids.len() - trailing..]);
                kept
            }
            _ => ids.to_vec(),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|e| Error::model(format!("tokenizer.json is not JSON: {e}")))
}

/// A hash of all that changes tokens: truncation and padding are ours to decide and do not count.
fn content_hash(bytes: &[u8]) -> Result<u64> {
    let mut file = parse(bytes)?;
    file["truncation"] = Value::Null;
    file["padding"] = Value::Null;
    Ok(xxhash_rust::xxh3::xxh3_64(file.to_string().as_bytes()))
}

impl Preprocess for TextTokenizer {
    fn tokenize(&self, texts: &[&str], prompt: Option<&str>) -> Result<Vec<Tokens>> {
        let inner = match &self.inner {
            Kind::Fast(inner) => inner,
            Kind::Words(words) => return Ok(words.tokenize(texts, prompt, self.max_seq_length)),
        };
        let prompt_length = self.prompt_length(inner, prompt)?;
        let encodings = self.encode(inner, texts, prompt)?;
        Ok(encodings
            .iter()
            .map(|encoding| {
                let ids = self.cut(encoding);
                Tokens { prompt_length: prompt_length.min(ids.len() as u32), full_length: encoding.len() as u32, ids }
            })
            .collect())
    }

    fn fingerprint(&self) -> u64 {
        let settings =
            format!("{:x} {:?} {} {}", self.content_hash, self.max_seq_length, self.lower_case, self.special_tokens);
        xxhash_rust::xxh3::xxh3_64(settings.as_bytes())
    }

    fn max_seq_length(&self) -> Option<usize> {
        self.max_seq_length
    }

    fn pieces(&self) -> Vec<Piece> {
        match &self.inner {
            Kind::Fast(inner) => pieces::of(inner),
            Kind::Words(_) => Vec::new(),
        }
    }
}
