//! EmbeddingSimilarityEvaluator: do similarities order pairs as people do?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::correlation::{pearson, spearman};
use super::shared::{self, prefixed};
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Embeddings, Encode, EncodeOptions, LabelKind, Metrics, Statistic};
use crate::scoring::Similarity;
use crate::scoring::quantize::{Precision, Ranges, quantize};
use crate::scoring::rows::Rows;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(sentence1, sentence2) pairs"],
    columns: (2, 2),
    labels: LabelKind::Float,
    gotchas: &[
        "Correlations need labels that differ: with equal labels, or a model that scores all pairs alike, they are NaN.",
        "Spearman is the primary metric; it looks at the order only, so any label range will do.",
    ],
    paper: "https://arxiv.org/abs/1908.10084",
    ..Card::new("EmbeddingSimilarityEvaluator", "Correlation of similarities with scores given by people (STS).")
};

/// What a recipe may set of an [`EmbeddingSimilarityEvaluator`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingSimilaritySettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// The similarity functions to evaluate; the model's when left out.
    pub similarity_fn_names: Option<Vec<Similarity>>,
    /// The one whose Spearman correlation is the primary metric; the best of all when left out and there are several.
    pub main_similarity: Option<Similarity>,
    /// Keep only the first values of each embedding.
    pub truncate_dim: Option<usize>,
    /// Divide embeddings by their length and then keep them in so many bits: `float32`, `int8`, `uint8`, `binary` or
    /// `ubinary`; as the model gives them when left out.
    pub precision: Option<Precision>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Settings for EmbeddingSimilaritySettings {
    fn validate(&self) -> Result<()> {
        shared::check_truncate_dim(self.truncate_dim)?;
        let named = self.similarity_fn_names.as_deref();
        shared::check_main(("similarity_fn_names", named), ("main_similarity", self.main_similarity))
    }
}

impl EmbeddingSimilaritySettings {
    fn similarities(&self, model: &str) -> Result<Vec<Similarity>> {
        let named = self.similarity_fn_names.as_deref();
        shared::similarities(named, self.main_similarity, model)
    }
}

impl EvaluatorSettings for EmbeddingSimilaritySettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        let key = match (self.main_similarity, self.similarities(similarity_fn_name).as_deref()) {
            (Some(main), _) => format!("spearman_{main}"),
            (None, Ok([one])) => format!("spearman_{one}"),
            (None, Ok(_)) => "spearman_max".to_owned(),
            (None, Err(_)) => format!("spearman_{similarity_fn_name}"),
        };
        prefixed(&self.name, &key)
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        let similarities = self.similarities(similarity_fn_name).unwrap_or_default();
        let mut names: Vec<&str> = similarities.iter().map(|s| s.name()).collect();
        if names.len() > 1 {
            names.push("max");
        }
        let keys = names.iter().flat_map(|n| [format!("pearson_{n}"), format!("spearman_{n}")]);
        keys.map(|key| prefixed(&self.name, &key)).collect()
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        let similarities = self.similarities(similarity_fn_name).unwrap_or_default();
        let precision = self.precision.map_or("", Precision::name);
        let file = format!("similarity_evaluation{}{}_results.csv", shared::part(&self.name), shared::part(precision));
        let csv = Csv::new(self.write_csv, file);
        let csv = csv.map(|csv| {
            similarities.iter().fold(csv, |csv, s| {
                let key = |metric| prefixed(&self.name, &format!("{metric}_{s}"));
                csv.column(format!("{s}_pearson"), key("pearson")).column(format!("{s}_spearman"), key("spearman"))
            })
        });
        csv.into_iter().collect()
    }
}

/// Pearson and Spearman correlation between the similarity of two sentences and the score people gave the pair.
///
/// Keys: `pearson_<similarity>` and `spearman_<similarity>`; with several similarity functions also `pearson_max` and
/// `spearman_max`, the best of those that are numbers. Primary: Spearman. `precision` changes no key, but the name of the
/// CSV file; `binary` and `ubinary` compare bits, of which they keep the same. Cosines of bits that are equal are equal
/// here; in the reference's f32 some of them come apart, and its Spearman correlation with them.
///
/// Source: `evaluation/embedding_similarity.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "EmbeddingSimilarityEvaluator"
/// path = "stsb/dev.jsonl"
/// name = "sts-dev"
/// ```
#[derive(Debug, Clone)]
pub struct EmbeddingSimilarityEvaluator {
    settings: EmbeddingSimilaritySettings,
    sentences1: Vec<String>,
    sentences2: Vec<String>,
    scores: Vec<f64>,
}

