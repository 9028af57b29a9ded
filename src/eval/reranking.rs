//! RerankingEvaluator: do the documents that answer a query come before those that do not?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::{classification, ranking};
use super::shared::{self, DOCUMENT, QUERY, prefixed};
use super::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Encode, LabelKind, Look, Metrics, Scores, Statistic};
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["queries, each with a list of positive and a list of negative documents"],
    columns: (2, 3),
    labels: LabelKind::Int,
    gotchas: &[
        "Easy negatives give values near 1 that hide progress.",
        "Queries without a positive or without a negative document are left out.",
        "Documents are compared by `similarity_fct`, cosine unless set, whatever the model's similarity function.",
    ],
    paper: "https://arxiv.org/abs/2104.08663",
    ..Card::new("RerankingEvaluator", "Ordering the given documents of each query: MAP, MRR, NDCG.")
};

/// A query with what is to be put in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// The query.
    pub query: String,
    /// Documents that answer it.
    pub positive: Vec<String>,
    /// Documents that do not.
    pub negative: Vec<String>,
}

/// What a recipe may set of a [`RerankingEvaluator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RerankingSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// MRR and NDCG look at the first documents only, so many of them.
    #[serde(alias = "mrr_at_k")]
    pub at_k: usize,
    /// How queries and documents are compared.
    pub similarity_fct: Similarity,
    /// Keep only the first values of each embedding.
    pub truncate_dim: Option<usize>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Default for RerankingSettings {
    fn default() -> Self {
        Self { name: String::new(), at_k: 10, similarity_fct: Similarity::Cosine, truncate_dim: None, write_csv: None }
    }
}

impl Settings for RerankingSettings {
    fn validate(&self) -> Result<()> {
        if self.at_k == 0 {
            return Err(Error::usage("`at_k` must be at least 1, got 0"));
        }
        shared::check_truncate_dim(self.truncate_dim)
    }
}

impl RerankingSettings {
    /// The keys of MAP, MRR and NDCG.
    fn three(&self) -> [String; 3] {
        let at = |metric: &str| prefixed(&self.name, &format!("{metric}@{}", self.at_k));
        [prefixed(&self.name, "map"), at("mrr"), at("ndcg")]
    }
}

impl EvaluatorSettings for RerankingSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, _: &str) -> String {
        let [_, _, ndcg] = self.three();
        ndcg
    }

    fn keys(&self, _: &str) -> Vec<String> {
        self.three().to_vec()
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        let (k, [map, mrr, ndcg]) = (self.at_k, self.three());
        let file = format!("RerankingEvaluator{}_results_@{k}.csv", shared::part(&self.name));
        let csv = Csv::new(self.write_csv, file);
        csv.map(|csv| csv.column("MAP", map).column(format!("MRR@{k}"), mrr).column(format!("NDCG@{k}"), ndcg))
            .into_iter()
            .collect()
    }
}

/// Puts the positive and negative documents of each query in order of similarity and measures where the positives
/// stand.
///
/// Keys: `map`, `mrr@<k>`, `ndcg@<k>`, means over queries. Primary: NDCG. Documents of equal score share what their
/// ranks are worth in MAP and NDCG; for MRR they stay in their order, positives first.
///
/// Source: `evaluation/reranking.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "RerankingEvaluator"
/// path = "dev-rerank.jsonl"
/// ```
#[derive(Debug, Clone)]
pub struct RerankingEvaluator {
    settings: RerankingSettings,
    queries: Vec<String>,
    /// The documents of all queries, positives first for each.
    documents: Vec<String>,
    /// `[queries]`: how many positives and negatives.
    counts: Vec<(usize, usize)>,
}

