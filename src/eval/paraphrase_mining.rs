//! ParaphraseMiningEvaluator: are the most similar pairs of many sentences those that mean the same?

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{self, prefixed};
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Encode, LabelKind, Metrics};
use crate::scoring::Similarity;
use crate::scoring::mining::{self, Pair};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["sentences with ids, and pairs of ids that mean the same"],
    columns: (2, 2),
    labels: LabelKind::None,
    gotchas: &[
        "Every sentence is compared with every other: the time grows with the square of their number.",
        "Pairs that mean the same and are not listed count as mistakes; `add_transitive_closure` adds those that \
         follow from the listed ones.",
        "Sentences are compared by cosine, whatever the model's similarity function.",
    ],
    paper: "https://arxiv.org/abs/1908.10084",
    ..Card::new("ParaphraseMiningEvaluator", "Finding the duplicates among many sentences: average precision, F1.")
};

/// What a recipe may set of a [`ParaphraseMiningEvaluator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ParaphraseMiningSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// Whether duplicates of duplicates are duplicates, too.
    pub add_transitive_closure: bool,
    /// The most similar pairs that are looked at, so many of them.
    pub max_pairs: usize,
    /// The nearest sentences of each sentence that make pairs.
    pub top_k: usize,
    /// Accepted, and nothing changes: the reference's pieces, which bound memory.
    pub query_chunk_size: usize,
    /// Accepted, and nothing changes.
    pub corpus_chunk_size: usize,
    /// Keep only the first values of each embedding.
    pub truncate_dim: Option<usize>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Default for ParaphraseMiningSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            add_transitive_closure: false,
            max_pairs: 500_000,
            top_k: 100,
            query_chunk_size: 5_000,
            corpus_chunk_size: 100_000,
            truncate_dim: None,
            write_csv: None,
        }
    }
}

impl Settings for ParaphraseMiningSettings {
    fn validate(&self) -> Result<()> {
        for (key, value) in [("max_pairs", self.max_pairs), ("top_k", self.top_k)] {
            if value == 0 {
                return Err(Error::usage(format!("`{key}` must be at least 1, got 0")));
            }
        }
        shared::check_truncate_dim(self.truncate_dim)
    }
}

const METRICS: [&str; 5] = ["average_precision", "f1", "precision", "recall", "threshold"];

impl EvaluatorSettings for ParaphraseMiningSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, _: &str) -> String {
        prefixed(&self.name, METRICS[0])
    }

    fn keys(&self, _: &str) -> Vec<String> {
        METRICS.iter().map(|metric| prefixed(&self.name, metric)).collect()
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        let file = format!("paraphrase_mining_evaluation{}_results.csv", shared::part(&self.name));
        let order = ["precision", "recall", "f1", "threshold", "average_precision"];
        let csv = Csv::new(self.write_csv, file);
        csv.map(|csv| order.iter().fold(csv, |csv, name| csv.column(*name, prefixed(&self.name, name))))
            .into_iter()
            .collect()
    }
}

/// Looks for the most similar pairs of sentences and measures how many of them are known to mean the same.
///
/// Keys: `average_precision` (primary), and where F1 is best `f1`, `precision`, `recall`, `threshold`; all 0 without a
/// duplicate.
///
/// Source: `evaluation/paraphrase_mining.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "ParaphraseMiningEvaluator"
/// path = "duplicates"
/// ```
#[derive(Debug, Clone)]
pub struct ParaphraseMiningEvaluator {
    settings: ParaphraseMiningSettings,
    sentences: Vec<String>,
    /// Numbers of sentences, the smaller first.
    duplicates: HashSet<(u32, u32)>,
}

