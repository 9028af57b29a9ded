//! What searches are made with, and which metrics follow from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::eval::metrics::ranking;
use crate::eval::shared::{self, prefixed};
use crate::eval::{Csv, EvaluatorSettings};
use crate::flow::Metrics;
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// What a recipe may set of an [`InformationRetrievalEvaluator`](super::InformationRetrievalEvaluator).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InformationRetrievalSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// Documents encoded and searched at a time; bounds the memory for embeddings.
    pub corpus_chunk_size: usize,
    /// Cut-offs of the mean reciprocal rank.
    pub mrr_at_k: Vec<usize>,
    /// Cut-offs of NDCG; the largest makes the primary metric.
    pub ndcg_at_k: Vec<usize>,
    /// Cut-offs of accuracy: a relevant document is among the first k.
    pub accuracy_at_k: Vec<usize>,
    /// Cut-offs of precision and recall.
    pub precision_recall_at_k: Vec<usize>,
    /// Cut-offs of mean average precision.
    pub map_at_k: Vec<usize>,
    /// Keep only the first values of each embedding.
    pub truncate_dim: Option<usize>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
    /// Whether a run writes what is found for each query, as JSON lines in a file a score function.
    pub write_predictions: bool,
    /// The similarity functions to search with; the model's when left out.
    pub score_functions: Option<Vec<Similarity>>,
    /// The one whose NDCG is the primary metric; the best of the first evaluation when left out and there are several.
    pub main_score_function: Option<Similarity>,
    /// Put in front of every query.
    pub query_prompt: Option<String>,
    /// The name of the model's prompt for queries; `query` when it has one and nothing is given.
    pub query_prompt_name: Option<String>,
    /// Put in front of every document.
    pub corpus_prompt: Option<String>,
    /// The name of the model's prompt for documents; `document` when it has one and nothing is given.
    pub corpus_prompt_name: Option<String>,
}

impl Default for InformationRetrievalSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            corpus_chunk_size: 50_000,
            mrr_at_k: vec![10],
            ndcg_at_k: vec![10],
            accuracy_at_k: vec![1, 3, 5, 10],
            precision_recall_at_k: vec![1, 3, 5, 10],
            map_at_k: vec![100],
            truncate_dim: None,
            write_csv: None,
            write_predictions: false,
            score_functions: None,
            main_score_function: None,
            query_prompt: None,
            query_prompt_name: None,
            corpus_prompt: None,
            corpus_prompt_name: None,
        }
    }
}

