//! A model with a vector for each token: what it does to queries and documents, and how it encodes them.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::SentenceTransformer;
use super::directory::read_json;
use super::sentence_transformer::TEXTS_PER_BLOCK;
use super::tokenizer::TextTokenizer;
use crate::error::{Error, Result};
use crate::flow::{EncodeMultiVector, EncodeOptions, MultiVectors, PackedBatch};
use crate::util::progress::Progress;

/// How far queries are made longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpansionStrategy {
    /// Every query has `length` tokens: longer ones are cut.
    #[default]
    Fixed,
    /// Every query has `length` tokens at least.
    Min,
}

/// Tokens put at the end of queries, whose vectors are compared like the others': ColBERT's query augmentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryExpansion {
    /// `fixed` or `min`.
    #[serde(default)]
    pub strategy: ExpansionStrategy,
    /// Whether other tokens see those that were put at the end.
    #[serde(default)]
    pub attend: bool,
    /// The token; the tokenizer's `[MASK]` for none.
    #[serde(default)]
    pub token: Option<String>,
    /// Tokens of a query, special ones counted in; 32 is usual, 0 for queries as they are.
    pub length: usize,
}

impl QueryExpansion {
    /// Of so many tokens, which other tokens see or not.
    fn fixed(length: usize, attend: bool) -> Self {
        Self { strategy: ExpansionStrategy::Fixed, attend, token: None, length }
    }
}

/// What a recipe, or a configuration of PyLate or Stanford's ColBERT, says of a model with a vector for each token;
/// `None` for what the model's own says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiVectorOptions {
    /// Tokens kept of a query.
    pub query_length: Option<usize>,
    /// Tokens kept of a document.
    pub document_length: Option<usize>,
    /// How queries are made longer.
    pub query_expansion: Option<QueryExpansion>,
    /// Words whose vectors documents are not compared by.
    pub skiplist_words: Option<Vec<String>>,
    /// Width of the vectors, where the model has no projection yet.
    pub embedding_dim: Option<usize>,
    /// Texts that stand before queries and documents and are one token each, where the tokenizer knows them.
    #[serde(skip)]
    pub markers: Vec<String>,
    /// Whether masks and normalisation are to be put at the end where there are none.
    #[serde(skip)]
    pub complete: bool,
    /// What an older format says beside the modules, which counts where neither these nor the modules say anything.
    #[serde(skip)]
    pub legacy: Option<Box<MultiVectorOptions>>,
}

impl MultiVectorOptions {
    /// These, over what an older format says.
    pub fn over(self, legacy: Self) -> Self {
        Self {
            markers: [self.markers, legacy.markers.clone()].concat(),
            complete: self.complete || legacy.complete,
            legacy: Some(Box::new(legacy)),
            ..self
        }
    }

    /// The settings that PyLate keeps beside a model, in config_sentence_transformers.json.
    pub(super) fn of_pylate(config: &Value) -> Self {
        let number = |key: &str| config[key].as_u64().map(|n| n as usize);
        if !Self::is_pylate(config) {
            return Self::default();
        }
        // its later name for the same
        let given = config.get("query_expansion").map(|value| {
            serde_json::from_value::<QueryExpansion>(value.clone()).unwrap_or_else(|_| QueryExpansion::fixed(0, false))
        });
        let expands = config["do_query_expansion"].as_bool().unwrap_or(true);
        let attend = ["attend_to_expansion_tokens", "attend_to_mask_tokens"];
        let attend = attend.iter().find_map(|key| config[*key].as_bool()).unwrap_or(false);
        let words: Option<Vec<String>> = serde_json::from_value(config["skiplist_words"].clone()).ok();
        Self {
            query_length: number("query_length").filter(|_| given.is_some() || !expands),
            document_length: number("document_length"),
            query_expansion: Some(match expands {
                _ if given.is_some() => given.unwrap_or_else(|| QueryExpansion::fixed(0, false)),
                true => QueryExpansion::fixed(number("query_length").unwrap_or(32), attend),
                false => QueryExpansion::fixed(0, false),
            }),
            skiplist_words: Some(words.unwrap_or_else(punctuation)),
            markers: ["query_prefix", "document_prefix"]
                .iter()
                .filter_map(|key| config[*key].as_str().map(str::to_owned))
                .collect(),
            embedding_dim: None,
            complete: config["model_type"] != "MultiVectorEncoder",
            legacy: None,
        }
    }

    /// Whether a config_sentence_transformers.json has settings that PyLate keeps there.
    pub(super) fn is_pylate(config: &Value) -> bool {
        let keys = [
            "query_length",
            "document_length",
            "query_expansion",
            "do_query_expansion",
            "attend_to_expansion_tokens",
            "attend_to_mask_tokens",
            "query_prefix",
            "document_prefix",
            "skiplist_words",
        ];
        keys.iter().any(|key| config.get(*key).is_some())
    }

