//! MSEEvaluatorFromDataFrame: how far are the embeddings of translations from a teacher's of the originals, language by
//! language?

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
    inputs: &["parallel sentences, a column a language, with a `teacher_model`"],
    columns: (2, usize::MAX),
    labels: LabelKind::None,
    gotchas: &[
        "`combinations` names the columns: the teacher encodes the first of each pair, the model the second.",
        "Rows without a text in either column are left out of that pair alone.",
        "Every pair of columns counts the same, however many rows it has.",
    ],
    paper: "https://arxiv.org/abs/2004.09813",
    ..Card::new(
        "MSEEvaluatorFromDataFrame",
        "Mean squared error between the model's embeddings and a teacher's, over several pairs of languages.",
    )
};

/// What a recipe may set of an [`MSEEvaluatorFromDataFrame`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MSEFromDataFrameSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// Pairs of columns, as `[["en", "es"], ["en", "fr"]]`: the teacher's, the model's.
    pub combinations: Vec<[String; 2]>,
    /// The folder of the model that encodes the first column of each pair.
    pub teacher_model: Option<PathBuf>,
    /// Keep only the first values of each embedding, the teacher's included.
    pub truncate_dim: Option<usize>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl MSEFromDataFrameSettings {
    /// What a pair of columns is called.
    fn titles(&self) -> impl Iterator<Item = String> + '_ {
        self.combinations.iter().map(|[source, target]| format!("{source}-{target}"))
    }

    fn detail(&self, title: &str) -> String {
        prefixed(&self.name, &format!("mse_{title}"))
    }
}

impl Settings for MSEFromDataFrameSettings {
    fn validate(&self) -> Result<()> {
        shared::check_truncate_dim(self.truncate_dim)?;
        if let Some(twice) = self.combinations.iter().enumerate().find(|(i, c)| self.combinations[..*i].contains(c)) {
            let [source, target] = twice.1;
            return Err(Error::usage(format!("`combinations` names `{source}` and `{target}` twice")));
        }
        Ok(())
    }
}

impl EvaluatorSettings for MSEFromDataFrameSettings {
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
        let csv = Csv::new(self.write_csv, format!("mse_evaluation{}_results.csv", shared::part(&self.name)));
        let columns = |csv| self.titles().fold(csv, |csv: Csv, title| csv.column(title.clone(), self.detail(&title)));
        csv.map(columns).into_iter().collect()
    }
}

/// What a pair of columns is held against: texts for the model, and a teacher's embeddings of their originals.
pub type Taught = (Vec<String>, Embeddings);

/// The mean over pairs of columns of a hundred times the mean of `(student - teacher)^2` over all values of all
/// embeddings, with a minus in front.
///
/// Key: `negative_mse`. The error of each pair stands in the CSV file only. The teacher's embeddings are part of the
/// data: whoever reads it loads the teacher.
///
/// Source: `evaluation/mse_from_dataframe.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "MSEEvaluatorFromDataFrame"
/// path = "parallel.jsonl"
/// combinations = [["en", "es"], ["en", "fr"]]
/// teacher_model = "models/teacher"
/// ```
#[derive(Debug, Clone)]
pub struct MSEEvaluatorFromDataFrame {
    settings: MSEFromDataFrameSettings,
    taught: Vec<Taught>,
}

impl MSEEvaluatorFromDataFrame {
    /// An evaluator of what belongs to each of the combinations, in their order.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings; [`Error::Data`] when a pair of columns has no rows, or not as many embeddings
    /// as sentences, or their values are not finite.
    pub fn new(taught: Vec<Taught>, settings: MSEFromDataFrameSettings) -> Result<Self> {
        settings.validate()?;
        if taught.is_empty() || taught.len() != settings.combinations.len() {
            return Err(Error::usage("`combinations` names no pair of columns")
                .with_hint("name the teacher's and the model's, as `combinations = [[\"en\", \"es\"]]`"));
        }
        let dim = settings.truncate_dim.unwrap_or(0);
        let mut kept = Vec::with_capacity(taught.len());
        for ((sentences, teacher), title) in taught.into_iter().zip(settings.titles()) {
            let lengths = [("target", sentences.len()), ("source", teacher.rows())];
            shared::check_columns(&lengths).map_err(|e| e.within(format!("`{title}`")))?;
            if teacher.data().iter().any(|value| !value.is_finite()) {
                return Err(Error::data(format!(
                    "`{title}`: the teacher's embeddings have values that are not finite"
                )));
            }
            kept.push((sentences, teacher.truncated(dim)));
        }
        Ok(Self { settings, taught: kept })
    }
}

impl Evaluator for MSEEvaluatorFromDataFrame {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        let (mut pairs, mut items) = (Vec::new(), Vec::new());
        let mut sum = 0.0;
        for (number, ((sentences, teacher), title)) in self.taught.iter().zip(self.settings.titles()).enumerate() {
            let student = shared::embed(model, sentences, None, self.settings.truncate_dim)?;
            let (width, wanted) = (student.dim(), teacher.dim());
            if width != wanted {
                return Err(Error::usage(format!(
                    "the model's embeddings have {width} values, the teacher's {wanted}"
                ))
                .with_hint(format!("set `truncate_dim` to {} or less", width.min(wanted))));
            }
            let row = |i: usize| {
                let pairs = student.row(i).iter().zip(teacher.row(i));
                pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() * 100.0 / width as f64
            };
            let errors: Vec<f64> = (0..student.rows()).map(row).collect();
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            metrics.details.push((self.settings.detail(&title), mean));
            sum += mean;
            pairs.extend(vec![number as f64; errors.len()]);
            items.extend(errors.into_iter().map(|error| -error));
        }
        metrics.push(metrics.primary.clone(), -sum / self.taught.len() as f64);
        metrics.push_sample(Statistic::MeanOfMeans, pairs, vec![items]);
        Ok(metrics)
    }
}

impl FromData for MSEEvaluatorFromDataFrame {
    type Settings = MSEFromDataFrameSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::Taught;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::Taught(taught) => Some(Self::new(taught, settings)),
            _ => None,
        }
    }
}
