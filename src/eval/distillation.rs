//! MultiVectorDistillationEvaluator: does the model score documents as its teacher does?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::correlation;
use super::shared::{self, DOCUMENT, QUERY, prefixed};
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Encode, LabelKind, Metrics, ModelType, Statistic};
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::MultiVectorEncoder],
    inputs: &[
        "(query, document_1, ..., document_n) with a list of a teacher's scores",
        "(query, document) with a score",
    ],
    columns: (2, usize::MAX),
    labels: LabelKind::Matrix,
    gotchas: &[
        "Give it the temperatures of the loss: the divergence then is the loss on these rows.",
        "With one document a query the divergence is taken over all rows as one distribution, and tells little.",
    ],
    paper: "https://arxiv.org/abs/2112.01488",
    ..Card::new(
        "MultiVectorDistillationEvaluator",
        "How near the model's scores are to a teacher's: rank correlation and divergence.",
    )
};

/// What a recipe may set of a [`DistillationEvaluator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DistillationSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// What scores are divided by before the softmax.
    pub temperature: f64,
    /// The same for the model's scores only.
    pub student_temperature: Option<f64>,
    /// The same for the teacher's scores only.
    pub teacher_temperature: Option<f64>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Default for DistillationSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            temperature: 1.0,
            student_temperature: None,
            teacher_temperature: None,
            write_csv: None,
        }
    }
}

impl DistillationSettings {
    fn student(&self) -> f64 {
        self.student_temperature.unwrap_or(self.temperature)
    }

    fn teacher(&self) -> f64 {
        self.teacher_temperature.unwrap_or(self.temperature)
    }
}

impl Settings for DistillationSettings {
    fn validate(&self) -> Result<()> {
        let all = [
            ("temperature", self.temperature),
            ("student_temperature", self.student()),
            ("teacher_temperature", self.teacher()),
        ];
        match all.into_iter().find(|(_, value)| !value.is_finite() || *value <= 0.0) {
            Some((key, value)) => Err(Error::usage(format!("`{key}` must be above 0, got {value}"))),
            None => Ok(()),
        }
    }
}

impl EvaluatorSettings for DistillationSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, _: &str) -> String {
        prefixed(&self.name, "spearman")
    }

    fn keys(&self, _: &str) -> Vec<String> {
        ["kl_divergence", "spearman"].iter().map(|key| prefixed(&self.name, key)).collect()
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        let file = format!("distillation_evaluation{}_results.csv", shared::part(&self.name));
        let csv = Csv::new(self.write_csv, file);
        let columns = ["kl_divergence", "spearman"];
        let with = |csv: Csv| columns.iter().fold(csv, |csv, key| csv.column(*key, prefixed(&self.name, key)));
        csv.map(with).into_iter().collect()
    }
}

/// Compares the model's scores of each query's documents with a teacher's.
///
/// Keys: `kl_divergence`, the Kullback-Leibler divergence of the model's softmax from the teacher's, times the square of
/// the student's temperature, the mean over queries; `spearman`, the mean over queries of the correlation of ranks
/// (queries whose scores are all equal are left out). Primary: Spearman. With one document a query both are taken over
/// all rows at once, and the divergence is a sum.
///
/// Source: `multi_vector_encoder/evaluation/distillation.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "MultiVectorDistillationEvaluator"
/// path = "dev-scores.jsonl"
/// temperature = 1.0
/// ```
#[derive(Debug, Clone)]
pub struct DistillationEvaluator {
    settings: DistillationSettings,
    queries: Vec<String>,
    /// `[documents a query][queries]`
    documents: Vec<Vec<String>>,
    /// `[queries, documents a query]`
    scores: Vec<f64>,
}

impl DistillationEvaluator {
    /// An evaluator of queries, columns of documents, and a teacher's scores row after row.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings; [`Error::Data`] when columns or scores are not as many, or not finite.
    pub fn new(
        queries: Vec<String>,
        documents: Vec<Vec<String>>,
        scores: Vec<f64>,
        settings: DistillationSettings,
    ) -> Result<Self> {
        settings.validate()?;
        let mut columns = vec![("query", queries.len())];
        columns.extend(documents.iter().map(|column| ("document", column.len())));
        shared::check_columns(&columns)?;
        if documents.is_empty() || scores.len() != queries.len() * documents.len() {
            return Err(Error::data(format!(
                "{} queries with {} documents each have {} scores",
                queries.len(),
                documents.len(),
                scores.len()
            ))
            .with_hint("give a list of scores a row, one a document"));
        }
        shared::check_scores(&scores)?;
        Ok(Self { settings, queries, documents, scores })
    }
}

/// `sum p (log p - log q)` of two distributions given by their scores and temperatures.
fn divergence((teacher, teacher_temperature): (&[f64], f64), (student, student_temperature): (&[f64], f64)) -> f64 {
    let log_softmax = |scores: &[f64], temperature: f64| -> Vec<f64> {
        let scaled = scores.iter().map(|score| score / temperature);
        let top = scaled.clone().fold(f64::NEG_INFINITY, f64::max);
        let total = scaled.clone().map(|x| (x - top).exp()).sum::<f64>().ln();
        scaled.map(|x| x - top - total).collect()
    };
    let (p, q) = (log_softmax(teacher, teacher_temperature), log_softmax(student, student_temperature));
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

impl Evaluator for DistillationEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let similarity: Similarity = model.similarity_fn_name().parse()?;
        if model.multi_vector().is_none() {
            return Err(Error::usage(format!(
                "`{}` compares token by token, and the model has no such embeddings",
                CARD.name
            ))
            .with_hint("give a MultiVectorEncoder"));
        }
        let queries = shared::embed_rows(model, &self.queries, Some(QUERY), None)?;
        let width = self.documents.len();
        let mut scores = vec![0.0; self.scores.len()];
        for (column, documents) in self.documents.iter().enumerate() {
            let documents = shared::embed_rows(model, documents, Some(DOCUMENT), None)?;
            for (i, score) in queries.pairs(similarity, &documents).into_iter().enumerate() {
                scores[i * width + column] = f64::from(score);
            }
        }
        let (student, teacher) = (self.settings.student(), self.settings.teacher());
        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        let known = |value: f64| if value.is_nan() { 0.0 } else { value };
        let (sum, spearman) = if width == 1 {
            let all = divergence((&self.scores, teacher), (&scores, student));
            metrics.push_sample(Statistic::Spearman, self.scores.clone(), vec![scores.clone()]);
            (all, known(correlation::spearman(&self.scores, &scores)))
        } else {
            let rows = || self.scores.chunks(width).zip(scores.chunks(width));
            let sum: f64 = rows().map(|(wanted, got)| divergence((wanted, teacher), (got, student))).sum();
            let each = rows().map(|(wanted, got)| correlation::spearman(wanted, got));
            let each: Vec<f64> = each.filter(|value| !value.is_nan()).collect();
            let mean = each.iter().sum::<f64>() / each.len().max(1) as f64;
            if !each.is_empty() {
                metrics.push_sample(Statistic::Mean, Vec::new(), vec![each]);
            }
            (sum / self.queries.len() as f64, mean)
        };
        metrics.push(prefixed(self.name(), "kl_divergence"), sum * student * student);
        metrics.push(prefixed(self.name(), "spearman"), spearman);
        Ok(metrics)
    }
}

impl FromData for DistillationEvaluator {
    type Settings = DistillationSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::TeacherScores;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::TeacherScores { queries, documents, scores } => {
                Some(Self::new(queries, documents, scores, settings))
            }
            _ => None,
        }
    }
}
