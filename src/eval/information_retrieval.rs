//! InformationRetrievalEvaluator: are the relevant documents found first?

mod look;
mod settings;

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use rayon::prelude::*;
use serde_json::json;
pub use settings::InformationRetrievalSettings;
use settings::Metric;

use super::shared::{self, DOCUMENT, QUERY};
use super::{DataKind, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Document, Encode, EncodeOptions, LabelKind, Metrics, Statistic};
use crate::scoring::Similarity;
use crate::scoring::blocks::Hit;
use crate::scoring::rows::{Finder, Rows};
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

/// Documents whose vectors are in memory at a time, where each token has one: some 50 kB a document.
const LATE_CHUNK: usize = 2048;

/// By one similarity function: the best documents of each query, and scores of relevant documents.
type Found = (Vec<Vec<Hit>>, Vec<f32>);

/// A query with what is relevant to it.
#[derive(Debug, Clone)]
struct Query {
    id: String,
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
///
/// # Recipe
/// ```toml
/// [[evaluator]]
/// type = "InformationRetrievalEvaluator"
/// path = "beir-folder"
/// name = "dev"
/// ```
#[derive(Debug)]
pub struct InformationRetrievalEvaluator {
    settings: InformationRetrievalSettings,
    queries: Vec<Query>,
    documents: Vec<String>,
    /// `[documents]`: the place of each in the order of ids.
    ranks: Vec<u32>,
    /// The ids in their order, where predictions are wanted.
    ids: Vec<String>,
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
            kept.push(Query { id: id.clone(), text: text.clone(), relevant: found, total: documents.len() });
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
        let wanted = if settings.write_predictions { order.as_slice() } else { &[] };
        let ids = wanted.iter().map(|document| corpus[*document].0.clone()).collect();
        let documents = corpus.into_iter().map(|(_, text)| text).collect();
        Ok(Self { settings, queries: kept, documents, ranks, ids, best: OnceLock::new() })
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

    /// What was found for each query, a line each.
    fn predictions(&self, similarity: Similarity, found: &[Vec<Hit>]) -> Document {
        let lines = self.queries.iter().zip(found).map(|(query, hits)| {
            let hits = hits.iter().map(|hit| json!({"corpus_id": self.ids[hit.rank as usize], "score": hit.score}));
            let results: Vec<serde_json::Value> = hits.collect();
            format!("{}\n", json!({"query_id": query.id, "query": query.text, "results": results}))
        });
        let name = shared::part(&self.settings.name).replace(['/', '\\'], "_");
        let file = format!("Information-Retrieval_evaluation{name}_predictions_{similarity}.jsonl");
        Document { file, text: lines.collect() }
    }

    /// By similarity function the best documents of each query, and the scores of relevant documents.
    fn search(&self, model: &dyn Encode, similarities: &[Similarity]) -> Result<Vec<Found>> {
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
        let queries = Rows::encode(model, &texts, &for_queries)?;
        let dim = queries.dim();
        let k = settings.cut_offs().iter().flat_map(|(_, cut_offs)| cut_offs.iter().copied()).max().unwrap_or_default();
        let mut searches: Vec<Finder> =
            similarities.iter().map(|similarity| Finder::new(*similarity, queries.clone(), k)).collect();
        let mut relevant = model.looked_at().then(|| look::Relevant::new(self, &queries, similarities));
        drop(queries);
        let size = match model.multi_vector() {
            Some(_) => settings.corpus_chunk_size.min(LATE_CHUNK),
            None => settings.corpus_chunk_size,
        };
        for (documents, ranks) in self.documents.chunks(size).zip(self.ranks.chunks(size)) {
            let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
            let documents = Rows::encode(model, &texts, &for_documents)?;
            if documents.dim() != dim {
                let text = format!("embeddings of documents have {} values, those of queries {dim}", documents.dim());
                return Err(Error::model(text));
            }
            if let Some(relevant) = &mut relevant {
                relevant.see(&documents, ranks);
            }
            if let Some((last, others)) = searches.split_last_mut() {
                others.iter_mut().for_each(|search| search.add(documents.clone(), ranks));
                last.add(documents, ranks);
            }
        }
        let relevant = relevant.map_or_else(|| vec![Vec::new(); similarities.len()], look::Relevant::finish);
        Ok(searches.into_iter().map(Finder::finish).zip(relevant).collect())
    }
}

impl Evaluator for InformationRetrievalEvaluator {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let similarities = self.settings.similarities(model.similarity_fn_name())?;
        let metrics = self.settings.metrics();
        let mut result = Metrics::default();
        let widest = self.settings.ndcg_at_k.iter().copied().max().unwrap_or_default();
        for (similarity, (hits, relevant)) in similarities.iter().zip(self.search(model, &similarities)?) {
            if self.settings.write_predictions {
                result.documents.push(self.predictions(*similarity, &hits));
            }
            let values: Vec<Vec<f64>> = self
                .queries
                .par_iter()
                .zip(&hits)
                .map(|(query, hits)| {
                    let relevant: Vec<bool> =
                        hits.iter().map(|hit| query.relevant.binary_search(&hit.rank).is_ok()).collect();
                    metrics.iter().map(|(metric, k)| metric.of(&relevant, *k, query.total)).collect()
                })
                .collect();
            let judged = |(metric, k): &(Metric, usize)| matches!(metric, Metric::Ndcg) && *k == widest;
            if let Some(column) = metrics.iter().position(judged).filter(|_| model.looked_at()) {
                let ndcg: Vec<f64> = values.iter().map(|row| row[column]).collect();
                let key = self.settings.ndcg_key(similarity.name());
                result.looks.push(self.look(&key, *similarity, &ndcg, &hits, relevant));
            }
            for (column, (metric, k)) in metrics.iter().enumerate() {
                if matches!(metric, Metric::Ndcg) && *k == widest {
                    // Kept under its own key, since which function is primary is known at the end.
                    result.primary = self.settings.ndcg_key(similarity.name());
                    let items = values.iter().map(|row| row[column]).collect();
                    result.push_sample(Statistic::Mean, Vec::new(), vec![items]);
                }
                // Summed in the order of the queries, so that the number of threads does not matter.
                let sum: f64 = values.iter().map(|row| row[column]).sum();
                result.push(self.settings.key(similarity.name(), metric.name(), *k), sum / values.len() as f64);
            }
        }
        if let Some(best) = self.settings.best_of(model.similarity_fn_name(), &result) {
            self.best.get_or_init(|| best);
        }
        result.primary = self.primary_key(model.similarity_fn_name());
        Ok(result)
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        match self.best.get() {
            Some(best) => self.settings.ndcg_key(best.name()),
            None => EvaluatorSettings::primary_key(&self.settings, similarity_fn_name),
        }
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
