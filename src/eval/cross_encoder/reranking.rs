//! CrossEncoderRerankingEvaluator: do the documents that answer a query come before those that do not?

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{predict, ranker};
use crate::error::{Error, Result};
use crate::eval::metrics::{classification, ranking};
use crate::eval::shared::{self, prefixed};
use crate::eval::{Csv, DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::flow::{Card, Embeddings, Encode, LabelKind, Look, Metrics, ModelType, Scores, Statistic};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::CrossEncoder],
    inputs: &[
        "queries, each with a list of positive and one of negative documents",
        "queries, each with positive documents and the documents a search found, best first",
        "(query, passage) pairs with labels",
    ],
    columns: (2, 3),
    labels: LabelKind::Int,
    gotchas: &[
        "With `documents` it also gives the order they came in as `base_` metrics: what reranking adds is the difference.",
        "`always_rerank_positives = true` adds positives that the search did not find, which flatters the whole pipeline; \
         set it to false to measure that.",
        "Easy negatives give values near 1 that hide progress.",
    ],
    paper: "https://arxiv.org/abs/2104.08663",
    ..Card::new("CrossEncoderRerankingEvaluator", "Reranking the documents of each query: MAP, MRR, NDCG.")
};

/// A query with what is to be put in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// The query.
    pub query: String,
    /// Documents that answer it.
    pub positive: Vec<String>,
    /// The others.
    pub others: Others,
}

/// What a query's positives are ranked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Others {
    /// Documents that do not answer it.
    Negative(Vec<String>),
    /// What a search found for it, best first, positives among them.
    Documents(Vec<String>),
}

impl Default for Others {
    fn default() -> Self {
        Self::Negative(Vec::new())
    }
}

/// What a recipe may set of a [`CrossEncoderRerankingEvaluator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PairRerankingSettings {
    /// The prefix of the metrics' keys.
    pub name: String,
    /// MRR and NDCG look at the first documents only, so many of them.
    #[serde(alias = "mrr_at_k")]
    pub at_k: usize,
    /// Whether positives that are not among a query's `documents` are ranked with them.
    pub always_rerank_positives: bool,
    /// The model's prompt of that name; its default one when left out.
    pub prompt_name: Option<String>,
    /// Whether a run keeps a CSV file with a row an evaluation; it does when left out.
    pub write_csv: Option<bool>,
}

impl Default for PairRerankingSettings {
    fn default() -> Self {
        Self { name: String::new(), at_k: 10, always_rerank_positives: true, prompt_name: None, write_csv: None }
    }
}

impl Settings for PairRerankingSettings {
    fn validate(&self) -> Result<()> {
        if self.at_k == 0 {
            return Err(Error::usage("`at_k` must be at least 1, got 0"));
        }
        Ok(())
    }
}

impl PairRerankingSettings {
    /// The keys of MAP, MRR and NDCG, with `before` in front of each.
    fn three(&self, before: &str) -> [String; 3] {
        let k = self.at_k;
        [format!("{before}map"), format!("{before}mrr@{k}"), format!("{before}ndcg@{k}")]
            .map(|key| prefixed(&self.name, &key))
    }

    /// The keys there will be: those of the order the documents came in only where there are such.
    pub(super) fn all(&self, base: bool) -> Vec<String> {
        let base = if base { self.three("base_").to_vec() } else { Vec::new() };
        self.three("").into_iter().chain(base).collect()
    }

    /// A CSV file with the three.
    pub(super) fn csv_file(&self, file: String) -> Vec<Csv> {
        let (k, [map, mrr, ndcg]) = (self.at_k, self.three(""));
        let csv = Csv::new(self.write_csv, file);
        csv.map(|csv| csv.column("MAP", map).column(format!("MRR@{k}"), mrr).column(format!("NDCG@{k}"), ndcg))
            .into_iter()
            .collect()
    }
}