impl ParaphraseMiningEvaluator {
    /// An evaluator of `(id, text)` sentences and pairs of ids; pairs with ids of no sentence are left out.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings; [`Error::Data`] for fewer than two sentences, an id that occurs twice, and when
    /// no pair is left.
    pub fn new(
        sentences: Vec<(String, String)>,
        duplicates: &[(String, String)],
        settings: ParaphraseMiningSettings,
    ) -> Result<Self> {
        settings.validate()?;
        if sentences.len() < 2 || u32::try_from(sentences.len()).is_err() {
            return Err(Error::data(format!("2 to 2^32 sentences can be compared, got {}", sentences.len())));
        }
        let mut numbers: HashMap<&str, u32> = HashMap::with_capacity(sentences.len());
        for (number, (id, _)) in (0u32..).zip(&sentences) {
            if numbers.insert(id, number).is_some() {
                return Err(Error::data(format!("sentence id `{id}` occurs twice")));
            }
        }
        let known = duplicates.iter().filter_map(|(a, b)| {
            let (a, b) = (*numbers.get(a.as_str())?, *numbers.get(b.as_str())?);
            Some((a.min(b), a.max(b)))
        });
        let mut pairs: HashSet<(u32, u32)> = known.collect();
        if pairs.is_empty() {
            return Err(Error::data(format!(
                "none of the {} duplicates is a pair of the {} sentences",
                duplicates.len(),
                sentences.len()
            ))
            .with_hint("the ids of the duplicates must be those of the sentences"));
        }
        if settings.add_transitive_closure {
            close(&mut pairs, sentences.len());
        }
        let sentences = sentences.into_iter().map(|(_, text)| text).collect();
        Ok(Self { settings, sentences, duplicates: pairs })
    }

    /// The five metrics, in their order.
    fn measure(&self, pairs: &[Pair]) -> [f64; 5] {
        let total = self.duplicates.len() as f64;
        let (mut taken, mut right, mut sum) = (0usize, 0usize, 0.0);
        let [mut f1, mut best_precision, mut best_recall, mut threshold] = [0.0f64; 4];
        for group in pairs.chunk_by(|a, b| a.score == b.score) {
            let found = group.iter().filter(|pair| self.duplicates.contains(&(pair.first, pair.second))).count();
            taken += group.len();
            right += found;
            if found == 0 {
                continue;
            }
            let (precision, recall) = (right as f64 / taken as f64, right as f64 / total);
            let value = 2.0 * precision * recall / (precision + recall);
            sum += precision * found as f64;
            if value > f1 {
                (f1, best_precision, best_recall) = (value, precision, recall);
                let score = group[0].score;
                let next = pairs.get(taken).map_or(score, |pair| pair.score);
                threshold = f64::midpoint(f64::from(score), f64::from(next));
            }
        }
        [sum / total, f1, best_precision, best_recall, threshold]
    }
}

/// Adds every pair of sentences that are connected by pairs.
fn close(pairs: &mut HashSet<(u32, u32)>, sentences: usize) {
    fn root(parents: &mut [u32], mut at: u32) -> u32 {
        while parents[at as usize] != at {
            parents[at as usize] = parents[parents[at as usize] as usize];
            at = parents[at as usize];
        }
        at
    }
    let mut parents: Vec<u32> = (0..sentences as u32).collect();
    for (a, b) in pairs.iter() {
        let (a, b) = (root(&mut parents, *a), root(&mut parents, *b));
        parents[a as usize] = b;
    }
    let mut groups: HashMap<u32, Vec<u32>> = HashMap::new();
    for (a, b) in pairs.iter() {
        groups.entry(root(&mut parents, *a)).or_default().extend([*a, *b]);
    }
    for mut group in groups.into_values() {
        group.sort_unstable();
        group.dedup();
        for (i, a) in group.iter().enumerate() {
            pairs.extend(group[i + 1..].iter().map(|b| (*a, *b)));
        }
    }
}

impl Evaluator for ParaphraseMiningEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let embeddings = shared::embed(model, &self.sentences, None, self.settings.truncate_dim)?;
        let pairs = mining::pairs(Similarity::Cosine, embeddings, self.settings.top_k, self.settings.max_pairs);
        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        for (name, value) in METRICS.iter().zip(self.measure(&pairs)) {
            metrics.push(prefixed(self.name(), name), value);
        }
        Ok(metrics)
    }
}

impl FromData for ParaphraseMiningEvaluator {
    type Settings = ParaphraseMiningSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::Paraphrases;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::Paraphrases { sentences, duplicates } => Some(Self::new(sentences, &duplicates, settings)),
            _ => None,
        }
    }
}
