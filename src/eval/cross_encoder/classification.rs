//! CrossEncoderClassificationEvaluator: are pairs put into the right class?

use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{predict, predictor};
use crate::error::{Error, Result};
use crate::eval::metrics::classification::{average_precision, best_accuracy, best_f1, f1_scores};
use crate::eval::shared::{self, prefixed};
use crate::eval::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::flow::{Card, Embeddings, Encode, LabelKind, Metrics, ModelType, Statistic};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::CrossEncoder],
    inputs: &["(sentence1, sentence2) or (query, passage) pairs with a class, a whole number"],
    columns: (2, 2),
    labels: LabelKind::Int,
    gotchas: &[
        "What it measures depends on the model: average precision with one score a pair, F1 with one for each class.",
        "Labels are numbers, counted from 0 as in training; names of classes are not read.",
        "The best thresholds are found on this very data: on small files they flatter.",
    ],
    paper: "https://arxiv.org/abs/1908.10084",
    ..Card::new(
        "CrossEncoderClassificationEvaluator",
        "Accuracy, F1 and average precision of a CrossEncoder on classes.",
    )
};

/// Key and CSV header of each metric of a model with one score a pair.
const BINARY: [(&str, &str); 7] = [
    ("accuracy", "Accuracy"),
    ("accuracy_threshold", "Accuracy_Threshold"),
    ("f1", "F1"),
    ("f1_threshold", "F1_Threshold"),
    ("precision", "Precision"),
    ("recall", "Recall"),
    ("average_precision", "Average_Precision"),
];

/// Those of a model with a score for each class.
const CLASSES: [(&str, &str); 3] = [("f1_macro", "Macro_F1"), ("f1_micro", "Micro_F1"), ("f1_weighted", "Weighted_F1")];

/// What a recipe may set of a [`CrossEncoderClassificationEvaluator`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClassificationSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// The model's prompt of that name; its default one when left out.
    pub prompt_name: Option<String>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Settings for ClassificationSettings {}

impl ClassificationSettings {
    fn columns(&self, metrics: &[(&str, &str)]) -> Vec<Csv> {
        let file = format!("CrossEncoderClassificationEvaluator{}_results.csv", shared::part(&self.name));
        let csv = Csv::new(self.write_csv, file)
            .map(|csv| metrics.iter().fold(csv, |csv, (key, header)| csv.column(*header, prefixed(&self.name, key))));
        csv.into_iter().collect()
    }
}

/// Without a model it is not known which metrics there will be: what is said here is of one with one score a pair, and
/// the keys are those of either.
impl EvaluatorSettings for ClassificationSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, _: &str) -> String {
        prefixed(&self.name, "average_precision")
    }

    fn keys(&self, _: &str) -> Vec<String> {
        BINARY.iter().chain(&CLASSES).map(|(key, _)| prefixed(&self.name, key)).collect()
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        self.columns(&BINARY)
    }
}

/// Compares the classes that a model gives to pairs with the right ones.
///
/// Keys of a model with one score a pair: `accuracy`, `accuracy_threshold` (the best there is), `f1`, `f1_threshold`,
/// `precision`, `recall` (where F1 is best), `average_precision`, which is primary. Of a model with a score for each
/// class, of which the highest decides: `f1_macro` (the mean over classes, primary), `f1_micro` (the accuracy),
/// `f1_weighted` (weighted by how often a class is right).
///
/// Which of them are made is known from the model it measures first; until then from the labels: above 1 there are
/// several classes.
///
/// Source: `cross_encoder/evaluation/classification.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [[evaluator]]
/// type = "CrossEncoderClassificationEvaluator"
/// path = "dev.jsonl"
/// label = "label"
/// ```
#[derive(Debug)]
pub struct CrossEncoderClassificationEvaluator {
    settings: ClassificationSettings,
    pairs: Vec<(String, String)>,
    labels: Vec<i64>,
    /// The scores a pair of the first model has.
    scores: OnceLock<usize>,
}

impl CrossEncoderClassificationEvaluator {
    /// An evaluator of three columns.
    ///
    /// # Errors
    /// [`Error::Data`] when the columns are empty or differ in length.
    pub fn new(
        sentences1: Vec<String>,
        sentences2: Vec<String>,
        labels: Vec<i64>,
        settings: ClassificationSettings,
    ) -> Result<Self> {
        shared::check_columns(&[
            ("sentence1", sentences1.len()),
            ("sentence2", sentences2.len()),
            ("label", labels.len()),
        ])?;
        Ok(Self { settings, pairs: sentences1.into_iter().zip(sentences2).collect(), labels, scores: OnceLock::new() })
    }

