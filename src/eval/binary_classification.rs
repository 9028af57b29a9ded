//! BinaryClassificationEvaluator: do similarities tell pairs that mean the same from those that do not?

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::classification::{average_precision, best_accuracy, best_f1, matthews_correlation};
use super::shared::{self, prefixed};
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::Result;
use crate::flow::{Card, Encode, LabelKind, Metrics, Statistic};
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(sentence1, sentence2) pairs"],
    columns: (2, 2),
    labels: LabelKind::Int,
    gotchas: &[
        "Thresholds are chosen on the very pairs that are measured, so accuracy and F1 are a little flattering.",
        "Average precision, the primary metric, needs no threshold.",
        "Thresholds of `manhattan` and `euclidean` are distances: pairs below them are taken for the same.",
    ],
    paper: "https://arxiv.org/abs/1908.10084",
    ..Card::new(
        "BinaryClassificationEvaluator",
        "How well a threshold on similarity tells duplicates from others: accuracy, F1, average precision.",
    )
};

/// The metrics of a similarity function, in the order of their keys.
const METRICS: [&str; 8] = ["accuracy", "accuracy_threshold", "f1", "f1_threshold", "precision", "recall", "ap", "mcc"];

/// What a recipe may set of a [`BinaryClassificationEvaluator`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BinaryClassificationSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// The similarity functions to evaluate; the model's when left out.
    pub similarity_fn_names: Option<Vec<Similarity>>,
    /// Keep only the first values of each embedding.
    pub truncate_dim: Option<usize>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Settings for BinaryClassificationSettings {
    fn validate(&self) -> Result<()> {
        shared::check_truncate_dim(self.truncate_dim)
    }
}

impl BinaryClassificationSettings {
    fn similarities(&self, model: &str) -> Result<Vec<Similarity>> {
        shared::similarities(self.similarity_fn_names.as_deref(), None, model)
    }
}

impl EvaluatorSettings for BinaryClassificationSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        let key = match self.similarities(similarity_fn_name).as_deref() {
            Ok([one]) => format!("{one}_ap"),
            Ok(_) => "max_ap".to_owned(),
            Err(_) => format!("{similarity_fn_name}_ap"),
        };
        prefixed(&self.name, &key)
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        let similarities = self.similarities(similarity_fn_name).unwrap_or_default();
        let mut names: Vec<&str> = similarities.iter().map(|s| s.name()).collect();
        if names.len() > 1 {
            names.push("max");
        }
        names.iter().flat_map(|n| METRICS.map(|m| prefixed(&self.name, &format!("{n}_{m}")))).collect()
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        // In the file precision and recall stand before the threshold of F1.
        const COLUMNS: [usize; 8] = [0, 1, 2, 4, 5, 3, 6, 7];
        let file = format!("binary_classification_evaluation{}_results.csv", shared::part(&self.name));
        let csv = Csv::new(self.write_csv, file).map(|mut csv| {
            for similarity in self.similarities(similarity_fn_name).unwrap_or_default() {
                for column in COLUMNS {
                    let header = format!("{similarity}_{}", METRICS[column]);
                    csv = csv.column(header.clone(), prefixed(&self.name, &header));
                }
            }
            csv
        });
        csv.into_iter().collect()
    }
}

/// Takes pairs beyond a threshold of similarity for the same, and compares with labels.
///
/// Keys, for each similarity function: `<similarity>_accuracy` and `_accuracy_threshold` (the best accuracy there is),
/// `_f1`, `_f1_threshold`, `_precision`, `_recall` (where F1 is best), `_ap` (average precision) and `_mcc` (Matthews'
/// correlation at the threshold of F1); with several also `max_...`, the largest of each. Primary: `_ap`.
///
/// Without a positive pair F1, average precision and correlation are 0, as in the reference.
///
/// Source: `evaluation/binary_classification.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "BinaryClassificationEvaluator"
/// path = "dev-pairs.jsonl"
/// label = "label"
/// ```
#[derive(Debug, Clone)]
pub struct BinaryClassificationEvaluator {
    settings: BinaryClassificationSettings,
    /// Each different sentence once.
    sentences: Vec<String>,
    /// `[pairs]`: the numbers of both sentences.
    pairs: (Vec<usize>, Vec<usize>),
    labels: Vec<bool>,
}

