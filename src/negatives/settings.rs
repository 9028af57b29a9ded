//! How hard negatives are to be found: the settings, what cannot be meant by them, and what follows from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::candidates::Depth;
use super::limits::Limit;
use crate::error::{Error, Result};

/// Documents are numbered with 32 bits.
const MOST_DOCUMENTS: usize = u32::MAX as usize;

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
        self.check_source()?;
        if self.num_negatives == 0 {
            return Err(Error::usage("`num_negatives` is 0").with_hint("ask for at least one negative an anchor"));
        }
        for (name, number) in [("num_negatives", Some(self.num_negatives)), ("range_max", self.range_max)] {
            if let Some(number) = number.filter(|number| *number > MOST_DOCUMENTS) {
                return Err(Error::usage(format!("`{name}` is {number}, and there are never so many documents"))
                    .with_hint(format!("{MOST_DOCUMENTS} is the most")));
            }
        }
        for (limit, value) in self.limits() {
            if !value.is_finite() {
                return Err(Error::usage(format!("`{}` is no finite number", limit.name())));
            }
        }
        if let (Some(least), Some(most)) = (self.min_score, self.max_score)
            && least > most
        {
            return Err(Error::usage(format!("`min_score` ({least}) is above `max_score` ({most})"))
                .with_hint("no candidate scores between them"));
        }
        self.check_ranks()?;
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

    /// Where candidates come from, and settings that have no meaning with it.
    fn check_source(&self) -> Result<()> {
        if self.bm25 && self.model.is_some() {
            return Err(Error::usage("candidates come from `model` or from `bm25`, one of them"));
        }
        let of_models = [
            ("query_prompt", self.query_prompt.is_some()),
            ("query_prompt_name", self.query_prompt_name.is_some()),
            ("corpus_prompt", self.corpus_prompt.is_some()),
            ("corpus_prompt_name", self.corpus_prompt_name.is_some()),
            ("cache_folder", self.cache_folder.is_some()),
            ("bf16", self.bf16),
        ];
        if let Some((name, _)) = of_models.into_iter().find(|(_, given)| self.bm25 && *given) {
            return Err(Error::usage(format!("`{name}` has no meaning with `bm25`, which needs no model"))
                .with_hint("leave one of them out"));
        }
        if self.corpus_column.is_some() && self.corpus.is_none() {
            return Err(Error::usage("`corpus_column` names a column of `corpus`, which is missing")
                .with_hint("give the file, or leave the column out"));
        }
        for (role, text, name) in [
            ("query", &self.query_prompt, &self.query_prompt_name),
            ("corpus", &self.corpus_prompt, &self.corpus_prompt_name),
        ] {
            if text.is_some() && name.is_some() {
                return Err(Error::usage(format!("`{role}_prompt` and `{role}_prompt_name` are both given"))
                    .with_hint("the text itself, or the name of one of the model's: leave the other out"));
            }
        }
        Ok(())
    }

    fn check_ranks(&self) -> Result<()> {
        let Some(range_max) = self.range_max else { return Ok(()) };
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
        Ok(())
    }

    /// The limits and margins that are set, in the order they are held against candidates.
    pub fn limits(&self) -> impl Iterator<Item = (Limit, f32)> + '_ {
        Limit::ALL.into_iter().filter_map(|limit| Some((limit, limit.of(self)?)))
    }

    /// Whether any limit or margin is set: a reranker has something to decide only then.
    #[must_use]
    pub fn limited(&self) -> bool {
        self.limits().next().is_some()
    }

    /// How far down the ranking negatives are looked for, where an anchor has up to `max_positives` positives;
    /// `rescored` says whether a reranker's scores are what limits hold for.
    #[must_use]
    pub fn last_rank(&self, max_positives: usize, rescored: bool) -> usize {
        let some_are_left_out = self.limits().any(|(limit, _)| limit != Limit::MinScore || rescored);
        let wanted = self.num_negatives.saturating_mul(if some_are_left_out { 10 } else { 1 });
        self.range_max.unwrap_or_else(|| self.range_min.saturating_add(wanted).saturating_add(max_positives))
    }

    /// How many candidates each anchor needs for [`last_rank`](Self::last_rank). Where nothing but positives is left out
    /// of the best ones, those are enough that can become negatives, beside the anchor's own positives: many positives
    /// of one anchor then cost nothing with the others.
    #[must_use]
    pub fn depth(&self, max_positives: usize, last_rank: usize) -> Depth {
        let wanted = self.range_min.saturating_add(self.num_negatives);
        match self.limited() || self.sampling_strategy == SamplingStrategy::Random {
            true => Depth::Same(last_rank.saturating_add(max_positives)),
            false if self.include_positives => Depth::Same(wanted),
            false => Depth::Beside(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_would_be_ignored_is_refused() {
        let text = |text: &str| Some(text.to_owned());
        let bm25 = Settings { bm25: true, ..Settings::default() };
        for (settings, message) in [
            (Settings { corpus_column: text("text"), ..Settings::default() }, "`corpus_column` names a column"),
            (Settings { cache_folder: text("kept"), ..bm25.clone() }, "`cache_folder` has no meaning with `bm25`"),
            (Settings { query_prompt: text("q: "), ..bm25.clone() }, "`query_prompt` has no meaning"),
            (Settings { bf16: true, ..bm25 }, "`bf16` has no meaning"),
            (
                Settings { corpus_prompt: text("d: "), corpus_prompt_name: text("d"), ..Settings::default() },
                "`corpus_prompt` and `corpus_prompt_name` are both given",
            ),
        ] {
            let error = settings.settled().unwrap_err();
            assert!(error.to_string().contains(message) && error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn huge_numbers_are_refused_or_saturate() {
        for settings in [
            Settings { num_negatives: usize::MAX, ..Settings::default() },
            Settings { range_max: Some(usize::MAX), ..Settings::default() },
        ] {
            assert!(settings.settled().unwrap_err().to_string().contains("never so many documents"));
        }
        let settings = Settings { range_min: usize::MAX, max_score: Some(1.0), ..Settings::default() };
        assert_eq!(settings.last_rank(7, false), usize::MAX);
        assert_eq!(settings.depth(7, usize::MAX), Depth::Same(usize::MAX));
    }
}
