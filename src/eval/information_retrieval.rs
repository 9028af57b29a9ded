//! InformationRetrievalEvaluator: are the relevant documents found first?

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::ranking;
use super::shared::{self, DOCUMENT, QUERY, prefixed};
use super::{DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData};
use crate::error::{Error, Result};
use crate::flow::{Card, Encode, EncodeOptions, LabelKind, Metrics};
use crate::scoring::Similarity;
use crate::scoring::blocks::{Hit, Search};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["queries, a corpus and which documents are relevant to each query"],
    columns: (2, 2),
    labels: LabelKind::None,
    gotchas: &[
        "The corpus has to hold more than the relevant documents, or every model looks good.",
        "Evaluation queries and their documents must not be among the training rows.",
        "Queries without a relevant document are left out.",
    ],
    paper: "https://arxiv.org/abs/2104.08663",
    ..Card::new(
        "InformationRetrievalEvaluator",
        "Exact search in a corpus: NDCG, MRR, MAP, recall, precision, accuracy.",
    )
};

/// What a recipe may set of an [`InformationRetrievalEvaluator`].
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
    /// The name of the model's prompt for documents; `document`, `passage` or `corpus` when it has one.
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
    fn cut_offs(&self) -> [(&'static str, &[usize]); 5] {
        [
            ("accuracy_at_k", &self.accuracy_at_k),
            ("precision_recall_at_k", &self.precision_recall_at_k),
            ("ndcg_at_k", &self.ndcg_at_k),
            ("mrr_at_k", &self.mrr_at_k),
            ("map_at_k", &self.map_at_k),
        ]
    }

    /// The metrics in the order of their keys, each with its cut-off.
    fn metrics(&self) -> Vec<(Metric, usize)> {
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

    fn similarities(&self, model: &str) -> Result<Vec<Similarity>> {
        let named = self.score_functions.as_deref();
        shared::similarities(named, self.main_score_function, model)
    }

    fn key(&self, similarity: &str, metric: &str, k: usize) -> String {
        prefixed(&self.name, &format!("{similarity}_{metric}@{k}"))
    }

    fn ndcg_key(&self, similarity: &str) -> String {
        self.key(similarity, "ndcg", self.ndcg_at_k.iter().copied().max().unwrap_or_default())
    }
}

impl EvaluatorSettings for InformationRetrievalSettings {
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

#[derive(Debug, Clone, Copy)]
enum Metric {
    Accuracy,
    Precision,
    Recall,
    Ndcg,
    Mrr,
    Map,
}

impl Metric {
    fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::Ndcg => "ndcg",
            Self::Mrr => "mrr",
            Self::Map => "map",
        }
    }

    fn of(self, relevant: &[bool], k: usize, total: usize) -> f64 {
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

/// A query with what is relevant to it.
#[derive(Debug, Clone)]
struct Query {
    text: String,
    /// The ranks, ascending, of the relevant documents that the corpus holds.
    relevant: Vec<u32>,
    /// How many documents are relevant, those the corpus does not hold included.
    total: usize,
}

/// Searches a corpus with every query, exactly, and measures where the relevant documents stand.
///
/// Keys: `<similarity>_<metric>@<k>` with the metrics accuracy, precision, recall, ndcg, mrr, map. Primary:
/// `<similarity>_ndcg@<largest k>`. With several score functions and no main one it is the function that is best in
/// the first evaluation, and stays so for this evaluator, as in the reference; until then
/// [`primary_key`](Evaluator::primary_key) answers with the first of them by name.
///
/// Relevance is binary. Documents are ranked by falling score, those of equal score by rising id (code point order).
/// Queries without relevant documents are left out; relevant documents that the corpus lacks count as not found.
///
/// Memory: the embeddings of the queries and of `corpus_chunk_size` documents, and the best documents of each query.
///
/// Source: `evaluation/information_retrieval.py` of sentence-transformers.
#[derive(Debug)]
pub struct InformationRetrievalEvaluator {
    settings: InformationRetrievalSettings,
    queries: Vec<Query>,
    documents: Vec<String>,
    /// `[documents]`: the place of each in the order of ids.
    ranks: Vec<u32>,
    best: OnceLock<Similarity>,
}

impl InformationRetrievalEvaluator {
    /// An evaluator of `(id, text)` queries and documents and the ids of the relevant documents by query id.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings; [`Error::Data`] for ids that occur twice, an empty corpus, and when no query
    /// is left that has relevant documents, or the corpus holds none of them.
    pub fn new(
        queries: Vec<(String, String)>,
        corpus: Vec<(String, String)>,
        relevant: HashMap<String, HashSet<String>>,
        settings: InformationRetrievalSettings,
    ) -> Result<Self> {
        settings.validate()?;
        let mut order: Vec<usize> = (0..corpus.len()).collect();
        order.sort_by(|a, b| corpus[*a].0.cmp(&corpus[*b].0));
        if let Some(pair) = order.windows(2).find(|pair| corpus[pair[0]].0 == corpus[pair[1]].0) {
            return Err(Error::data(format!("document id `{}` occurs twice in the corpus", corpus[pair[0]].0)));
        }
        if u32::try_from(corpus.len()).is_err() {
            return Err(Error::data(format!("the corpus has {} documents, more than 2^32", corpus.len())));
        }
        let mut ranks = vec![0u32; corpus.len()];
        let mut by_id: HashMap<&str, u32> = HashMap::with_capacity(corpus.len());
        for (rank, document) in order.iter().enumerate() {
            ranks[*document] = rank as u32;
            by_id.insert(&corpus[*document].0, rank as u32);
        }

        let mut seen = HashSet::with_capacity(queries.len());
        let mut kept = Vec::new();
        for (id, text) in &queries {
            if !seen.insert(id.as_str()) {
                return Err(Error::data(format!("query id `{id}` occurs twice")));
            }
            let Some(documents) = relevant.get(id).filter(|documents| !documents.is_empty()) else {
                continue;
            };
            let mut found: Vec<u32> = documents.iter().filter_map(|id| by_id.get(id.as_str()).copied()).collect();
            found.sort_unstable();
            kept.push(Query { text: text.clone(), relevant: found, total: documents.len() });
        }
        if kept.is_empty() {
            return Err(Error::data(format!("none of the {} queries has a relevant document", queries.len()))
                .with_hint("the query ids of the relevance judgements must be those of the queries"));
        }
        if kept.iter().all(|query| query.relevant.is_empty()) {
            return Err(Error::data(format!(
                "none of the relevant documents is among the {} of the corpus",
                corpus.len()
            ))
            .with_hint("the document ids of the relevance judgements must be those of the corpus"));
        }
        let documents = corpus.into_iter().map(|(_, text)| text).collect();
        Ok(Self { settings, queries: kept, documents, ranks, best: OnceLock::new() })
    }

    /// How many queries are evaluated: those with relevant documents.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.queries.len()
    }

    /// How many documents are searched.
    #[must_use]
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// How many relevant documents the corpus does not hold, over all queries; they count as not found.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.queries.iter().map(|query| query.total - query.relevant.len()).sum()
    }

    /// The best documents of each query, by similarity function.
    fn search(&self, model: &dyn Encode, similarities: &[Similarity]) -> Result<Vec<Vec<Vec<Hit>>>> {
        let settings = &self.settings;
        let options = |given: &Option<String>, name: &Option<String>, role: &str| -> Result<EncodeOptions> {
            Ok(EncodeOptions {
                prompt: shared::prompt(model, given.as_deref(), name.as_deref(), role)?,
                task: Some(role.to_owned()),
                truncate_dim: settings.truncate_dim,
                ..Default::default()
            })
        };
        let for_queries = options(&settings.query_prompt, &settings.query_prompt_name, QUERY)?;
        let for_documents = options(&settings.corpus_prompt, &settings.corpus_prompt_name, DOCUMENT)?;

        let texts: Vec<&str> = self.queries.iter().map(|query| query.text.as_str()).collect();
        let queries = shared::encode(model, &texts, &for_queries)?;
        let dim = queries.dim();
        let k = settings.cut_offs().iter().flat_map(|(_, cut_offs)| cut_offs.iter().copied()).max().unwrap_or_default();
        let mut searches: Vec<Search> =
            similarities.iter().map(|similarity| Search::new(*similarity, queries.clone(), k)).collect();
        drop(queries);
        for (documents, ranks) in
            self.documents.chunks(settings.corpus_chunk_size).zip(self.ranks.chunks(settings.corpus_chunk_size))
        {
            let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
            let documents = shared::encode(model, &texts, &for_documents)?;
            if documents.dim() != dim {
                let text = format!("embeddings of documents have {} values, those of queries {dim}", documents.dim());
                return Err(Error::model(text));
            }
            if let Some((last, others)) = searches.split_last_mut() {
                others.iter_mut().for_each(|search| search.add(documents.clone(), ranks));
                last.add(documents, ranks);
            }
        }
        Ok(searches.into_iter().map(Search::finish).collect())
    }
}

