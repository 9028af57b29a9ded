//! A tokenizer learnt from texts: WordPiece as BERT's (Schuster and Nakajima, 2012), or byte-level BPE as GPT-2's
//! (Sennrich et al., 2016, <https://arxiv.org/abs/1508.07909>).
//!
//! Words are counted here and merged by the `tokenizers` crate. Its trainer numbers some characters in the order of a
//! hash table and breaks ties by number, so all of them are numbered beforehand: the same texts give the same file.
//! A Unigram model is not offered: the crate's trainer has no order that could be fixed from outside.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ahash::AHashMap;
use compact_str::CompactString;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::tokenizer::{NormalizedString, Normalizer, PreTokenizedString, PreTokenizer};
use tokenizers::{AddedToken, OffsetReferential, OffsetType, Tokenizer};

use crate::error::{Error, Result};

/// How words are put together from smaller pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerAlgorithm {
    /// Characters, and pieces that go on with `##`; words with rare characters are `[UNK]`. BERT's.
    #[default]
    WordPiece,
    /// Bytes, so that every text has tokens. GPT-2's and RoBERTa's.
    Bpe,
}

impl TokenizerAlgorithm {
    /// Its name in recipes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WordPiece => "wordpiece",
            Self::Bpe => "bpe",
        }
    }
}

/// A tokenizer to be learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerTraining {
    /// Most tokens; fewer where the texts have too little that repeats.
    pub vocab_size: usize,
    pub algorithm: TokenizerAlgorithm,
    /// Whether upper and lower case are one.
    pub lowercase: bool,
    /// Whether texts stand between special tokens, as networks want them (`[CLS] … [SEP]`).
    pub framed: bool,
}

/// BERT's special tokens, in the order of their numbers.
const SPECIAL: [&str; 5] = ["[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]"];

impl TokenizerTraining {
    fn special_tokens(&self) -> &'static [&'static str] {
        if self.framed { &SPECIAL } else { &[UNKNOWN] }
    }
}

/// The fewest tokens that can be asked for: the bytes.
pub const SMALLEST: usize = 256;
const UNKNOWN: &str = "[UNK]";
const PREFIX: &str = "##";
/// Characters that WordPiece knows, as in BERT's trainer.
const CHARACTERS: usize = 1000;
/// A pair that is seen once teaches nothing.
const LEAST_FREQUENT: u64 = 2;
/// Longer words are one unknown token to WordPiece, and none anybody would write.
const LONGEST_WORD: usize = 100;

/// The words of a corpus and how often each is there.
pub struct Corpus {
    how: TokenizerTraining,
    cutter: Tokenizer,
    counts: HashMap<String, u64>,
}

impl Corpus {
    /// Without words.
    ///
    /// # Errors
    /// When the tokenizer cannot be set up.
    pub fn new(how: TokenizerTraining) -> Result<Self> {
        let empty = match how.algorithm {
            TokenizerAlgorithm::WordPiece => word_piece(&how, numbered(how.special_tokens())),
            TokenizerAlgorithm::Bpe => bpe(&how, json!({}), json!([])),
        };
        let cutter = Tokenizer::from_bytes(empty.to_string()).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(Self { how, cutter, counts: HashMap::new() })
    }

    /// Counts the words of more texts.
    ///
    /// # Errors
    /// When a text cannot be cut into words.
    pub fn add(&mut self, texts: &[String]) -> Result<()> {
        let cutter = &self.cutter;
        let counted = texts.par_chunks(256).map(|texts| {
            let mut counts: HashMap<String, u64> = HashMap::new();
            for text in texts {
                words(cutter, text, &mut counts).map_err(|e| Error::data(format!("a text cannot be cut: {e}")))?;
            }
            Ok(counts)
        });
        for counts in counted.collect::<Result<Vec<_>>>()? {
            for (word, count) in counts {
                *self.counts.entry(word).or_default() += count;
            }
        }
        Ok(())
    }

    /// The tokenizer.json.
    ///
    /// # Errors
    /// When there are no words, or more characters than tokens.
    pub fn train(self) -> Result<Vec<u8>> {
        let words: BTreeMap<String, u64> =
            self.counts.into_iter().filter(|(word, _)| word.chars().count() <= LONGEST_WORD).collect();
        if words.is_empty() {
            return Err(Error::data("a tokenizer cannot be trained: the training data has no words"));
        }
        let file = match self.how.algorithm {
            TokenizerAlgorithm::WordPiece => train_word_piece(&self.how, words)?,
            TokenizerAlgorithm::Bpe => train_bpe(&self.how, words)?,
        };
        serde_json::to_vec_pretty(&file).map_err(|e| Error::Internal(format!("the tokenizer cannot be written: {e}")))
    }
}

