//! ReciprocalRankFusionEvaluator: what is won by mixing the rankings of a dense and a sparse search?

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::metrics::ranking;
use super::shared::{self, prefixed};
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Document, Encode, LabelKind, Metrics, ModelType, Statistic};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::SparseEncoder],
    inputs: &["a folder with `dense.jsonl` and `sparse.jsonl`: the ranked documents of each query"],
    columns: (2, 2),
    labels: LabelKind::None,
    gotchas: &[
        "Both rankings are read from files: the model of the run has no part in the numbers.",
        "Documents are told apart by their texts, so both searches must have been made in the same corpus.",
    ],
    paper: "https://doi.org/10.1145/1571941.1572114",
    ..Card::new(
        "ReciprocalRankFusionEvaluator",
        "A dense and a sparse ranking, each alone and both fused by their ranks: MAP, MRR, NDCG.",
    )
};

/// What a search found for a query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranking {
    /// The query's id, the same in both rankings.
    pub query_id: String,
    /// The query.
    pub query: String,
    /// Documents that answer it.
    pub positive: Vec<String>,
    /// What was found, best first.
    pub documents: Vec<String>,
}

/// What a recipe may set of a [`ReciprocalRankFusionEvaluator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReciprocalRankFusionSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// MRR and NDCG look at the first documents only, so many of them.
    pub at_k: usize,
    /// `k` in a rank's worth `1 / (k + rank)`: the larger, the less the first ranks stand out.
    pub rrf_k: u64,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
    /// Whether a run writes the fused ranking of each query, as JSON lines.
    pub write_predictions: bool,
}

impl Default for ReciprocalRankFusionSettings {
    fn default() -> Self {
        Self { name: String::new(), at_k: 10, rrf_k: 60, write_csv: None, write_predictions: false }
    }
}

impl Settings for ReciprocalRankFusionSettings {
    fn validate(&self) -> Result<()> {
        match self.at_k {
            0 => Err(Error::usage("`at_k` must be at least 1, got 0")),
            _ => Ok(()),
        }
    }
}

impl ReciprocalRankFusionSettings {
    /// MAP, MRR and NDCG of the dense ranking, the sparse one and both: key, and the column in the CSV file.
    fn nine(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for (key, header) in [("dense_", "Dense"), ("sparse_", "Sparse"), ("", "Fusion")] {
            let at = |metric: &str| format!("{metric}@{}", self.at_k);
            let both = [("map".to_owned(), "MAP".to_owned()), (at("mrr"), at("MRR")), (at("ndcg"), at("NDCG"))];
            all.extend(both.map(|(metric, column)| {
                (prefixed(&self.name, &format!("{key}{metric}")), format!("{header}_{column}"))
            }));
        }
        all
    }
}

impl EvaluatorSettings for ReciprocalRankFusionSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, _: &str) -> String {
        prefixed(&self.name, &format!("ndcg@{}", self.at_k))
    }

    fn keys(&self, _: &str) -> Vec<String> {
        self.nine().into_iter().map(|(key, _)| key).collect()
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        let file = format!("ReciprocalRankFusion_evaluation{}_results.csv", shared::part(&self.name));
        let csv = Csv::new(self.write_csv, file);
        let with = |csv: Csv| self.nine().into_iter().fold(csv, |csv, (key, header)| csv.column(header, key));
        csv.map(with).into_iter().collect()
    }
}

/// The rankings of two searches, each alone, and fused: `score(d) = 1 / (k + dense rank) + 1 / (k + sparse rank)`, ranks
/// from 1, nothing for a ranking without the document.
///
/// Keys: `dense_map`, `dense_mrr@<k>`, `dense_ndcg@<k>`, the same with `sparse_`, and `map`, `mrr@<k>`, `ndcg@<k>` of the
/// fused ranking, means over queries. Primary: NDCG of the fused ranking. Positives that were not found stand behind
/// those that were; a query of which none was found counts 0. Documents of equal fused score keep the dense order, then
/// the sparse one.
///
/// The two files have a row a query, in the same order: `query_id`, `query`, `positive` and `documents` (best first),
/// the last two lists of texts.
///
/// Source: [Cormack et al. 2009](https://doi.org/10.1145/1571941.1572114);
/// `sparse_encoder/evaluation/reciprocal_rank_fusion.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "ReciprocalRankFusionEvaluator"
/// path = "rankings"
/// ```
#[derive(Debug, Clone)]
pub struct ReciprocalRankFusionEvaluator {
    settings: ReciprocalRankFusionSettings,
    /// Dense and sparse.
    rankings: Vec<(Ranking, Ranking)>,
}

