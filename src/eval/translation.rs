//! TranslationEvaluator: is a sentence's translation the most similar of all?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::shared::{self, prefixed};
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::Result;
use crate::flow::{Card, Document, Encode, LabelKind, Metrics, Statistic};
use crate::scoring::Similarity;
use crate::scoring::blocks::Hit;
use crate::scoring::rows::Rows;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(source, target) translations"],
    columns: (2, 2),
    labels: LabelKind::None,
    gotchas: &[
        "Every sentence is compared with all of the other language: more rows make it harder.",
        "A match counts by its text, so a sentence that occurs twice is right either way.",
    ],
    paper: "https://arxiv.org/abs/2004.09813",
    ..Card::new("TranslationEvaluator", "How often a sentence's translation is the most similar one, both ways.")
};

/// What a recipe may set of a [`TranslationEvaluator`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TranslationSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// Keep only the first values of each embedding.
    pub truncate_dim: Option<usize>,
    /// Whether a run writes the sources whose most similar target is another one's, with the five most similar, as JSON
    /// lines.
    pub print_wrong_matches: bool,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Settings for TranslationSettings {
    fn validate(&self) -> Result<()> {
        shared::check_truncate_dim(self.truncate_dim)
    }
}

const METRICS: [&str; 3] = ["src2trg_accuracy", "trg2src_accuracy", "mean_accuracy"];

impl EvaluatorSettings for TranslationSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, _: &str) -> String {
        prefixed(&self.name, METRICS[2])
    }

    fn keys(&self, _: &str) -> Vec<String> {
        METRICS.iter().map(|metric| prefixed(&self.name, metric)).collect()
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        let csv = Csv::new(self.write_csv, format!("translation_evaluation{}_results.csv", shared::part(&self.name)));
        let key = |i: usize| prefixed(&self.name, METRICS[i]);
        csv.map(|csv| csv.column("src2trg", key(0)).column("trg2src", key(1))).into_iter().collect()
    }
}

/// The share of sentences whose translation has the highest cosine of all sentences of the other language.
///
/// Keys: `src2trg_accuracy`, `trg2src_accuracy`, `mean_accuracy` (primary). Of equal cosines the first counts. What
/// `print_wrong_matches` prints in the reference is a file of the run here.
///
/// Source: `evaluation/translation.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "TranslationEvaluator"
/// path = "parallel/dev.jsonl"
/// ```
#[derive(Debug, Clone)]
pub struct TranslationEvaluator {
    settings: TranslationSettings,
    sources: Vec<String>,
    targets: Vec<String>,
}

impl TranslationEvaluator {
    /// An evaluator of two columns.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::error::Error::Usage) for the settings; [`Error::Data`](crate::error::Error::Data) when
    /// the columns are empty or differ in length.
    pub fn new(sources: Vec<String>, targets: Vec<String>, settings: TranslationSettings) -> Result<Self> {
        settings.validate()?;
        shared::check_columns(&[("source", sources.len()), ("target", targets.len())])?;
        Ok(Self { settings, sources, targets })
    }
}

/// Targets that are told of a source without its own.
const TOLD: usize = 5;

/// For each row of one side the most similar ones of the other.
fn nearest(from: &Rows, to: &Rows, most: usize) -> Vec<Vec<Hit>> {
    from.nearest(Similarity::Cosine, to, most)
}

/// One value a row: 1 where the nearest row of the other side has the text of the row's own partner.
fn matches(nearest: &[Vec<Hit>], texts: &[String]) -> Vec<f64> {
    let nearest = nearest.iter().enumerate().map(|(row, hits)| {
        let right = hits.first().is_some_and(|hit| texts[hit.rank as usize] == texts[row]);
        f64::from(u8::from(right))
    });
    nearest.collect()
}

impl TranslationEvaluator {
    /// The sources whose nearest target is another one's, a line each.
    fn wrong(&self, found: &[Vec<Hit>], right: &[f64]) -> Document {
        let lines =
            found.iter().zip(right).enumerate().filter(|(_, (_, right))| **right == 0.0).map(|(row, (hits, _))| {
                let target = |hit: &Hit| {
                    let number = hit.rank as usize;
                    json!({"row": number, "target": self.targets[number], "score": hit.score})
                };
                let nearest: Vec<serde_json::Value> = hits.iter().map(target).collect();
                let line = json!({
                    "row": row, "source": self.sources[row], "target": self.targets[row], "nearest": nearest,
                });
                format!("{line}\n")
            });
        let name = shared::part(self.name()).replace(['/', '\\'], "_");
        Document { file: format!("translation_evaluation{name}_wrong_matches.jsonl"), text: lines.collect() }
    }
}

impl Evaluator for TranslationEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let dim = self.settings.truncate_dim;
        let sources = shared::embed_rows(model, &self.sources, None, dim)?;
        let targets = shared::embed_rows(model, &self.targets, None, dim)?;
        let told = self.settings.print_wrong_matches;
        let found = nearest(&sources, &targets, if told { TOLD } else { 1 });
        let there = matches(&found, &self.targets);
        let back = matches(&nearest(&targets, &sources, 1), &self.sources);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (first, second) = (mean(&there), mean(&back));
        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        for (name, value) in METRICS.iter().zip([first, second, (first + second) / 2.0]) {
            metrics.push(prefixed(self.name(), name), value);
        }
        if told {
            metrics.documents.push(self.wrong(&found, &there));
        }
        let both = there.iter().zip(&back).map(|(a, b)| (a + b) / 2.0).collect();
        metrics.push_sample(Statistic::Mean, Vec::new(), vec![both]);
        Ok(metrics)
    }
}

impl FromData for TranslationEvaluator {
    type Settings = TranslationSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::Parallel;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::Parallel { sources, targets } => Some(Self::new(sources, targets, settings)),
            _ => None,
        }
    }
}