impl Evaluator for InformationRetrievalEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn name(&self) -> &str {
        &self.settings.name
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let similarities = self.settings.similarities(model.similarity_fn_name())?;
        let metrics = self.settings.metrics();
        let mut result = Metrics::default();
        for (similarity, hits) in similarities.iter().zip(self.search(model, &similarities)?) {
            let values: Vec<Vec<f64>> = self
                .queries
                .par_iter()
                .zip(hits)
                .map(|(query, hits)| {
                    let relevant: Vec<bool> =
                        hits.iter().map(|hit| query.relevant.binary_search(&hit.rank).is_ok()).collect();
                    metrics.iter().map(|(metric, k)| metric.of(&relevant, *k, query.total)).collect()
                })
                .collect();
            for (column, (metric, k)) in metrics.iter().enumerate() {
                // Summed in the order of the queries, so that the number of threads does not matter.
                let sum: f64 = values.iter().map(|row| row[column]).sum();
                result.push(self.settings.key(similarity.name(), metric.name(), *k), sum / values.len() as f64);
            }
        }
        if self.settings.main_score_function.is_none() && similarities.len() > 1 {
            let mut names = similarities.clone();
            names.sort_by_key(|similarity| similarity.name());
            let score =
                |similarity: &Similarity| result.get(&self.settings.ndcg_key(similarity.name())).unwrap_or(f64::NAN);
            // The first by name among equals.
            let best = names.iter().copied().reduce(|best, next| if score(&next) > score(&best) { next } else { best });
            if let Some(best) = best {
                self.best.get_or_init(|| best);
            }
        }
        result.primary = self.primary_key(model.similarity_fn_name());
        Ok(result)
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        match self.best.get() {
            Some(best) => self.settings.ndcg_key(best.name()),
            None => self.settings.primary_key(similarity_fn_name),
        }
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        self.settings.keys(similarity_fn_name)
    }

    fn config(&self) -> serde_json::Value {
        self.settings.to_json()
    }
}

impl FromData for InformationRetrievalEvaluator {
    type Settings = InformationRetrievalSettings;
    const CARD: &'static Card = &CARD;
    const DATA: DataKind = DataKind::Retrieval;

    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>> {
        match data {
            EvaluationData::Retrieval { queries, corpus, relevant } => {
                Some(Self::new(queries, corpus, relevant, settings))
            }
            _ => None,
        }
    }
}