fn words(cutter: &Tokenizer, text: &str, counts: &mut HashMap<String, u64>) -> tokenizers::Result<()> {
    let mut normalized = NormalizedString::from(text);
    if let Some(normalizer) = cutter.get_normalizer() {
        normalizer.normalize(&mut normalized)?;
    }
    let mut cut = PreTokenizedString::from(normalized);
    if let Some(pre_tokenizer) = cutter.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut cut)?;
    }
    for (word, _, _) in cut.get_splits(OffsetReferential::Original, OffsetType::Byte) {
        match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => _ = counts.insert(word.to_owned(), 1),
        }
    }
    Ok(())
}

/// Merges; `first` are the tokens that are there before, in their order.
fn merge(
    how: &TokenizerTraining,
    words: BTreeMap<String, u64>,
    first: Vec<String>,
    prefix: Option<&str>,
) -> Result<BPE> {
    if first.len() > how.vocab_size {
        let table = if how.framed { "config" } else { "static_embedding" };
        return Err(Error::usage(format!(
            "`model.{table}.vocab_size` is {}, the characters of the training data alone are {} tokens",
            how.vocab_size,
            first.len()
        ))
        .with_hint("raise it; 30000 is usual"));
    }
    let mut builder = BpeTrainer::builder()
        .vocab_size(how.vocab_size)
        .min_frequency(LEAST_FREQUENT)
        .show_progress(false)
        .special_tokens(first.into_iter().map(|token| AddedToken::from(token, true)).collect());
    if let Some(prefix) = prefix {
        builder = builder.continuing_subword_prefix(prefix.to_owned());
    }
    let words: AHashMap<CompactString, u64> = words.into_iter().map(|(w, n)| (CompactString::from(w), n)).collect();
    let mut model = BPE::default();
    let trained = builder.build().do_train(&words, &mut model);
    trained.map_err(|e| Error::data(format!("a tokenizer cannot be trained: {e}")))?;
    Ok(model)
}

fn train_word_piece(how: &TokenizerTraining, mut words: BTreeMap<String, u64>) -> Result<Value> {
    let mut seen: HashMap<char, u64> = HashMap::new();
    for (word, count) in &words {
        word.chars().for_each(|c| *seen.entry(c).or_default() += count);
    }
    let mut seen: Vec<(char, u64)> = seen.into_iter().collect();
    seen.sort_by_key(|(c, count)| (std::cmp::Reverse(*count), *c));
    let known: BTreeSet<char> = seen.iter().take(CHARACTERS).map(|(c, _)| *c).collect();
    words.retain(|word, _| word.chars().all(|c| known.contains(&c)));
    let inner: BTreeSet<char> = words.keys().flat_map(|word| word.chars().skip(1)).collect();
    let special = how.special_tokens().iter().map(|token| (*token).to_owned());
    let first =
        special.chain(known.iter().map(char::to_string)).chain(inner.iter().map(|c| format!("{PREFIX}{c}"))).collect();
    let model = merge(how, words, first, Some(PREFIX))?;
    Ok(word_piece(how, ordered(&model)))
}

fn train_bpe(how: &TokenizerTraining, words: BTreeMap<String, u64>) -> Result<Value> {
    let bytes: BTreeSet<char> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    let model = merge(how, words, bytes.iter().map(char::to_string).collect(), None)?;
    let written = serde_json::to_value(&model).map_err(|e| Error::Internal(e.to_string()))?;
    Ok(bpe(how, ordered(&model), written["merges"].clone()))
}

/// The vocabulary in the order of its numbers.
fn ordered(model: &BPE) -> Value {
    let mut tokens: Vec<(String, u32)> = model.get_vocab().into_iter().collect();
    tokens.sort_by_key(|(_, id)| *id);
    Value::Object(tokens.into_iter().map(|(token, id)| (token, json!(id))).collect::<Map<_, _>>())
}

/// Tokens by their numbers, from 0 on.
fn numbered(tokens: &[&str]) -> Value {
    Value::Object(tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect())
}

