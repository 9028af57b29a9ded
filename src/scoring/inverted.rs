//! Exact search in sparse embeddings: for every dimension the rows that have it.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::blocks::Hit;
use crate::flow::SparseEmbeddings;

/// The rows of each dimension with their values.
pub struct InvertedIndex {
    /// `[dim]`: row and value, rows ascending.
    lists: Vec<Vec<(u32, f32)>>,
    rows: usize,
    cosine: bool,
}

impl InvertedIndex {
    /// Of all rows; with `cosine` each row is divided by its length first.
    #[must_use]
    pub fn new(documents: &SparseEmbeddings, cosine: bool) -> Self {
        let mut lists = vec![Vec::new(); documents.dim()];
        for row in 0..documents.rows() {
            let (indices, values) = documents.row(row);
            let scale = if cosine { 1.0 / length(values) } else { 1.0 };
            for (index, value) in indices.iter().zip(values) {
                lists[*index as usize].push((row as u32, value * scale));
            }
        }
        Self { lists, rows: documents.rows(), cosine }
    }

    /// Of the rows of each dimension with their values, rows ascending.
    #[must_use]
    pub fn of_lists(lists: Vec<Vec<(u32, f32)>>, rows: usize) -> Self {
        Self { lists, rows, cosine: false }
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many rows have a dimension.
    #[must_use]
    pub fn having(&self, dimension: u32) -> usize {
        self.lists.get(dimension as usize).map_or(0, Vec::len)
    }

    /// The `k` rows with the largest scores for each query, best first, equal ones in the order of the rows. Rows that
    /// have nothing in common with a query score 0, and follow.
    #[must_use]
    pub fn search(&self, queries: &SparseEmbeddings, k: usize) -> Vec<Vec<Hit>> {
        let best = |query: usize| {
            let (indices, values) = queries.row(query);
            let scale = if self.cosine { 1.0 / length(values) } else { 1.0 };
            let mut scores = vec![0.0f32; self.rows];
            for (index, value) in indices.iter().zip(values) {
                let list = self.lists.get(*index as usize).map_or(&[][..], Vec::as_slice);
                for (row, other) in list {
                    scores[*row as usize] += value * scale * other;
                }
            }
            let mut hits: Vec<Hit> = (0u32..).zip(scores).map(|(rank, score)| Hit { score, rank }).collect();
            let order = |a: &Hit, b: &Hit| -> Ordering { b.score.total_cmp(&a.score).then(a.rank.cmp(&b.rank)) };
            if k < hits.len() && k > 0 {
                hits.select_nth_unstable_by(k - 1, order);
                hits.truncate(k);
            }
            hits.sort_unstable_by(order);
            hits.truncate(k);
            hits
        };
        (0..queries.rows()).into_par_iter().map(best).collect()
    }
}

fn length(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    (sum.sqrt() as f32).max(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::Similarity;
    use crate::scoring::blocks::Search;
    use crate::util::seed::Rng;

    fn random(rng: &mut Rng, rows: usize, dim: usize) -> SparseEmbeddings {
        let mut embeddings = SparseEmbeddings::new(dim);
        for _ in 0..rows {
            // few values, so that scores are often equal
            let value = |rng: &mut Rng| if rng.below(5) == 0 { 1.0 + rng.below(3) as f32 } else { 0.0 };
            let row: Vec<f32> = (0..dim).map(|_| value(rng)).collect();
            embeddings.push(&row, None);
        }
        embeddings
    }

    #[test]
    fn finds_what_comparing_with_all_finds() {
        let mut rng = Rng::new(3);
        for (rows, dim, k) in [(1, 4, 3), (40, 12, 5), (300, 30, 17), (25, 9, 25)] {
            let (documents, queries) = (random(&mut rng, rows, dim), random(&mut rng, 7, dim));
            let ranks: Vec<u32> = (0..rows as u32).collect();
            for (similarity, cosine) in [(Similarity::Dot, false), (Similarity::Cosine, true)] {
                let found = InvertedIndex::new(&documents, cosine).search(&queries, k);
                let mut search = Search::new(similarity, queries.to_dense(), k);
                search.add(documents.to_dense(), &ranks);
                for (got, want) in found.iter().zip(search.finish()) {
                    assert_eq!(got.len(), want.len());
                    for (a, b) in got.iter().zip(&want) {
                        assert!((a.score - b.score).abs() < 1e-5, "{got:?} {want:?}");
                        assert!(cosine || a.rank == b.rank, "{got:?} {want:?}");
                    }
                }
            }
        }
        assert!(InvertedIndex::new(&random(&mut rng, 3, 4), false).search(&random(&mut rng, 1, 4), 0)[0].is_empty());
    }
}