impl ReciprocalRankFusionEvaluator {
    /// An evaluator of two rankings of each query.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings; [`Error::Data`] when there are none, or they are of different queries.
    pub fn new(dense: Vec<Ranking>, sparse: Vec<Ranking>, settings: ReciprocalRankFusionSettings) -> Result<Self> {
        settings.validate()?;
        if dense.is_empty() || dense.len() != sparse.len() {
            return Err(Error::data(format!(
                "the dense ranking has {} queries, the sparse one {}",
                dense.len(),
                sparse.len()
            ))
            .with_hint("both need a row for each query, in the same order"));
        }
        let rankings: Vec<(Ranking, Ranking)> = dense.into_iter().zip(sparse).collect();
        if let Some((row, (a, b))) = rankings.iter().enumerate().find(|(_, (a, b))| a.query_id != b.query_id) {
            return Err(Error::data(format!(
                "row {}: `query_id` is `{}` in the dense ranking and `{}` in the sparse one",
                row + 1,
                a.query_id,
                b.query_id
            ))
            .with_hint("both need a row for each query, in the same order"));
        }
        Ok(Self { settings, rankings })
    }

    /// The documents of both, best first.
    fn fused<'a>(&self, dense: &'a [String], sparse: &'a [String]) -> Vec<&'a str> {
        let worth = |rank: usize| 1.0 / (self.settings.rrf_k as f64 + rank as f64);
        // a document that is there twice has its last rank, and the place where it came first
        let ranks = |documents: &'a [String]| -> HashMap<&'a str, usize> {
            documents.iter().map(String::as_str).zip(1..).collect()
        };
        let (first, second) = (ranks(dense), ranks(sparse));
        let mut seen = HashSet::new();
        let all = dense.iter().chain(sparse).map(String::as_str).filter(|document| seen.insert(*document));
        let score = |document: &str| {
            let of = |ranks: &HashMap<&str, usize>| ranks.get(document).map_or(0.0, |rank| worth(*rank));
            of(&first) + of(&second)
        };
        let mut scored: Vec<(&str, f64)> = all.map(|document| (document, score(document))).collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1));
        scored.into_iter().map(|(document, _)| document).collect()
    }

    /// MAP, MRR and NDCG of a ranking.
    fn measure(&self, documents: &[&str], positive: &[String]) -> [f64; 3] {
        let mut relevant: Vec<bool> = documents.iter().map(|d| positive.iter().any(|p| p == d)).collect();
        let found = relevant.iter().filter(|r| **r).count();
        if found == 0 {
            return [0.0; 3];
        }
        relevant.resize(relevant.len() + positive.len().saturating_sub(found), true);
        let (k, total) = (self.settings.at_k, found.max(positive.len()));
        [
            ranking::average_precision(&relevant, usize::MAX, total),
            ranking::reciprocal_rank(&relevant, k),
            ranking::ndcg(&relevant, k, total),
        ]
    }
}

impl Evaluator for ReciprocalRankFusionEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let mut values: Vec<Vec<f64>> = vec![Vec::new(); 9];
        let mut fused_documents = String::new();
        for (dense, sparse) in &self.rankings {
            let fused = self.fused(&dense.documents, &sparse.documents);
            // the dense file says what is relevant, as in the reference
            let positive = &dense.positive;
            let texts = |ranking: &Ranking| -> [f64; 3] {
                let documents: Vec<&str> = ranking.documents.iter().map(String::as_str).collect();
                self.measure(&documents, positive)
            };
            let measured = [texts(dense), texts(sparse), self.measure(&fused, positive)].into_iter().flatten();
            values.iter_mut().zip(measured).for_each(|(list, value)| list.push(value));
            if self.settings.write_predictions {
                let line =
                    json!({"query_id": dense.query_id, "query": dense.query, "positive": positive, "documents": fused});
                fused_documents.push_str(&format!("{line}\n"));
            }
        }
        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        for ((key, _), list) in self.settings.nine().into_iter().zip(&values) {
            metrics.push(key, list.iter().sum::<f64>() / list.len() as f64);
        }
        metrics.push_sample(Statistic::Mean, Vec::new(), vec![values.pop().unwrap_or_default()]);
        if self.settings.write_predictions {
            let name = shared::part(&self.settings.name).replace(['/', '\\'], "_");
            let file = format!("ReciprocalRankFusion_evaluation{name}_predictions.jsonl");
            metrics.documents.push(Document { file, text: fused_documents });
        }
        Ok(metrics)
    }
}

impl FromData for ReciprocalRankFusionEvaluator {
    type Settings = ReciprocalRankFusionSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::Rankings;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::Rankings { dense, sparse } => Some(Self::new(dense, sparse, settings)),
            _ => None,
        }
    }
}
