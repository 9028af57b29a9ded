//! Which texts look like an answer and are none? Hard negatives for pairs of an anchor and a positive.
//!
//! A [`Pool`] holds each anchor and each document once. Candidates come from embeddings ([`search`]) or from words
//! ([`words`]); a reranker may score them anew ([`rescore`]). [`select`] takes negatives among them, and [`rows`] makes
//! rows of a data set of these.
//!
//! Source: `util.mine_hard_negatives` of sentence-transformers 6; margins and ranks after Moreira et al., "NV-Retriever:
//! Improving text embedding models with effective hard-negative mining" (2024).

pub mod cache;
mod candidates;
mod pool;
pub mod rows;
pub mod select;
pub mod statistics;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use candidates::{Found, Prompts, rescore, search, words};
pub use pool::Pool;
pub use select::{Mined, Skipped, select};
pub use statistics::Statistics;

use crate::error::{Error, Result};

/// How negatives are taken from the candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SamplingStrategy {
    /// The most similar ones.
    #[default]
    Top,
    /// Any.
    Random,
}

/// What a row of the mined data set holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OutputFormat {
    /// A row a negative.
    #[default]
    Triplet,
    /// A row a positive, with columns `negative_1`, ...
    NTuple,
    /// A row a pair, with 1 or 0.
    LabeledPair,
    /// A row a positive, with lists of documents and labels.
    LabeledList,
}

impl OutputFormat {
    /// Its name in recipes and commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Triplet => "triplet",
            Self::NTuple => "n-tuple",
            Self::LabeledPair => "labeled-pair",
            Self::LabeledList => "labeled-list",
        }
    }
}

/// Hard negatives for pairs of an anchor and a positive: where candidates come from, which of them become negatives, and
/// what rows are made of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Folder of the model that finds candidates (bi-encoder, sparse, multi-vector); a recipe's base model without it.
    #[arg(long, value_name = "FOLDER", conflicts_with = "bm25")]
    pub model: Option<String>,
    /// Find candidates by common words (BM25) instead.
    #[arg(long)]
    pub bm25: bool,
    /// File with more documents to take negatives from, beside the positives.
    #[arg(long, value_name = "FILE")]
    pub corpus: Option<String>,
    /// Its column with the texts.
    #[arg(long, value_name = "COLUMN", requires = "corpus")]
    pub corpus_column: Option<String>,
    /// Folder of a CrossEncoder whose scores limits and margins hold for.
    #[arg(long, value_name = "FOLDER")]
    pub cross_encoder: Option<String>,
    /// Negatives for each anchor.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub num_negatives: usize,
    /// Skip so many of the nearest candidates, which may be unmarked positives.
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    pub range_min: usize,
    /// Look no further down the ranking. Default: as far as `num_negatives` needs.
    #[arg(long, value_name = "RANK")]
    pub range_max: Option<usize>,
    /// Leave out candidates that score higher.
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    pub max_score: Option<f32>,
    /// Leave out candidates that score lower.
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    pub min_score: Option<f32>,
    /// Leave out candidates not at least so much below the positive.
    #[arg(long, value_name = "DIFFERENCE", allow_negative_numbers = true)]
    pub absolute_margin: Option<f32>,
    /// Leave out candidates not at least this part below the positive: 0.05 keeps those up to 95 % of it.
    #[arg(long, value_name = "PART", allow_negative_numbers = true)]
    pub relative_margin: Option<f32>,
    /// Take the best candidates, or any.
    #[arg(long, value_enum, value_name = "STRATEGY", default_value_t = SamplingStrategy::Top)]
    pub sampling_strategy: SamplingStrategy,
    /// Draws for `random`.
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub seed: u64,
    /// Keep positives among the candidates, in the order of the search (n-tuples).
    #[arg(long)]
    pub include_positives: bool,
    /// What a row holds.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Triplet)]
    pub output_format: OutputFormat,
    /// Write similarities, the positive's first.
    #[arg(long)]
    pub output_scores: bool,
    /// The model's prompt for anchors; `query` without it.
    #[arg(long, value_name = "NAME", conflicts_with = "query_prompt")]
    pub query_prompt_name: Option<String>,
    /// Text in front of anchors.
    #[arg(long, value_name = "TEXT")]
    pub query_prompt: Option<String>,
    /// The model's prompt for documents; `document` without it.
    #[arg(long, value_name = "NAME", conflicts_with = "corpus_prompt")]
    pub corpus_prompt_name: Option<String>,
    /// Text in front of documents.
    #[arg(long, value_name = "TEXT")]
    pub corpus_prompt: Option<String>,
    /// Keep embeddings here, for the next call.
    #[arg(long, value_name = "FOLDER")]
    pub cache_folder: Option<String>,
    /// Faster products where the machine has them; similarities off by about 0.001.
    #[arg(long)]
    pub bf16: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            bm25: false,
            corpus: None,
            corpus_column: None,
            cross_encoder: None,
            num_negatives: 3,
            range_min: 0,
            range_max: None,
            max_score: None,
            min_score: None,
            absolute_margin: None,
            relative_margin: None,
            sampling_strategy: SamplingStrategy::Top,
            seed: 12,
            include_positives: false,
            output_format: OutputFormat::Triplet,
            output_scores: false,
            query_prompt_name: None,
            query_prompt: None,
            corpus_prompt_name: None,
            corpus_prompt: None,
            cache_folder: None,
            bf16: false,
        }
    }
}