    fn metrics(&self) -> &'static [(&'static str, &'static str)] {
        let binary = self.scores.get().map_or_else(|| self.labels.iter().all(|label| *label <= 1), |n| *n == 1);
        if binary { &BINARY } else { &CLASSES }
    }

    /// With one score a pair.
    fn binary(&self, scores: &Embeddings) -> Result<(Vec<f64>, Vec<bool>)> {
        if let Some(label) = self.labels.iter().find(|label| !(0..=1).contains(*label)) {
            return Err(Error::data(format!(
                "`{}`: a label is {label}, and the model has one score a pair",
                CARD.name
            ))
            .with_hint(
                "label pairs 0 and 1; for several classes train with `model.num_labels`, for scores use \
                            CrossEncoderCorrelationEvaluator",
            ));
        }
        let labels: Vec<bool> = self.labels.iter().map(|label| *label == 1).collect();
        let (scores, exact) = (scores.data(), scores.data().iter().map(|score| f64::from(*score)).collect::<Vec<_>>());
        let (accuracy, f1) = (best_accuracy(scores, &labels, true), best_f1(scores, &labels, true));
        let values = vec![
            accuracy.value,
            f64::from(accuracy.threshold),
            f1.value,
            f64::from(f1.threshold),
            f1.precision,
            f1.recall,
            average_precision(&exact, &labels),
        ];
        Ok((values, labels))
    }

    /// With a score for each class.
    fn classes(&self, scores: &Embeddings) -> Result<Vec<f64>> {
        let classes = scores.dim();
        if let Some(row) = self.labels.iter().position(|label| !(0..classes as i64).contains(label)) {
            let label = self.labels[row];
            return Err(Error::data(format!(
                "`{}`: the label of row {} is {label}, the model has the classes 0 to {}",
                CARD.name,
                row + 1,
                classes.saturating_sub(1)
            ))
            .with_hint("classes are counted from 0; `model.num_labels` is how many there are"));
        }
        let highest = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as i64;
        let predicted: Vec<i64> = (0..scores.rows()).map(|i| highest(scores.row(i))).collect();
        let f1 = f1_scores(&predicted, &self.labels);
        Ok(vec![f1.macro_mean, f1.micro, f1.weighted])
    }
}

impl Evaluator for CrossEncoderClassificationEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn meet(&self, model: &dyn Encode) {
        if let Some(predictor) = model.predictor() {
            self.scores.get_or_init(|| predictor.num_labels());
        }
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let predictor = predictor(&CARD, model)?;
        self.meet(model);
        let pairs: Vec<(&str, &str)> = self.pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let scores = predict(model, predictor, &pairs, self.settings.prompt_name.as_deref())?;
        if self.scores.get() != Some(&scores.dim()) {
            return Err(Error::Internal(format!(
                "`{}` measures models with {} scores a pair and others",
                CARD.name,
                scores.dim()
            )));
        }
        let mut metrics = Metrics { primary: self.primary_key(""), ..Metrics::default() };
        let binary = if scores.dim() == 1 { Some(self.binary(&scores)?) } else { None };
        let values = match &binary {
            Some((values, _)) => values.clone(),
            None => self.classes(&scores)?,
        };
        for (key, value) in self.keys("").into_iter().zip(values) {
            metrics.push(key, value);
        }
        if let Some((_, labels)) = binary {
            let labels: Vec<f64> = labels.into_iter().map(|label| f64::from(u8::from(label))).collect();
            let scores: Vec<f64> = scores.data().iter().map(|score| f64::from(*score)).collect();
            if model.looked_at() {
                let text = |i: usize| [self.pairs[i].0.as_str(), self.pairs[i].1.as_str()];
                let two = Some(shared::PAIRS);
                metrics.looks.push(shared::look_at_pairs(&metrics.primary, "score", &labels, &scores, two, text));
            }
            metrics.push_sample(Statistic::AveragePrecision, labels, vec![scores]);
        }
        Ok(metrics)
    }

    fn primary_key(&self, _: &str) -> String {
        let primary = if self.metrics().len() == CLASSES.len() { "f1_macro" } else { "average_precision" };
        prefixed(&self.settings.name, primary)
    }

    fn keys(&self, _: &str) -> Vec<String> {
        self.metrics().iter().map(|(key, _)| prefixed(&self.settings.name, key)).collect()
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        self.settings.columns(self.metrics())
    }
}

impl FromData for CrossEncoderClassificationEvaluator {
    type Settings = ClassificationSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::ClassifiedPairs;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::ClassifiedPairs { sentences1, sentences2, labels } => {
                Some(Self::new(sentences1, sentences2, labels, settings))
            }
            _ => None,
        }
    }
}
