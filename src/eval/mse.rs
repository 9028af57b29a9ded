//! MSEEvaluator: how far are a student's embeddings from a teacher's?

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{self, prefixed};
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Embeddings, Encode, LabelKind, Metrics, Statistic};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(source, target) sentences with a `teacher_model`", "sentences with a teacher's embeddings as labels"],
    columns: (1, 2),
    labels: LabelKind::Matrix,
    gotchas: &[
        "The teacher encodes `source`, the student `target`; for one language both are the same column.",
        "Student and teacher need embeddings of the same width: set `truncate_dim` where they differ.",
        "The metric is negative, so that more is better, and a hundred times the error.",
    ],
    paper: "https://arxiv.org/abs/2004.09813",
    ..Card::new("MSEEvaluator", "Mean squared error between the model's embeddings and a teacher's.")
};

/// What a recipe may set of an [`MSEEvaluator`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MSESettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// The folder of the model that encodes `source`. Left out, the label column holds its embeddings.
    pub teacher_model: Option<PathBuf>,
    /// Keep only the first values of each embedding, the teacher's included.
    pub truncate_dim: Option<usize>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Settings for MSESettings {
    fn validate(&self) -> Result<()> {
        shared::check_truncate_dim(self.truncate_dim)
    }
}

impl EvaluatorSettings for MSESettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, _: &str) -> String {
        prefixed(&self.name, "negative_mse")
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        vec![EvaluatorSettings::primary_key(self, similarity_fn_name)]
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        // The reference writes the underscore without a name, too.
        let csv = Csv::new(self.write_csv, format!("mse_evaluation_{}_results.csv", self.name));
        csv.map(|csv| csv.negated("MSE", prefixed(&self.name, "negative_mse"))).into_iter().collect()
    }
}

/// A hundred times the mean of `(student - teacher)^2` over all values of all embeddings, with a minus in front.
///
/// Key: `negative_mse`. The teacher's embeddings are part of the data: whoever reads it loads the teacher.
///
/// Source: `evaluation/mse.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "MSEEvaluator"
/// path = "dev-teacher.jsonl"
/// ```
#[derive(Debug, Clone)]
pub struct MSEEvaluator {
    settings: MSESettings,
    sentences: Vec<String>,
    teacher: Embeddings,
}

impl MSEEvaluator {
    /// An evaluator of sentences for the student, with the teacher's embedding for each.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings; [`Error::Data`] when there are not as many embeddings as sentences, or none,
    /// or their values are not finite.
    pub fn new(sentences: Vec<String>, teacher: Embeddings, settings: MSESettings) -> Result<Self> {
        settings.validate()?;
        shared::check_columns(&[("target", sentences.len()), ("label", teacher.rows())])?;
        if let Some(at) = teacher.data().iter().position(|value| !value.is_finite()) {
            let row = at / teacher.dim().max(1) + 1;
            return Err(Error::data(format!("row {row}: the teacher's embedding has values that are not finite")));
        }
        let teacher = teacher.truncated(settings.truncate_dim.unwrap_or(0));
        Ok(Self { settings, sentences, teacher })
    }
}

impl Evaluator for MSEEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let student = shared::embed_rows(model, &self.sentences, None, self.settings.truncate_dim)?;
        let (width, teacher) = (student.dim(), self.teacher.dim());
        if width != teacher {
            return Err(Error::usage(format!("the model's embeddings have {width} values, the teacher's {teacher}"))
                .with_hint(format!("set `truncate_dim` to {} or less", width.min(teacher))));
        }
        let row = |i: usize| {
            let own = student.filled(i);
            let pairs = own.iter().zip(self.teacher.row(i));
            let sum: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
            -100.0 * sum / width as f64
        };
        let items: Vec<f64> = (0..student.rows()).map(row).collect();
        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        metrics.push(metrics.primary.clone(), items.iter().sum::<f64>() / items.len() as f64);
        metrics.push_sample(Statistic::Mean, Vec::new(), vec![items]);
        Ok(metrics)
    }
}

impl FromData for MSEEvaluator {
    type Settings = MSESettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::Teacher;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::Teacher { sentences, embeddings } => Some(Self::new(sentences, embeddings, settings)),
            _ => None,
        }
    }
}