    /// What Stanford's ColBERT keeps beside a model, in artifact.metadata, and its prompts for queries and documents.
    ///
    /// # Errors
    /// When the file is not JSON.
    pub(super) fn of_stanford(directory: &Path) -> Result<(Self, [String; 2])> {
        let metadata = read_json(directory, "artifact.metadata")?;
        let number = |key: &str| metadata[key].as_u64().map(|n| n as usize);
        let marker = |key: &str, usual: &str| format!("{} ", metadata[key].as_str().unwrap_or(usual));
        let prompts = [marker("query_token_id", "[unused0]"), marker("doc_token_id", "[unused1]")];
        let masks = metadata["mask_punctuation"].as_bool().unwrap_or(true);
        let options = Self {
            query_length: None,
            document_length: number("doc_maxlen"),
            query_expansion: Some(QueryExpansion::fixed(
                number("query_maxlen").unwrap_or(32),
                metadata["attend_to_mask_tokens"].as_bool().unwrap_or(false),
            )),
            skiplist_words: Some(if masks { punctuation() } else { Vec::new() }),
            markers: prompts.to_vec(),
            embedding_dim: None,
            complete: true,
            legacy: None,
        };
        Ok((options, prompts))
    }
}

/// The marks that ColBERT leaves out of documents: those of ASCII.
#[must_use]
pub fn punctuation() -> Vec<String> {
    (b'!'..=b'~').filter(u8::is_ascii_punctuation).map(|byte| char::from(byte).to_string()).collect()
}

/// What a network does to queries and to documents.
pub(super) struct Sides {
    query_length: Option<usize>,
    document_length: Option<usize>,
    expansion: Option<QueryExpansion>,
    /// The token that queries are made longer with.
    filler: u32,
    query: Arc<TextTokenizer>,
    document: Arc<TextTokenizer>,
}

impl Sides {
    /// Of sentence_bert_config.json's keys, where `options` say nothing.
    ///
    /// # Errors
    /// When a key is not what it should be, a length is more than the network has `positions` for, or the tokenizer does
    /// not have the token.
    pub fn new(
        saved: &Value,
        options: &MultiVectorOptions,
        tokenizer: &TextTokenizer,
        positions: Option<usize>,
    ) -> Result<Self> {
        let file = "sentence_bert_config.json";
        let number = |key: &str| -> Result<Option<usize>> {
            match saved.get(key) {
                None | Some(Value::Null) => Ok(None),
                Some(value) => match value.as_u64().filter(|n| *n > 0) {
                    Some(n) => Ok(Some(n as usize)),
                    None => Err(Error::model(format!("`{file}`: `{key}` is {value}"))
                        .with_hint("it is a number of tokens above 0, or null")),
                },
            }
        };
        let legacy = options.legacy.as_deref();
        let query_length = match (options.query_length, number("query_length")?) {
            (None, None) => legacy.and_then(|legacy| legacy.query_length),
            (given, saved) => given.or(saved),
        };
        let document_length = match (options.document_length, number("document_length")?) {
            (None, None) => legacy.and_then(|legacy| legacy.document_length),
            (given, saved) => given.or(saved),
        };
        let expansion = match &options.query_expansion {
            Some(given) => Some(given.clone()),
            None => match saved.get("query_expansion") {
                None => legacy.and_then(|legacy| legacy.query_expansion.clone()),
                Some(Value::Null) => None,
                Some(value) => Some(
                    serde_json::from_value::<QueryExpansion>(value.clone())
                        .map_err(|e| Error::model(format!("`{file}`: `query_expansion`: {e}")))?,
                ),
            },
        };
        let expansion = expansion.filter(|expansion| expansion.length > 0);
        for (key, length) in [
            ("query_length", query_length),
            ("document_length", document_length),
            ("query_expansion.length", expansion.as_ref().map(|e| e.length)),
        ] {
            if let Some(length) = length {
                check_length(key, length, positions)?;
            }
        }
        if let (Some(expansion), Some(most)) = (&expansion, query_length)
            && most < expansion.length
        {
            return Err(Error::usage(format!(
                "`model.query_length` is {most}, less than `model.query_expansion.length`, which is {}",
                expansion.length
            ))
            .with_hint("leave `query_length` out: the expansion says how long queries are"));
        }
        let filler = match &expansion {
            None => 0,
            Some(QueryExpansion { token: Some(token), .. }) => tokenizer.token(token).ok_or_else(|| {
                Error::usage(format!("`model.query_expansion.token`: the tokenizer has no token `{token}`"))
                    .with_hint("leave it out for the tokenizer's mask token")
            })?,
            // the mask token of encoders, else what ends a text of decoders
            Some(_) => ["[MASK]", "<mask>", "</s>", "<|endoftext|>", "<eos>"]
                .iter()
                .find_map(|token| tokenizer.token(token))
                .ok_or_else(|| {
                    Error::usage("`model.query_expansion`: the tokenizer has no mask token")
                        .with_hint("name the token to put at the end of queries with `token`")
                })?,
        };
        let limited = |limit: Option<usize>| {
            let mut tokenizer = tokenizer.clone();
            if limit.is_some() {
                tokenizer.set_max_seq_length(limit);
            }
            Arc::new(tokenizer)
        };
        let of_queries = match &expansion {
            Some(QueryExpansion { strategy: ExpansionStrategy::Fixed, length, .. }) => Some(*length),
            Some(QueryExpansion { length, .. }) => query_length.map(|most| most.max(*length)),
            None => query_length,
        };
        let (query, document) = (limited(of_queries), limited(document_length));
        Ok(Self { query_length, document_length, expansion, filler, query, document })
    }