impl RerankingEvaluator {
    /// An evaluator of samples.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings; [`Error::Data`] when no sample has both positive and negative documents.
    pub fn new(samples: Vec<Sample>, settings: RerankingSettings) -> Result<Self> {
        settings.validate()?;
        let all = samples.len();
        let (mut queries, mut documents, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for sample in samples {
            if !sample.positive.is_empty() && !sample.negative.is_empty() {
                queries.push(sample.query);
                counts.push((sample.positive.len(), sample.negative.len()));
                documents.extend(sample.positive);
                documents.extend(sample.negative);
            }
        }
        if queries.is_empty() {
            return Err(Error::data(format!("none of the {all} queries has both positive and negative documents")));
        }
        Ok(Self { settings, queries, documents, counts })
    }

    /// MAP, MRR and NDCG of one query.
    fn measure(&self, scores: &[f32], positives: usize) -> [f64; 3] {
        let relevant: Vec<bool> = (0..scores.len()).map(|i| i < positives).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let ranked: Vec<bool> = order.iter().map(|i| relevant[*i]).collect();
        let exact: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
        [
            classification::average_precision(&exact, &relevant),
            ranking::reciprocal_rank(&ranked, self.settings.at_k),
            ranking::ndcg_of_scores(scores, &relevant, self.settings.at_k),
        ]
    }

    /// The queries by NDCG, with what stands first for each.
    fn look(&self, key: &str, similarity: Similarity, ndcg: &[f64], scores: &[f32]) -> Look {
        let firsts: Vec<usize> = self
            .counts
            .iter()
            .scan(0, |next, (positives, negatives)| Some(std::mem::replace(next, *next + positives + negatives)))
            .collect();
        let mut look = Look::new(key, format!("nDCG@{}", self.settings.at_k), &shared::RANKED, self.queries.len());
        for query in look.chosen() {
            let (first, (positives, negatives)) = (firsts[query], self.counts[query]);
            let own = first..first + positives + negatives;
            let top = own.clone().max_by(|a, b| scores[*a].total_cmp(&scores[*b]).then(b.cmp(a))).unwrap_or(first);
            look.push(ndcg[query], &[&self.queries[query], &self.documents[first], &self.documents[top]]);
        }
        let positive = firsts.iter().zip(&self.counts).flat_map(|(first, (positives, negatives))| {
            (*first..first + positives + negatives).map(move |i| (i, i < first + positives))
        });
        let name = shared::scored_by(similarity);
        look.with_scores(Scores::new(
            name,
            shared::DOCUMENTS.map(str::to_owned),
            positive.map(|(i, is)| (scores[i], is)),
        ))
    }
}

impl Evaluator for RerankingEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let dim = self.settings.truncate_dim;
        let similarity = match model.multi_vector() {
            // token by token there is no choice but the model's
            Some(_) => model.similarity_fn_name().parse()?,
            None => self.settings.similarity_fct,
        };
        let queries = shared::embed_rows(model, &self.queries, Some(QUERY), dim)?;
        let documents = shared::embed_rows(model, &self.documents, Some(DOCUMENT), dim)?;
        let mut first = 0;
        let (mut values, mut all) = (<[Vec<f64>; 3]>::default(), Vec::with_capacity(documents.rows()));
        for (query, counts) in self.counts.iter().enumerate() {
            let rows: Vec<usize> = (first..first + counts.0 + counts.1).collect();
            let scores = queries.pairwise(similarity, &vec![query; rows.len()], &documents, &rows);
            let measured = self.measure(&scores, counts.0);
            all.extend(scores);
            values.iter_mut().zip(measured).for_each(|(list, value)| list.push(value));
            first += rows.len();
        }
        let mut metrics = Metrics { primary: self.primary_key(model.similarity_fn_name()), ..Default::default() };
        for (key, list) in self.settings.three().into_iter().zip(&values) {
            metrics.push(key, list.iter().sum::<f64>() / list.len() as f64);
        }
        let [_, _, ndcg] = values;
        if model.looked_at() {
            metrics.looks.push(self.look(&metrics.primary, similarity, &ndcg, &all));
        }
        metrics.push_sample(Statistic::Mean, Vec::new(), vec![ndcg]);
        Ok(metrics)
    }
}

impl FromData for RerankingEvaluator {
    type Settings = RerankingSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::Reranking;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::Reranking(samples) => Some(Self::new(samples, settings)),
            _ => None,
        }
    }
}
