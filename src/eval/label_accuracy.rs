//! LabelAccuracyEvaluator: does the classifier that a loss trains on the embeddings tell the classes of new texts?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{self, prefixed};
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Embeddings, Encode, EncodeOptions, LabelKind, Metrics, Statistic};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(sentence1, sentence2) pairs"],
    columns: (2, 2),
    labels: LabelKind::Int,
    gotchas: &[
        "It measures the classifier that SoftmaxLoss trains, which is thrown away with the run: only a run can use it.",
        "Embeddings may get better for retrieval while this stands still: measure what they are for as well.",
        "Classes are whole numbers, the same as in the training data.",
    ],
    paper: "https://arxiv.org/abs/1908.10084",
    ..Card::new("LabelAccuracyEvaluator", "How often the classifier of SoftmaxLoss finds the class of a pair.")
};

/// Rows that are classified at a time.
const ROWS: usize = 4096;

/// What a recipe may set of a [`LabelAccuracyEvaluator`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LabelAccuracySettings {
    /// The prefix of the metric's key.
    pub name: String,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Settings for LabelAccuracySettings {}

impl EvaluatorSettings for LabelAccuracySettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, _: &str) -> String {
        prefixed(&self.name, "accuracy")
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        vec![EvaluatorSettings::primary_key(self, similarity_fn_name)]
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        let file = format!("accuracy_evaluation{}_results.csv", shared::part(&self.name));
        let csv = Csv::new(self.write_csv, file);
        csv.map(|csv| csv.column("accuracy", EvaluatorSettings::primary_key(self, similarity_fn_name)))
            .into_iter()
            .collect()
    }
}

/// The part of rows whose class gets the largest value of the classifier that the run's loss trains; of equal values
/// the first counts.
///
/// `accuracy = mean over rows of [argmax W x = class]`, where `x` is what the loss makes of the row's embeddings: for
/// `SoftmaxLoss` `[u; v; |u - v|]`. Embeddings are the whole ones, without a prompt, as the loss sees them.
///
/// Key: `accuracy`, which is also the primary metric.
///
/// Source: `evaluation/label_accuracy.py` of sentence-transformers; its `softmax_model` is the loss of the run.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "SoftmaxLoss"
/// num_labels = 3
///
/// [[evaluator]]
/// type = "LabelAccuracyEvaluator"
/// path = "nli/dev.jsonl"
/// label = "label"
/// ```
#[derive(Debug, Clone)]
pub struct LabelAccuracyEvaluator {
    settings: LabelAccuracySettings,
    /// `[columns][rows]`.
    columns: Vec<Vec<String>>,
    classes: Vec<i64>,
}

impl LabelAccuracyEvaluator {
    /// An evaluator of columns of texts and a column of classes.
    ///
    /// # Errors
    /// [`Error::Data`] when the columns are empty or differ in length, or a class is negative.
    pub fn new(columns: Vec<Vec<String>>, classes: Vec<i64>, settings: LabelAccuracySettings) -> Result<Self> {
        let names = ["sentence1", "sentence2"].into_iter().chain(std::iter::repeat("sentence"));
        let mut lengths: Vec<(&str, usize)> = names.zip(&columns).map(|(name, column)| (name, column.len())).collect();
        lengths.push(("label", classes.len()));
        shared::check_columns(&lengths)?;
        if let Some(row) = classes.iter().position(|class| *class < 0) {
            return Err(Error::data(format!(
                "row {}: the class is {}, and 0 or more is wanted",
                row + 1,
                classes[row]
            )));
        }
        Ok(Self { settings, columns, classes })
    }
}

impl Evaluator for LabelAccuracyEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let classifier = model.classifier().ok_or_else(|| {
            Error::usage(format!("`{}` needs the classifier that a loss trains, and there is none", CARD.name)).with_hint(
                "it measures in a run whose training data sets share one SoftmaxLoss; measure a finished model with \
                 another evaluator",
            )
        })?;
        // without the model's default prompt, and not cut: the loss sees no others
        let width = Some(classifier.width());
        let options = EncodeOptions { prompt: Some(String::new()), truncate_dim: width, ..Default::default() };
        let embed = |texts: &Vec<String>| {
            shared::encode(model, &texts.iter().map(String::as_str).collect::<Vec<_>>(), &options)
        };
        let columns = self.columns.iter().map(embed).collect::<Result<Vec<_>>>()?;
        let rows: Vec<usize> = (0..self.classes.len()).collect();
        let mut right = Vec::with_capacity(rows.len());
        for rows in rows.chunks(ROWS) {
            let columns: Vec<Embeddings> = columns.iter().map(|column| column.select(rows)).collect();
            let logits = classifier.logits(&columns)?;
            right.extend(rows.iter().enumerate().map(|(i, row)| {
                let found = largest(logits.row(i));
                f64::from(usize::try_from(self.classes[*row]).is_ok_and(|class| Some(class) == found))
            }));
        }
        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        metrics.push(metrics.primary.clone(), right.iter().sum::<f64>() / right.len() as f64);
        metrics.push_sample(Statistic::Mean, Vec::new(), vec![right]);
        Ok(metrics)
    }
}

/// Where the largest value stands, of equal ones the first.
fn largest(values: &[f32]) -> Option<usize> {
    let first = (0, values.first()?);
    let best = values.iter().enumerate().fold(first, |best, (i, x)| if x > best.1 { (i, x) } else { best });
    Some(best.0)
}

impl FromData for LabelAccuracyEvaluator {
    type Settings = LabelAccuracySettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::Classes;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::Classes { columns, classes } => Some(Self::new(columns, classes, settings)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::largest;

    #[test]
    fn of_equal_values_the_first_is_largest() {
        assert_eq!(largest(&[1.0, 3.0, 3.0, 2.0]), Some(1));
        assert_eq!(largest(&[]), None);
    }
}
