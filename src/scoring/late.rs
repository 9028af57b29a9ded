//! Late interaction of host embeddings, for evaluation: pairs, one query with several documents, and exact search.

use std::collections::BinaryHeap;

use rayon::prelude::*;

use super::Similarity;
use super::blocks::{Hit, keep};
use crate::flow::MultiVectors;
use crate::ops::{LateInteraction, late_interaction_scores};

/// Documents whose scores are in memory at a time.
const DOCUMENTS: usize = 256;
/// Queries whose scores are in memory at a time.
const QUERIES: usize = 256;

/// The similarity functions of texts with a vector for each token; `None` for those of single vectors.
#[must_use]
pub fn scoring(similarity: Similarity) -> Option<LateInteraction> {
    match similarity {
        Similarity::MaxSim => Some(LateInteraction::MaxSim),
        Similarity::MeanMaxSim => Some(LateInteraction::MeanMaxSim),
        _ => None,
    }
}

/// The scores of all queries with all documents: `[queries, documents]`. Vectors of another width give none.
#[must_use]
pub fn all_pairs(scoring: LateInteraction, queries: &MultiVectors, documents: &MultiVectors) -> Vec<f32> {
    if queries.dim() != documents.dim() {
        return Vec::new();
    }
    let left = (queries.data(), queries.offsets());
    late_interaction_scores(left, (documents.data(), documents.offsets()), queries.dim(), scoring)
}

/// The score of a query with a document, by their numbers.
#[must_use]
pub fn pair(
    scoring: LateInteraction,
    (queries, i): (&MultiVectors, usize),
    (documents, j): (&MultiVectors, usize),
) -> f32 {
    let scores = all_pairs(scoring, &queries.part(i..i + 1), &documents.part(j..j + 1));
    scores.first().copied().unwrap_or(f32::NAN)
}

/// The score of each query with the document of its number; those beyond the shorter are left out.
#[must_use]
pub fn pairwise(scoring: LateInteraction, queries: &MultiVectors, documents: &MultiVectors) -> Vec<f32> {
    let all = (0..queries.texts().min(documents.texts())).into_par_iter();
    all.map(|i| pair(scoring, (queries, i), (documents, i))).collect()
}

/// Keeps the best `k` documents of each query while the documents pass by in chunks, as
/// [`Search`](super::blocks::Search) does with single vectors.
#[derive(Debug)]
pub struct LateSearch {
    scoring: LateInteraction,
    k: usize,
    queries: MultiVectors,
    heaps: Vec<BinaryHeap<Hit>>,
}

impl LateSearch {
    /// A search for the `k` best documents of each of the queries.
    #[must_use]
    pub fn new(scoring: LateInteraction, queries: MultiVectors, k: usize) -> Self {
        let heaps = vec![BinaryHeap::new(); queries.texts()];
        Self { scoring, k, queries, heaps }
    }

    /// Lets a chunk of documents pass; `ranks[i]` is the rank of document `i`.
    pub fn add(&mut self, documents: &MultiVectors, ranks: &[u32]) {
        if self.k == 0 {
            return;
        }
        for (number, ranks) in ranks.chunks(DOCUMENTS).enumerate() {
            let start = (number * DOCUMENTS).min(documents.texts());
            let end = (start + ranks.len()).min(documents.texts());
            let documents = documents.part(start..end);
            for (block, heaps) in self.heaps.chunks_mut(QUERIES).enumerate() {
                let first = block * QUERIES;
                let queries = self.queries.part(first..first + heaps.len());
                let scores = all_pairs(self.scoring, &queries, &documents);
                for (heap, row) in heaps.iter_mut().zip(scores.chunks((end - start).max(1))) {
                    for (score, rank) in row.iter().zip(ranks) {
                        keep(heap, self.k, Hit { score: *score, rank: *rank });
                    }
                }
            }
        }
    }

    /// The hits of each query, best first.
    #[must_use]
    pub fn finish(self) -> Vec<Vec<Hit>> {
        self.heaps.into_par_iter().map(BinaryHeap::into_sorted_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::util::seed::Rng;

    fn random(texts: usize, seed: u64) -> MultiVectors {
        let mut rng = Rng::new(seed);
        let mut all = MultiVectors::new(6);
        for _ in 0..texts {
            let count = 1 + rng.below(7) as usize;
            let values: Vec<f32> = (0..count * 6).map(|_| rng.normal() as f32).collect();
            all.push(&values);
        }
        all
    }

    #[test]
    fn search_finds_what_sorting_finds() {
        let (queries, documents) = (random(5, 1), random(700, 2));
        let score = |q: usize, d: usize| -> f32 {
            let vectors = |text: &[f32]| text.chunks(6).map(<[f32]>::to_vec).collect::<Vec<_>>();
            let best = |q: &Vec<f32>| {
                let dot = |d: &Vec<f32>| q.iter().zip(d).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                vectors(documents.text(d)).iter().map(dot).fold(f64::NEG_INFINITY, f64::max)
            };
            vectors(queries.text(q)).iter().map(best).sum::<f64>() as f32
        };
        let ranks: Vec<u32> = (0..700).collect();
        for chunk in [700, 300] {
            let mut search = LateSearch::new(LateInteraction::MaxSim, queries.clone(), 9);
            for ranks in ranks.chunks(chunk) {
                let first = ranks[0] as usize;
                search.add(&documents.part(first..first + ranks.len()), ranks);
            }
            for (q, hits) in search.finish().iter().enumerate() {
                let mut expected: Vec<Hit> = (0..700).map(|d| Hit { score: score(q, d), rank: d as u32 }).collect();
                expected.sort();
                for (hit, expected) in hits.iter().zip(&expected) {
                    assert_eq!(hit.rank, expected.rank);
                    assert!((hit.score - expected.score).abs() < 1e-4);
                }
                assert_eq!(hits.len(), 9);
            }
        }
        let pairs = pairwise(LateInteraction::MeanMaxSim, &queries, &documents);
        assert_eq!(pairs.len(), 5);
        for (i, pair) in pairs.iter().enumerate() {
            assert!((pair - score(i, i) / queries.vectors(i) as f32).abs() < 1e-4);
        }
    }
}
