//! What people can look at behind a search: queries with what was found first, and how relevant documents score beside
//! those that are found instead.

use std::collections::HashMap;

use super::InformationRetrievalEvaluator;
use crate::eval::shared;
use crate::flow::look::{Look, SCORES, Scores, spread};
use crate::scoring::Similarity;
use crate::scoring::blocks::Hit;
use crate::scoring::rows::Rows;

/// Queries whose pairs are scored; of more, so many at even distances.
const QUERIES: usize = 500;
/// Relevant documents of a query that are scored; of more, so many at even distances.
const RELEVANT: usize = SCORES / QUERIES;
/// Documents found first, of those that are not relevant, whose scores are kept of a query.
const OTHERS: usize = 10;

/// Scores the relevant documents of some queries while documents pass by.
pub(super) struct Relevant {
    similarities: Vec<Similarity>,
    /// The embeddings of the queries.
    queries: Rows,
    /// The queries, by number among these, that a document of that rank is relevant to.
    wanted: HashMap<u32, Vec<usize>>,
    /// By similarity function.
    scores: Vec<Vec<f32>>,
}

impl Relevant {
    pub(super) fn new(evaluator: &InformationRetrievalEvaluator, queries: &Rows, similarities: &[Similarity]) -> Self {
        let chosen = spread(evaluator.queries.len(), QUERIES);
        let mut wanted: HashMap<u32, Vec<usize>> = HashMap::new();
        for (number, query) in chosen.iter().enumerate() {
            let relevant = &evaluator.queries[*query].relevant;
            for place in spread(relevant.len(), RELEVANT) {
                wanted.entry(relevant[place]).or_default().push(number);
            }
        }
        let scores = vec![Vec::new(); similarities.len()];
        Self { similarities: similarities.to_vec(), queries: queries.select(&chosen), wanted, scores }
    }

    pub(super) fn see(&mut self, documents: &Rows, ranks: &[u32]) {
        let (mut queries, mut rows) = (Vec::new(), Vec::new());
        for (row, rank) in ranks.iter().enumerate() {
            for query in self.wanted.get(rank).into_iter().flatten() {
                queries.push(*query);
                rows.push(row);
            }
        }
        for (similarity, scores) in self.similarities.iter().zip(&mut self.scores) {
            scores.extend(self.queries.pairwise(*similarity, &queries, documents, &rows));
        }
    }

    /// By similarity function.
    pub(super) fn finish(self) -> Vec<Vec<f32>> {
        self.scores
    }
}

impl InformationRetrievalEvaluator {
    /// The queries by NDCG, with what was found first for each. `relevant` are scores of relevant documents.
    pub(super) fn look(
        &self,
        key: &str,
        similarity: Similarity,
        values: &[f64],
        found: &[Vec<Hit>],
        relevant: Vec<f32>,
    ) -> Look {
        let widest = self.settings.ndcg_at_k.iter().copied().max().unwrap_or_default();
        let mut look = Look::new(key, format!("nDCG@{widest}"), &shared::RANKED, self.queries.len());
        let mut places = vec![0; self.ranks.len()];
        self.ranks.iter().enumerate().for_each(|(document, rank)| places[*rank as usize] = document);
        let text = |rank: Option<u32>| rank.map_or("", |rank| self.documents[places[rank as usize]].as_str());
        for i in look.chosen() {
            let (query, hits) = (&self.queries[i], &found[i]);
            // of several relevant documents the one that was found first
            let hit = hits.iter().map(|hit| hit.rank).find(|rank| query.relevant.binary_search(rank).is_ok());
            let wanted = hit.or(query.relevant.first().copied());
            look.push(values[i], &[&query.text, text(wanted), text(hits.first().map(|hit| hit.rank))]);
        }
        let others = spread(self.queries.len(), QUERIES).into_iter().flat_map(|i| {
            let query = &self.queries[i];
            found[i].iter().filter(|hit| query.relevant.binary_search(&hit.rank).is_err()).take(OTHERS)
        });
        let others = others.map(|hit| (hit.score, false));
        let sides = ["relevant documents".to_owned(), "other documents that were found".to_owned()];
        let pairs = relevant.into_iter().map(|score| (score, true)).chain(others);
        look.with_scores(Scores { found: true, ..Scores::new(shared::scored_by(similarity), sides, pairs) })
    }
}