impl EvaluatorSettings for PairRerankingSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn primary_key(&self, _: &str) -> String {
        let [_, _, ndcg] = self.three("");
        ndcg
    }

    /// Without data those that there are in any case.
    fn keys(&self, _: &str) -> Vec<String> {
        self.all(false)
    }

    fn csv(&self, _: &str) -> Vec<Csv> {
        let k = self.at_k;
        self.csv_file(format!("CrossEncoderRerankingEvaluator{}_results_@{k}.csv", shared::part(&self.name)))
    }
}

/// Puts the documents of each query in the order of their scores and measures where the positives stand.
///
/// Keys: `map`, `mrr@<k>`, `ndcg@<k>`, means over queries; where samples come with `documents`, what a search found, also
/// `base_map`, `base_mrr@<k>` and `base_ndcg@<k>` of their order. Primary: NDCG. A query of which no document to rank is
/// a positive counts as 0.
///
/// Documents of equal score share what their ranks are worth in MAP and NDCG; for MRR the later one comes first, so that
/// a model that scores all alike gets nothing for positives being listed first.
///
/// Source: `cross_encoder/evaluation/reranking.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [[evaluator]]
/// type = "CrossEncoderRerankingEvaluator"
/// path = "dev-rerank.jsonl"
/// ```
#[derive(Debug, Clone)]
pub struct CrossEncoderRerankingEvaluator {
    settings: PairRerankingSettings,
    queries: Vec<Query>,
}

/// A query, ready to be measured.
#[derive(Debug, Clone)]
struct Query {
    text: String,
    documents: Vec<String>,
    relevant: Vec<bool>,
    /// MAP, MRR and NDCG of the order that the documents came in.
    base: Option<[f64; 3]>,
}

impl CrossEncoderRerankingEvaluator {
    /// An evaluator of samples.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings; [`Error::Data`] when there is no sample, or none with a positive to rank.
    pub fn new(samples: Vec<Sample>, settings: PairRerankingSettings) -> Result<Self> {
        settings.validate()?;
        let queries: Vec<Query> = samples.into_iter().map(|sample| Query::new(sample, &settings)).collect();
        if !queries.iter().any(|query| query.relevant.contains(&true)) {
            return Err(Error::data(format!("none of the {} queries has a positive document to rank", queries.len()))
                .with_hint("a positive has the label 1, or stands in the list `positive`"));
        }
        Ok(Self { settings, queries })
    }

    /// Whether any sample came with documents in an order.
    fn has_base(&self) -> bool {
        self.queries.iter().any(|query| query.base.is_some())
    }

    /// MAP, MRR and NDCG of each query, and the scores of the documents of those that have a positive.
    fn measure(&self, model: &dyn Encode) -> Result<([Vec<f64>; 3], Embeddings)> {
        let ranked = || self.queries.iter().filter(|query| query.relevant.contains(&true));
        let pairs: Vec<(&str, &str)> = ranked()
            .flat_map(|query| query.documents.iter().map(|document| (query.text.as_str(), document.as_str())))
            .collect();
        let scores = predict(model, ranker(&CARD, model)?, &pairs, self.settings.prompt_name.as_deref())?;
        let (mut first, mut values) = (0, <[Vec<f64>; 3]>::default());
        for query in &self.queries {
            let mut three = [0.0; 3];
            if query.relevant.contains(&true) {
                let own = &scores.data()[first..first + query.documents.len()];
                three = measure(own, &query.relevant, self.settings.at_k);
                first += query.documents.len();
            }
            values.iter_mut().zip(three).for_each(|(list, value)| list.push(value));
        }
        Ok((values, scores))
    }