impl BinaryClassificationEvaluator {
    /// An evaluator of three columns.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::error::Error::Usage) for the settings; [`Error::Data`](crate::error::Error::Data) when
    /// the columns are empty or differ in length.
    pub fn new(
        sentences1: Vec<String>,
        sentences2: Vec<String>,
        labels: Vec<bool>,
        settings: BinaryClassificationSettings,
    ) -> Result<Self> {
        settings.validate()?;
        shared::check_columns(&[
            ("sentence1", sentences1.len()),
            ("sentence2", sentences2.len()),
            ("label", labels.len()),
        ])?;
        let (mut sentences, mut numbers) = (Vec::new(), HashMap::new());
        let mut number = |sentence: String| {
            *numbers.entry(sentence.clone()).or_insert_with(|| {
                sentences.push(sentence);
                sentences.len() - 1
            })
        };
        let pairs = sentences1.into_iter().zip(sentences2).map(|(a, b)| (number(a), number(b))).unzip();
        Ok(Self { settings, sentences, pairs, labels })
    }
}

impl Evaluator for BinaryClassificationEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let similarities = self.settings.similarities(model.similarity_fn_name())?;
        let embeddings = shared::embed_rows(model, &self.sentences, None, self.settings.truncate_dim)?;
        let alike = |similarity| embeddings.pairwise(similarity, &self.pairs.0, &embeddings, &self.pairs.1);

        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        let (mut largest, mut columns) = ([f64::NEG_INFINITY; METRICS.len()], Vec::new());
        for similarity in &similarities {
            let rising = matches!(similarity, Similarity::Cosine | Similarity::Dot);
            // Distances here, not their negatives.
            let sign = if rising { 1.0 } else { -1.0 };
            let scores: Vec<f32> = alike(*similarity).into_iter().map(|s| sign * s).collect();
            let accuracy = best_accuracy(&scores, &self.labels, rising);
            let f1 = best_f1(&scores, &self.labels, rising);
            let alike: Vec<f64> = scores.iter().map(|score| f64::from(sign * score)).collect();
            let predicted: Vec<bool> =
                scores.iter().map(|s| if rising { *s >= f1.threshold } else { *s <= f1.threshold }).collect();
            let values = [
                accuracy.value,
                f64::from(accuracy.threshold),
                f1.value,
                f64::from(f1.threshold),
                f1.precision,
                f1.recall,
                average_precision(&alike, &self.labels),
                matthews_correlation(&predicted, &self.labels),
            ];
            for ((name, value), largest) in METRICS.iter().zip(values).zip(&mut largest) {
                metrics.push(prefixed(self.name(), &format!("{similarity}_{name}")), value);
                *largest = largest.max(value);
            }
            columns.push(alike);
        }
        if similarities.len() > 1 {
            for (name, value) in METRICS.iter().zip(largest) {
                metrics.push(prefixed(self.name(), &format!("max_{name}")), value);
            }
        }
        let labels: Vec<f64> = self.labels.iter().map(|label| f64::from(u8::from(*label))).collect();
        if let (true, [scores, ..], [similarity, ..]) = (model.looked_at(), columns.as_slice(), similarities.as_slice())
        {
            let text = |i: usize| [&self.pairs.0, &self.pairs.1].map(|side| self.sentences[side[i]].as_str());
            let scored_by = shared::scored_by(*similarity);
            let two = Some(shared::PAIRS);
            metrics.looks.push(shared::look_at_pairs(&metrics.primary, &scored_by, &labels, scores, two, text));
        }
        metrics.push_sample(Statistic::AveragePrecision, labels, columns);
        Ok(metrics)
    }
}

impl FromData for BinaryClassificationEvaluator {
    type Settings = BinaryClassificationSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::LabelledPairs;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::LabelledPairs { sentences1, sentences2, labels } => {
                Some(Self::new(sentences1, sentences2, labels, settings))
            }
            _ => None,
        }
    }
}