/// `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, as BERT has them.
fn frame() -> Value {
    let id = |token: &str| SPECIAL.iter().position(|other| *other == token).unwrap_or_default();
    let special = |token: &str, kind: usize| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let text = |which: &str, kind: usize| json!({"Sequence": {"id": which, "type_id": kind}});
    let known = |token: &str| json!({"id": token, "ids": [id(token)], "tokens": [token]});
    let single = [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)];
    let pair: Vec<Value> = single.iter().cloned().chain([text("B", 1), special("[SEP]", 1)]).collect();
    json!({
        "type": "TemplateProcessing", "single": single, "pair": pair,
        "special_tokens": {"[CLS]": known("[CLS]"), "[SEP]": known("[SEP]")},
    })
}

fn word_piece(how: &TokenizerTraining, vocabulary: Value) -> Value {
    let added = how.special_tokens().iter().enumerate().map(|(id, token)| {
        json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        })
    });
    let added: Vec<Value> = added.collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": how.lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": if how.framed { frame() } else { Value::Null },
        "decoder": {"type": "WordPiece", "prefix": PREFIX, "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": UNKNOWN, "continuing_subword_prefix": PREFIX,
            "max_input_chars_per_word": LONGEST_WORD, "vocab": vocabulary,
        },
    })
}

fn bpe(how: &TokenizerTraining, vocabulary: Value, merges: Value) -> Value {
    let level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let mut normalizers = vec![json!({"type": "NFC"})];
    if how.lowercase {
        normalizers.push(json!({"type": "Lowercase"}));
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": level,
        "post_processor": null,
        "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn train(algorithm: TokenizerAlgorithm, vocab_size: usize, lowercase: bool) -> Result<Vec<u8>> {
        let mut corpus = Corpus::new(TokenizerTraining { vocab_size, algorithm, lowercase, framed: false })?;
        let texts: Vec<String> =
            include_str!("../../../tests/golden/sentences.py").lines().map(str::to_owned).collect();
        let (some, others) = texts.split_at(40);
        corpus.add(some)?;
        corpus.add(others)?;
        corpus.train()
    }

    #[test]
    fn the_same_texts_give_the_same_file() {
        for algorithm in [TokenizerAlgorithm::WordPiece, TokenizerAlgorithm::Bpe] {
            let first = train(algorithm, 400, true).unwrap();
            for _ in 0..3 {
                assert_eq!(train(algorithm, 400, true).unwrap(), first, "{}", algorithm.name());
            }
            let tokenizer = Tokenizer::from_bytes(&first).unwrap();
            assert_eq!(tokenizer.get_vocab_size(true), 400);
            let tokens = |text: &str| tokenizer.encode(text, false).unwrap().get_tokens().to_vec();
            assert_eq!(tokens("THE").len(), 1, "{:?}", tokens("THE"));
            assert_eq!(tokens("The cat"), tokens("the CAT"));
        }
    }

    #[test]
    fn case_is_kept_where_it_should_be() {
        let tokenizer = Tokenizer::from_bytes(train(TokenizerAlgorithm::WordPiece, 600, false).unwrap()).unwrap();
        let tokens = |text: &str| tokenizer.encode(text, false).unwrap().get_tokens().to_vec();
        assert_ne!(tokens("The"), tokens("the"));
        assert_eq!(tokens("漢"), [UNKNOWN]);
    }

    #[test]
    fn networks_get_their_special_tokens() {
        let how = TokenizerTraining {
            vocab_size: 200,
            algorithm: TokenizerAlgorithm::WordPiece,
            lowercase: true,
            framed: true,
        };
        let mut corpus = Corpus::new(how).unwrap();
        corpus.add(&["the cat and the dog and the bird".to_owned()]).unwrap();
        let tokenizer = Tokenizer::from_bytes(corpus.train().unwrap()).unwrap();
        let encoding = tokenizer.encode(("The", "zebra the"), true).unwrap();
        let tokens = encoding.get_tokens();
        assert_eq!(
            (&tokens[..3], tokens.last().unwrap().as_str()),
            (&["[CLS]", "the", "[SEP]"].map(String::from)[..], "[SEP]")
        );
        assert_eq!((encoding.get_type_ids()[2], encoding.get_type_ids()[3]), (0, 1));
        assert_eq!(tokenizer.token_to_id("[PAD]"), Some(0));
    }

    #[test]
    fn more_characters_than_tokens_are_refused() {
        let error = train(TokenizerAlgorithm::WordPiece, 40, true).unwrap_err();
        assert!(error.to_string().contains("`model.static_embedding.vocab_size` is 40"), "{error}");
        let none = Corpus::new(TokenizerTraining {
            vocab_size: 300,
            algorithm: TokenizerAlgorithm::Bpe,
            lowercase: true,
            framed: false,
        });
        assert!(none.unwrap().train().is_err());
    }
}