    /// The queries by NDCG, with what stands first for each.
    fn look(&self, key: &str, ndcg: &[f64], scores: &Embeddings) -> Look {
        let own: Vec<(usize, &Query)> =
            self.queries.iter().enumerate().filter(|(_, query)| query.relevant.contains(&true)).collect();
        let firsts: Vec<usize> = own
            .iter()
            .scan(0, |next, (_, query)| Some(std::mem::replace(next, *next + query.documents.len())))
            .collect();
        let mut look = Look::new(key, format!("nDCG@{}", self.settings.at_k), &shared::RANKED, own.len());
        for i in look.chosen() {
            let ((number, query), scores) = (own[i], &scores.data()[firsts[i]..]);
            let top = (0..query.documents.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]).then(b.cmp(a)));
            let wanted = query.relevant.iter().position(|relevant| *relevant);
            let text = |place: Option<usize>| place.map_or("", |place| query.documents[place].as_str());
            look.push(ndcg[number], &[&query.text, text(wanted), text(top)]);
        }
        let relevant = own.iter().flat_map(|(_, query)| &query.relevant);
        let pairs = scores.data().iter().zip(relevant).map(|(score, relevant)| (*score, *relevant));
        look.with_scores(Scores::new("score", shared::DOCUMENTS.map(str::to_owned), pairs))
    }
}

impl Query {
    fn new(sample: Sample, settings: &PairRerankingSettings) -> Self {
        let Sample { query: text, positive, others } = sample;
        let found = match others {
            Others::Negative(negative) => {
                let relevant = (0..positive.len() + negative.len()).map(|i| i < positive.len()).collect();
                return Self { text, documents: positive.into_iter().chain(negative).collect(), relevant, base: None };
            }
            Others::Documents(found) => found,
        };
        let known: HashSet<&str> = positive.iter().map(String::as_str).collect();
        let relevant: Vec<bool> = found.iter().map(|document| known.contains(document.as_str())).collect();
        let hits = relevant.iter().filter(|relevant| **relevant).count();
        let mut base = [0.0; 3];
        if hits > 0 {
            // Positives that were not found come last.
            let missed = positive.len().saturating_sub(hits);
            let listed: Vec<bool> = relevant.iter().copied().chain(std::iter::repeat_n(true, missed)).collect();
            let scores: Vec<f32> = (0..listed.len()).rev().map(|rank| rank as f32).collect();
            base = measure(&scores, &listed, settings.at_k);
        }
        if !settings.always_rerank_positives {
            return Self { text, documents: found, relevant, base: Some(base) };
        }
        let negative: Vec<String> =
            found.into_iter().zip(&relevant).filter(|(_, relevant)| !**relevant).map(|(text, _)| text).collect();
        let all = Self::new(Sample { query: text, positive, others: Others::Negative(negative) }, settings);
        Self { base: Some(base), ..all }
    }
}

/// MAP, MRR and NDCG of scored documents.
fn measure(scores: &[f32], relevant: &[bool], k: usize) -> [f64; 3] {
    let mut order: Vec<usize> = (0..scores.len()).rev().collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let ranked: Vec<bool> = order.iter().map(|i| relevant[*i]).collect();
    let exact: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
    [
        classification::average_precision(&exact, relevant),
        ranking::reciprocal_rank(&ranked, k),
        ranking::ndcg_of_scores(scores, relevant, k),
    ]
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

impl Evaluator for CrossEncoderRerankingEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let (values, scores) = self.measure(model)?;
        let mut metrics = Metrics { primary: self.primary_key(""), ..Metrics::default() };
        let base: Vec<[f64; 3]> = self.queries.iter().filter_map(|query| query.base).collect();
        let base = (0..3).filter(|_| !base.is_empty()).map(|i| mean(base.iter().map(|three| three[i])));
        let means = values.iter().map(|list| mean(list.iter().copied())).chain(base);
        for (key, value) in self.keys("").into_iter().zip(means) {
            metrics.push(key, value);
        }
        let [_, _, ndcg] = values;
        if model.looked_at() {
            metrics.looks.push(self.look(&metrics.primary, &ndcg, &scores));
        }
        metrics.push_sample(Statistic::Mean, Vec::new(), vec![ndcg]);
        Ok(metrics)
    }

    fn keys(&self, _: &str) -> Vec<String> {
        self.settings.all(self.has_base())
    }
}

impl FromData for CrossEncoderRerankingEvaluator {
    type Settings = PairRerankingSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::RankedDocuments;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::RankedDocuments(samples) => Some(Self::new(samples, settings)),
            _ => None,
        }
    }
}