impl InformationRetrievalSettings {
    pub(in crate::eval) fn cut_offs(&self) -> [(&'static str, &[usize]); 5] {
        [
            ("accuracy_at_k", &self.accuracy_at_k),
            ("precision_recall_at_k", &self.precision_recall_at_k),
            ("ndcg_at_k", &self.ndcg_at_k),
            ("mrr_at_k", &self.mrr_at_k),
            ("map_at_k", &self.map_at_k),
        ]
    }

    /// The metrics in the order of their keys, each with its cut-off.
    pub(in crate::eval) fn metrics(&self) -> Vec<(Metric, usize)> {
        let at = |metric: Metric, cut_offs: &[usize]| {
            shared::unique(cut_offs).into_iter().map(move |k| (metric, k)).collect::<Vec<_>>()
        };
        [
            at(Metric::Accuracy, &self.accuracy_at_k),
            at(Metric::Precision, &self.precision_recall_at_k),
            at(Metric::Recall, &self.precision_recall_at_k),
            at(Metric::Ndcg, &self.ndcg_at_k),
            at(Metric::Mrr, &self.mrr_at_k),
            at(Metric::Map, &self.map_at_k),
        ]
        .concat()
    }

    pub(in crate::eval) fn similarities(&self, model: &str) -> Result<Vec<Similarity>> {
        let named = self.score_functions.as_deref();
        shared::similarities(named, self.main_score_function, model)
    }

    /// A CSV file with the columns of these settings, score functions by name as in the reference.
    pub(in crate::eval) fn csv_file(&self, file: String, similarity_fn_name: &str) -> Option<Csv> {
        let mut similarities = self.similarities(similarity_fn_name).unwrap_or_default();
        similarities.sort_by_key(|similarity| similarity.name());
        let mut csv = Csv::new(self.write_csv, file)?;
        for similarity in similarities {
            let shown = [
                (&["accuracy", "Accuracy"][..], &self.accuracy_at_k),
                (&["precision", "Precision", "recall", "Recall"], &self.precision_recall_at_k),
                (&["mrr", "MRR"], &self.mrr_at_k),
                (&["ndcg", "NDCG"], &self.ndcg_at_k),
                (&["map", "MAP"], &self.map_at_k),
            ];
            for (names, cut_offs) in shown {
                for (k, name) in cut_offs.iter().flat_map(|k| names.chunks(2).map(move |name| (*k, name))) {
                    let key = self.key(similarity.name(), name[0], k);
                    csv = csv.column(format!("{similarity}-{}@{k}", name[1]), key);
                }
            }
        }
        Some(csv)
    }

    pub(in crate::eval) fn key(&self, similarity: &str, metric: &str, k: usize) -> String {
        prefixed(&self.name, &format!("{similarity}_{metric}@{k}"))
    }

    pub(in crate::eval) fn ndcg_key(&self, similarity: &str) -> String {
        self.key(similarity, "ndcg", self.ndcg_at_k.iter().copied().max().unwrap_or_default())
    }

    /// The score function with the best NDCG, the first by name among equals; `None` where there is nothing to choose.
    pub(in crate::eval) fn best_of(&self, model: &str, metrics: &Metrics) -> Option<Similarity> {
        let mut names = self.similarities(model).ok()?;
        if self.main_score_function.is_some() || names.len() < 2 {
            return None;
        }
        names.sort_by_key(|similarity| similarity.name());
        let score = |similarity: &Similarity| metrics.get(&self.ndcg_key(similarity.name())).unwrap_or(f64::NAN);
        names.iter().copied().reduce(|best, next| if score(&next) > score(&best) { next } else { best })
    }
}

impl EvaluatorSettings for InformationRetrievalSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        let similarities = self.similarities(similarity_fn_name).unwrap_or_default();
        let first = similarities.iter().map(|similarity| similarity.name()).min();
        self.ndcg_key(self.main_score_function.map(Similarity::name).or(first).unwrap_or(similarity_fn_name))
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        let similarities = self.similarities(similarity_fn_name).unwrap_or_default();
        let metrics = self.metrics();
        similarities
            .iter()
            .flat_map(|similarity| metrics.iter().map(|(metric, k)| self.key(similarity.name(), metric.name(), *k)))
            .collect()
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        let file = format!("Information-Retrieval_evaluation{}_results.csv", shared::part(&self.name));
        self.csv_file(file, similarity_fn_name).into_iter().collect()
    }
}

impl Settings for InformationRetrievalSettings {
    fn validate(&self) -> Result<()> {
        shared::check_truncate_dim(self.truncate_dim)?;
        if self.corpus_chunk_size == 0 {
            return Err(Error::usage("`corpus_chunk_size` must be at least 1, got 0"));
        }
        if let Some((key, _)) = self.cut_offs().iter().find(|(_, cut_offs)| cut_offs.contains(&0)) {
            return Err(Error::usage(format!("`{key}` must hold numbers of at least 1, got 0")));
        }
        if self.ndcg_at_k.is_empty() {
            return Err(Error::usage("`ndcg_at_k` must not be empty: its largest number makes the primary metric"));
        }
        for (key, text, name) in [
            ("query_prompt", &self.query_prompt, &self.query_prompt_name),
            ("corpus_prompt", &self.corpus_prompt, &self.corpus_prompt_name),
        ] {
            if text.is_some() && name.is_some() {
                return Err(Error::usage(format!("`{key}` and `{key}_name` exclude each other")));
            }
        }
        let named = self.score_functions.as_deref();
        shared::check_main(("score_functions", named), ("main_score_function", self.main_score_function))
    }
}

/// What is made of a list of documents, up to a cut-off.
#[derive(Debug, Clone, Copy)]
pub(in crate::eval) enum Metric {
    Accuracy,
    Precision,
    Recall,
    Ndcg,
    Mrr,
    Map,
}

impl Metric {
    pub(in crate::eval) fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::Ndcg => "ndcg",
            Self::Mrr => "mrr",
            Self::Map => "map",
        }
    }

    pub(in crate::eval) fn of(self, relevant: &[bool], k: usize, total: usize) -> f64 {
        match self {
            Self::Accuracy => ranking::accuracy(relevant, k),
            Self::Precision => ranking::precision(relevant, k),
            Self::Recall => ranking::recall(relevant, k, total),
            Self::Ndcg => ranking::ndcg(relevant, k, total),
            Self::Mrr => ranking::reciprocal_rank(relevant, k),
            Self::Map => ranking::average_precision(relevant, k, total),
        }
    }
}
