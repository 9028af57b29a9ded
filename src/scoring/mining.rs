//! The most similar pairs of one set of embeddings.

use super::Similarity;
use super::blocks::{Search, prepare};
use crate::flow::Embeddings;

/// Rows that are searched with at a time; bounds the memory for neighbours.
const QUERIES: usize = 4096;

/// Two rows and how similar they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The similarity.
    pub score: f32,
    /// The smaller row number.
    pub first: u32,
    /// The larger row number.
    pub second: u32,
}

/// The pairs of rows of which one is among the `top_k` nearest of the other, each once, the most similar `max_pairs` of
/// them, best first; equal scores by row numbers.
///
/// Exact: every row is compared with every other, a block at a time. Rows beyond 2^32 are left out.
///
/// Source: `util.paraphrase_mining_embeddings` of sentence-transformers, whose order of equal scores is not defined.
#[must_use]
pub fn pairs(similarity: Similarity, embeddings: Embeddings, top_k: usize, max_pairs: usize) -> Vec<Pair> {
    let prepared = prepare(similarity, embeddings);
    let rows: Vec<u32> = (0..=u32::MAX).take(prepared.rows()).collect();
    let mut found: Vec<Pair> = Vec::new();
    for queries in rows.chunks(QUERIES) {
        let numbers: Vec<usize> = queries.iter().map(|row| *row as usize).collect();
        let mut search = Search::new(similarity, prepared.select(&numbers), top_k.saturating_add(1));
        search.add_prepared(&prepared, &rows);
        for (query, hits) in queries.iter().zip(search.finish()) {
            let others = hits.into_iter().filter(|hit| hit.rank != *query).take(top_k);
            found.extend(others.map(|hit| Pair {
                score: hit.score,
                first: hit.rank.min(*query),
                second: hit.rank.max(*query),
            }));
        }
        if found.len() > max_pairs.saturating_mul(4).max(1 << 20) {
            keep(&mut found, max_pairs);
        }
    }
    keep(&mut found, max_pairs);
    found
}

/// Each pair once, the best `most` of them, in order.
fn keep(pairs: &mut Vec<Pair>, most: usize) {
    // Stable, so that of a pair found from both sides the first finding stays.
    pairs.sort_by_key(|pair| (pair.first, pair.second));
    pairs.dedup_by_key(|pair| (pair.first, pair.second));
    pairs.sort_by(|a, b| b.score.total_cmp(&a.score));
    pairs.truncate(most);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_once_best_first() {
        let rows = Embeddings::new(2, vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 1.0, 0.0]);
        let names = |top_k, most| -> Vec<(u32, u32)> {
            pairs(Similarity::Cosine, rows.clone(), top_k, most).iter().map(|p| (p.first, p.second)).collect()
        };
        assert_eq!(names(10, 100), [(0, 3), (0, 1), (1, 3), (1, 2), (0, 2), (2, 3)]);
        assert_eq!(names(10, 2), [(0, 3), (0, 1)]);
        assert_eq!(names(1, 100), [(0, 3), (0, 1), (1, 2)]);
        assert!(pairs(Similarity::Dot, Embeddings::default(), 3, 3).is_empty());
    }
}
