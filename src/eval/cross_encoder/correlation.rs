//! CrossEncoderCorrelationEvaluator: do scores of pairs go up with those given by people?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{predict, ranker};
use crate::error::Result;
use crate::eval::metrics::correlation::{pearson, spearman};
use crate::eval::shared::{self, prefixed};
use crate::eval::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::flow::{Card, Encode, LabelKind, Metrics, ModelType, Statistic};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::CrossEncoder],
    inputs: &["(sentence1, sentence2) or (query, passage) pairs with scores"],
    columns: (2, 2),
    labels: LabelKind::Float,
    gotchas: &[
        "Correlations need labels that differ: with equal labels, or a model that scores all pairs alike, they are NaN.",
        "Spearman looks at the order only, so any label range will do.",
    ],
    paper: "https://arxiv.org/abs/1908.10084",
    ..Card::new("CrossEncoderCorrelationEvaluator", "Correlation of a CrossEncoder's scores with given ones.")
};

/// What a recipe may set of a [`CrossEncoderCorrelationEvaluator`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CorrelationSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// The model's prompt of that name; its default one when left out.
    pub prompt_name: Option<String>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Settings for CorrelationSettings {}

impl EvaluatorSettings for CorrelationSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, _: &str) -> String {
        prefixed(&self.name, "spearman")
    }

    fn keys(&self, _: &str) -> Vec<String> {
        ["pearson", "spearman"].map(|key| prefixed(&self.name, key)).to_vec()
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        let file = format!("CrossEncoderCorrelationEvaluator{}_results.csv", shared::part(&self.name));
        let column = |key: &str| prefixed(&self.name, key);
        let csv = Csv::new(self.write_csv, file).map(|csv| {
            csv.column("Pearson_Correlation", column("pearson")).column("Spearman_Correlation", column("spearman"))
        });
        csv.into_iter().collect()
    }
}

/// Pearson's and Spearman's correlation of the scores of pairs with given ones.
///
/// Keys: `pearson`, `spearman`. Primary: `spearman`.
///
/// Source: `cross_encoder/evaluation/correlation.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [[evaluator]]
/// type = "CrossEncoderCorrelationEvaluator"
/// path = "dev.jsonl"
/// label = "score"
/// ```
#[derive(Debug, Clone)]
pub struct CrossEncoderCorrelationEvaluator {
    settings: CorrelationSettings,
    pairs: Vec<(String, String)>,
    scores: Vec<f64>,
}

impl CrossEncoderCorrelationEvaluator {
    /// An evaluator of three columns.
    ///
    /// # Errors
    /// [`Error::Data`](crate::error::Error::Data) when the columns are empty or differ in length, or a score is not finite.
    pub fn new(
        sentences1: Vec<String>,
        sentences2: Vec<String>,
        scores: Vec<f64>,
        settings: CorrelationSettings,
    ) -> Result<Self> {
        shared::check_columns(&[
            ("sentence1", sentences1.len()),
            ("sentence2", sentences2.len()),
            ("score", scores.len()),
        ])?;
        shared::check_scores(&scores)?;
        Ok(Self { settings, pairs: sentences1.into_iter().zip(sentences2).collect(), scores })
    }
}

impl Evaluator for CrossEncoderCorrelationEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let ranker = ranker(&CARD, model)?;
        let pairs: Vec<(&str, &str)> = self.pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let predicted = predict(model, ranker, &pairs, self.settings.prompt_name.as_deref())?;
        let predicted: Vec<f64> = predicted.data().iter().map(|score| f64::from(*score)).collect();
        let mut metrics = Metrics { primary: self.primary_key(""), ..Metrics::default() };
        let values = [pearson(&self.scores, &predicted), spearman(&self.scores, &predicted)];
        for (key, value) in self.keys("").into_iter().zip(values) {
            metrics.push(key, value);
        }
        if model.looked_at() {
            let text = |i: usize| [self.pairs[i].0.as_str(), self.pairs[i].1.as_str()];
            let look = shared::look_at_pairs(&metrics.primary, "score", &self.scores, &predicted, None, text);
            metrics.looks.push(look);
        }
        metrics.push_sample(Statistic::Spearman, self.scores.clone(), vec![predicted]);
        Ok(metrics)
    }
}

impl FromData for CrossEncoderCorrelationEvaluator {
    type Settings = CorrelationSettings;
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