impl Settings {
    /// Refuses what cannot be meant and settles what follows from other settings; the notes say what was.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the setting.
    pub fn settled(mut self) -> Result<(Self, Vec<String>)> {
        let mut notes = Vec::new();
        if self.bm25 && self.model.is_some() {
            return Err(Error::usage("candidates come from `model` or from `bm25`, one of them"));
        }
        if self.num_negatives == 0 {
            return Err(Error::usage("`num_negatives` is 0").with_hint("ask for at least one negative an anchor"));
        }
        for (name, value) in self.limits() {
            if value.is_some_and(|value| !value.is_finite()) {
                return Err(Error::usage(format!("`{name}` is no finite number")));
            }
        }
        if let (Some(least), Some(most)) = (self.min_score, self.max_score)
            && least > most
        {
            return Err(Error::usage(format!("`min_score` ({least}) is above `max_score` ({most})"))
                .with_hint("no candidate scores between them"));
        }
        if let Some(range_max) = self.range_max {
            if self.range_min >= range_max {
                return Err(Error::usage(format!(
                    "`range_min` ({}) must be smaller than `range_max` ({range_max})",
                    self.range_min
                )));
            }
            if self.num_negatives > range_max - self.range_min {
                return Err(Error::usage(format!(
                    "{} negatives an anchor do not fit between `range_min` {} and `range_max` {range_max}",
                    self.num_negatives, self.range_min
                ))
                .with_hint("lower `num_negatives` or `range_min`, or raise `range_max`"));
            }
        }
        if self.include_positives {
            if self.output_format != OutputFormat::NTuple {
                notes.push("`include_positives` writes n-tuples, which keep the order of the ranking".to_owned());
                self.output_format = OutputFormat::NTuple;
            }
            let narrowed = self.range_min != 0 || self.range_max.is_some() || self.limited();
            if narrowed || self.sampling_strategy != SamplingStrategy::Top {
                notes.push(
                    "with `include_positives`, ranks, limits, margins and `random` may still leave positives out"
                        .to_owned(),
                );
            }
        }
        Ok((self, notes))
    }

    /// Limits and margins, by name.
    #[must_use]
    pub fn limits(&self) -> [(&'static str, Option<f32>); 4] {
        [
            ("absolute_margin", self.absolute_margin),
            ("relative_margin", self.relative_margin),
            ("max_score", self.max_score),
            ("min_score", self.min_score),
        ]
    }

    /// Whether any limit or margin is set: a reranker has something to decide only then.
    #[must_use]
    pub fn limited(&self) -> bool {
        self.limits().iter().any(|(_, value)| value.is_some())
    }

    /// How far down the ranking negatives are looked for, where an anchor has up to `max_positives` positives;
    /// `rescored` says whether a reranker's scores are what limits hold for.
    #[must_use]
    pub fn last_rank(&self, max_positives: usize, rescored: bool) -> usize {
        let some_are_left_out = self.absolute_margin.is_some()
            || self.relative_margin.is_some()
            || self.max_score.is_some()
            || (rescored && self.min_score.is_some());
        let wanted = self.num_negatives.saturating_mul(if some_are_left_out { 10 } else { 1 });
        self.range_max.unwrap_or_else(|| self.range_min.saturating_add(wanted).saturating_add(max_positives))
    }
}