    /// The tokenizer of texts that are `task` to the model, where that is one of the two.
    pub fn tokenizer(&self, task: Option<&str>) -> Option<&Arc<TextTokenizer>> {
        match task {
            Some("query") => Some(&self.query),
            Some("document") => Some(&self.document),
            _ => None,
        }
    }

    /// Tokens that a text which is `task` to the model has at least, in the network.
    pub fn least_length(&self, task: Option<&str>) -> usize {
        self.expansion.as_ref().filter(|_| task == Some("query")).map_or(0, |expansion| expansion.length)
    }

    /// The batch with queries made longer; `None` where nothing changes.
    pub fn expand(&self, batch: &PackedBatch, task: Option<&str>) -> Option<PackedBatch> {
        let expansion = self.expansion.as_ref().filter(|_| task == Some("query"))?;
        let (mut ids, mut offsets, mut attended) = (Vec::new(), vec![0u32], Vec::new());
        for w in batch.offsets.windows(2) {
            let (from, to) = (w[0] as usize, w[1] as usize);
            ids.extend_from_slice(batch.ids.get(from..to).unwrap_or_default());
            ids.extend(std::iter::repeat_n(self.filler, expansion.length.saturating_sub(to - from)));
            let length = ids.len() as u32 - offsets.last().copied().unwrap_or(0);
            offsets.push(ids.len() as u32);
            attended.push(if expansion.attend { length } else { (to - from) as u32 });
        }
        Some(PackedBatch {
            ids: Arc::new(ids),
            offsets: Arc::new(offsets),
            prompt_lengths: Arc::clone(&batch.prompt_lengths),
            types: Arc::default(),
            attended: Arc::new(attended),
        })
    }

    /// Its keys of sentence_bert_config.json.
    pub fn describe(&self) -> Map<String, Value> {
        let mut keys = Map::new();
        for (key, length) in [("query_length", self.query_length), ("document_length", self.document_length)] {
            if let Some(length) = length {
                keys.insert(key.to_owned(), length.into());
            }
        }
        if let Some(expansion) = &self.expansion {
            keys.insert("query_expansion".to_owned(), json!(expansion));
        }
        keys
    }
}

fn check_length(key: &str, length: usize, positions: Option<usize>) -> Result<()> {
    if length < 3 {
        return Err(Error::usage(format!("`model.{key}` is {length}")).with_hint(
            "it counts special tokens, so at least 3 are needed; 32 is usual for queries, 180 for documents",
        ));
    }
    match positions {
        Some(positions) if length > positions => {
            Err(Error::usage(format!("`model.{key}` is {length}, the model has {positions} positions"))
                .with_hint(format!("set it to {positions} or less")))
        }
        _ => Ok(()),
    }
}

impl EncodeMultiVector for SentenceTransformer {
    fn encode_multi_vector(&self, texts: &[&str], options: &EncodeOptions) -> Result<MultiVectors> {
        let progress = options.progress.map_or_else(Progress::hidden, |what| Progress::new(what, texts.len() as u64));
        let mut all = MultiVectors::new(self.dimension());
        for block in texts.chunks(TEXTS_PER_BLOCK) {
            let mut rows = vec![Vec::new(); block.len()];
            self.encode_each(block, options, &progress, &mut |i, vectors| rows[i] = vectors.to_vec())?;
            rows.iter().for_each(|vectors| all.push(vectors));
        }
        progress.finish();
        Ok(if options.normalize { all.normalized() } else { all })
    }
}