impl EmbeddingSimilarityEvaluator {
    /// An evaluator of three columns.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings; [`Error::Data`] when the columns differ in length, have fewer than two rows,
    /// or a score is not finite.
    pub fn new(
        sentences1: Vec<String>,
        sentences2: Vec<String>,
        scores: Vec<f64>,
        settings: EmbeddingSimilaritySettings,
    ) -> Result<Self> {
        settings.validate()?;
        shared::check_columns(&[
            ("sentence1", sentences1.len()),
            ("sentence2", sentences2.len()),
            ("score", scores.len()),
        ])?;
        if scores.len() < 2 {
            return Err(Error::data("a correlation needs at least 2 pairs, got 1"));
        }
        shared::check_scores(&scores)?;
        Ok(Self { settings, sentences1, sentences2, scores })
    }
}

impl EmbeddingSimilarityEvaluator {
    /// Both columns, in the precision asked for: the steps of a byte span both of them, so that a sentence is the same
    /// in either.
    fn embed(&self, model: &dyn Encode) -> Result<(Rows, Rows)> {
        let (truncate_dim, precision) = (self.settings.truncate_dim, self.settings.precision);
        let options = EncodeOptions { truncate_dim, normalize: true, ..Default::default() };
        let Some(precision) = precision else {
            let rows = |texts| shared::embed_rows(model, texts, None, truncate_dim);
            return Ok((rows(&self.sentences1)?, rows(&self.sentences2)?));
        };
        let encode =
            |texts: &[String]| shared::encode(model, &texts.iter().map(String::as_str).collect::<Vec<_>>(), &options);
        let (first, second) = (encode(&self.sentences1)?, encode(&self.sentences2)?);
        let ranges =
            if precision.has_ranges() { Ranges::of(&first).with(&Ranges::of(&second)) } else { Ranges::default() };
        let kept = |embeddings: Embeddings| match quantize(&embeddings, precision, &ranges) {
            Some(quantized) => quantized.values(),
            None => embeddings,
        };
        Ok((Rows::Dense(kept(first)), Rows::Dense(kept(second))))
    }
}

impl Evaluator for EmbeddingSimilarityEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let similarities = self.settings.similarities(model.similarity_fn_name())?;
        let (first, second) = self.embed(model)?;
        let name = self.name();
        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        let (mut best, mut columns) = ([f64::NAN; 2], Vec::new());
        for similarity in &similarities {
            let scores: Vec<f64> = first.pairs(*similarity, &second).into_iter().map(f64::from).collect();
            let values = [("pearson", pearson(&self.scores, &scores)), ("spearman", spearman(&self.scores, &scores))];
            for ((metric, value), best) in values.into_iter().zip(&mut best) {
                metrics.push(prefixed(name, &format!("{metric}_{similarity}")), value);
                // `max` prefers the number to NaN.
                *best = best.max(value);
            }
            if self.settings.main_similarity.is_none_or(|main| main == *similarity) {
                columns.push(scores);
            }
        }
        if similarities.len() > 1 {
            metrics.push(prefixed(name, "pearson_max"), best[0]);
            metrics.push(prefixed(name, "spearman_max"), best[1]);
        }
        if let (true, [scores, ..], [similarity, ..]) = (model.looked_at(), columns.as_slice(), similarities.as_slice())
        {
            let scored_by = shared::scored_by(self.settings.main_similarity.unwrap_or(*similarity));
            let text = |i: usize| [self.sentences1[i].as_str(), self.sentences2[i].as_str()];
            metrics.looks.push(shared::look_at_pairs(&metrics.primary, &scored_by, &self.scores, scores, None, text));
        }
        metrics.push_sample(Statistic::Spearman, self.scores.clone(), columns);
        Ok(metrics)
    }
}

impl FromData for EmbeddingSimilarityEvaluator {
    type Settings = EmbeddingSimilaritySettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::ScoredPairs;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::ScoredPairs { sentences1, sentences2, scores } => {
                Some(Self::new(sentences1, sentences2, scores, settings))
            }
            _ => None,
        }
    }
}
