//! Similarities of host embeddings, for evaluation: pairs, blocks of a matrix, and exact top-k search.
//!
//! Values are f32 as in the reference. Cosines and dot products of blocks come from matrix products; the blocks have
//! fixed sizes, so that a score does not depend on how many threads there are.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use super::Similarity;
use crate::flow::Embeddings;

/// Queries in a block.
const QUERY_BLOCK: usize = 32;
/// Documents in a block: 32 * 512 scores of 4 bytes lie in the second-level cache.
const DOCUMENT_BLOCK: usize = 512;

/// The similarity of each row of `a` to the same row of `b`, accumulated in f64; rows beyond the shorter are left out.
#[must_use]
pub fn pairwise(similarity: Similarity, a: &Embeddings, b: &Embeddings) -> Vec<f32> {
    (0..a.rows().min(b.rows())).into_par_iter().map(|i| pair(similarity, a.row(i), b.row(i))).collect()
}

pub(super) fn pair(similarity: Similarity, a: &[f32], b: &[f32]) -> f32 {
    let sum =
        |term: fn(f64, f64) -> f64| -> f64 { a.iter().zip(b).map(|(x, y)| term(f64::from(*x), f64::from(*y))).sum() };
    let value = match similarity {
        Similarity::Cosine => {
            let eps = super::cosine::NORMALIZE_EPS;
            let a_norm = sum(|x, _| x * x).sqrt().max(eps);
            let b_norm = sum(|_, y| y * y).sqrt().max(eps);
            sum(|x, y| x * y) / (a_norm * b_norm)
        }
        Similarity::Dot | Similarity::MaxSim | Similarity::MeanMaxSim => sum(|x, y| x * y),
        Similarity::Euclidean => -sum(|x, y| (x - y) * (x - y)).sqrt(),
        Similarity::Manhattan => -sum(|x, y| (x - y).abs()),
    };
    value as f32
}

/// What has to be done once to embeddings that go into [`Search`]: cosine normalises, the others nothing.
#[must_use]
pub fn prepare(similarity: Similarity, embeddings: Embeddings) -> Embeddings {
    match similarity {
        Similarity::Cosine => embeddings.normalized(),
        _ => embeddings,
    }
}

/// All similarities of two blocks of prepared embeddings: `[n, dim]` and `[m, dim]` to `[n, m]`, written to `scores`.
pub(super) fn block(similarity: Similarity, dim: usize, a: &[f32], b: &[f32], scores: &mut Vec<f32>) {
    let (n, m) = (a.len() / dim.max(1), b.len() / dim.max(1));
    scores.clear();
    scores.resize(n * m, 0.0);
    match similarity {
        Similarity::Cosine | Similarity::Dot | Similarity::MaxSim | Similarity::MeanMaxSim => {
            matrix_product(n, m, dim, a, b, scores);
        }
        Similarity::Euclidean | Similarity::Manhattan if dim > 0 => {
            for (row, out) in a.chunks_exact(dim).zip(scores.chunks_exact_mut(m.max(1))) {
                for (other, score) in b.chunks_exact(dim).zip(out) {
                    *score = match similarity {
                        Similarity::Euclidean => -sum_of_differences(row, other, |d| d * d).sqrt(),
                        _ => -sum_of_differences(row, other, f32::abs),
                    };
                }
            }
        }
        Similarity::Euclidean | Similarity::Manhattan => {}
    }
}

/// `sum(term(a_i - b_i))` in eight partial sums, which the compiler keeps in vector registers.
#[inline(always)]
fn sum_of_differences(a: &[f32], b: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut partial = [0.0f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| term(x - y)).sum();
    for (a, b) in a.zip(b) {
        for (sum, (x, y)) in partial.iter_mut().zip(a.iter().zip(b)) {
            *sum += term(x - y);
        }
    }
    partial.iter().sum::<f32>() + rest
}

fn matrix_product(n: usize, m: usize, dim: usize, a: &[f32], b: &[f32], scores: &mut [f32]) {
    assert!(a.len() >= n * dim && b.len() >= m * dim && scores.len() >= n * m);
    // SAFETY: the strides describe row-major matrices [n, dim], [m, dim] (read as its transpose) and [n, m], and the
    // assertion above says that the slices hold them; `scores` is borrowed mutably, so nothing overlaps it.
    unsafe {
        gemm::gemm(
            n,
            m,
            dim,
            scores.as_mut_ptr(),
            1,
            m as isize,
            false,
            a.as_ptr(),
            1,
            dim as isize,
            b.as_ptr(),
            dim as isize,
            1,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// A found document. Ordered best first: higher score, then lower rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Its similarity to the query.
    pub score: f32,
    /// Its number in a fixed order of all documents, which breaks ties.
    pub rank: u32,
}

impl Eq for Hit {}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        // `-0.0 == 0.0` has to be a tie; NaN, which callers keep out, still gets a place.
        let order = other.score.partial_cmp(&self.score).unwrap_or_else(|| other.score.total_cmp(&self.score));
        order.then(self.rank.cmp(&other.rank))
    }
}

/// Keeps the best `k` documents of each query while the documents pass by in chunks.
///
/// Memory is `queries * k` hits, whatever the number of documents. Which hits are kept and their order follow from
/// the total order of [`Hit`] alone: not from the chunks, the blocks or the threads.
#[derive(Debug)]
pub struct Search {
    similarity: Similarity,
    k: usize,
    queries: Embeddings,
    // The worst hit is on top.
    heaps: Vec<BinaryHeap<Hit>>,
}

impl Search {
    /// A search for the `k` best documents of each of the queries.
    #[must_use]
    pub fn new(similarity: Similarity, queries: Embeddings, k: usize) -> Self {
        let heaps = vec![BinaryHeap::new(); queries.rows()];
        Self { similarity, k, queries: prepare(similarity, queries), heaps }
    }

    /// Lets a chunk of documents pass; `ranks[i]` is the rank of row `i`.
    ///
    /// Rows without a rank, and chunks of another width than the queries', are left out.
    pub fn add(&mut self, documents: Embeddings, ranks: &[u32]) {
        self.add_prepared(&prepare(self.similarity, documents), ranks);
    }

    /// As [`Self::add`], for documents that went through [`prepare`].
    pub fn add_prepared(&mut self, documents: &Embeddings, ranks: &[u32]) {
        let dim = self.queries.dim();
        if self.k == 0 || dim == 0 || documents.dim() != dim {
            return;
        }
        let (similarity, k, queries) = (self.similarity, self.k, self.queries.data());
        // With few queries the threads share the documents, each span with heaps of its own.
        let query_blocks = self.heaps.len().div_ceil(QUERY_BLOCK);
        let spans = (2 * rayon::current_num_threads()).div_ceil(query_blocks.max(1)).max(1);
        let span = documents.rows().div_ceil(spans).div_ceil(DOCUMENT_BLOCK).max(1) * DOCUMENT_BLOCK;
        let documents = documents.data();
        self.heaps.par_chunks_mut(QUERY_BLOCK).zip(queries.par_chunks(QUERY_BLOCK * dim)).for_each(
            |(heaps, queries)| {
                let found: Vec<Vec<BinaryHeap<Hit>>> = documents
                    .par_chunks(span * dim)
                    .zip(ranks.par_chunks(span))
                    .map(|(documents, ranks)| {
                        let mut scores = Vec::new();
                        let mut best = vec![BinaryHeap::new(); heaps.len()];
                        for (documents, ranks) in
                            documents.chunks(DOCUMENT_BLOCK * dim).zip(ranks.chunks(DOCUMENT_BLOCK))
                        {
                            block(similarity, dim, queries, documents, &mut scores);
                            let columns = documents.len() / dim;
                            for (heap, row) in best.iter_mut().zip(scores.chunks(columns.max(1))) {
                                for (score, rank) in row.iter().zip(ranks) {
                                    keep(heap, k, Hit { score: *score, rank: *rank });
                                }
                            }
                        }
                        best
                    })
                    .collect();
                for best in found {
                    for (heap, hits) in heaps.iter_mut().zip(best) {
                        hits.into_iter().for_each(|hit| keep(heap, k, hit));
                    }
                }
            },
        );
    }

    /// The hits of each query, best first.
    #[must_use]
    pub fn finish(self) -> Vec<Vec<Hit>> {
        self.heaps.into_par_iter().map(BinaryHeap::into_sorted_vec).collect()
    }
}

/// Puts `hit` on the heap if it belongs to the best `k`.
pub(super) fn keep(heap: &mut BinaryHeap<Hit>, k: usize, hit: Hit) {
    if heap.len() < k {
        heap.push(hit);
    } else if let Some(mut worst) = heap.peek_mut()
        && hit < *worst
    {
        *worst = hit;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::util::seed::Rng;

    fn random(rows: usize, dim: usize, seed: u64) -> Embeddings {
        let mut rng = Rng::new(seed);
        Embeddings::new(dim, (0..rows * dim).map(|_| rng.normal() as f32).collect())
    }

    /// Every pair scored alone, sorted whole.
    fn by_hand(similarity: Similarity, queries: &Embeddings, documents: &Embeddings, k: usize) -> Vec<Vec<Hit>> {
        (0..queries.rows())
            .map(|q| {
                let mut hits: Vec<Hit> = (0..documents.rows())
                    .map(|d| Hit { score: pair(similarity, queries.row(q), documents.row(d)), rank: d as u32 })
                    .collect();
                hits.sort();
                hits.truncate(k);
                hits
            })
            .collect()
    }

    #[test]
    fn search_finds_what_sorting_finds() {
        for (similarity, queries) in Similarity::ALL.into_iter().zip([3, 33, 70, 1]) {
            let (queries, documents) = (random(queries, 12, 1), random(1300, 12, 2));
            let ranks: Vec<u32> = (0..1300).collect();
            for chunk in [1300, 700, 37] {
                let mut search = Search::new(similarity, queries.clone(), 25);
                for rows in ranks.chunks(chunk) {
                    let numbers: Vec<usize> = rows.iter().map(|r| *r as usize).collect();
                    search.add(documents.select(&numbers), rows);
                }
                let found = search.finish();
                let expected = by_hand(similarity, &queries, &documents, 25);
                for (found, expected) in found.iter().zip(&expected) {
                    let numbers = |hits: &[Hit]| hits.iter().map(|h| h.rank).collect::<Vec<_>>();
                    assert_eq!(numbers(found), numbers(expected), "{similarity} by {chunk}");
                    assert!(found.iter().zip(expected).all(|(a, b)| (a.score - b.score).abs() < 1e-5));
                }
            }
        }
    }

    #[test]
    fn ties_go_to_the_lower_rank_and_short_corpora_are_fine() {
        let documents = Embeddings::new(2, [[1.0f32, 0.0], [0.0, 1.0]].repeat(4).concat());
        let mut search = Search::new(Similarity::Dot, Embeddings::new(2, vec![1.0, 0.0]), 3);
        search.add(documents.clone(), &[7, 6, 5, 4, 3, 2, 1, 0]);
        let ranks: Vec<u32> = search.finish()[0].iter().map(|h| h.rank).collect();
        assert_eq!(ranks, [1, 3, 5]);
        let mut search = Search::new(Similarity::Dot, Embeddings::new(2, vec![1.0, 0.0]), 100);
        search.add(documents, &[7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(search.finish()[0].len(), 8);
    }

    #[test]
    fn pairs_have_the_references_values() {
        let (a, b) = (Embeddings::new(2, vec![3.0, 4.0, 0.0, 0.0]), Embeddings::new(2, vec![4.0, 3.0, 1.0, 0.0]));
        let values: Vec<f32> = Similarity::ALL.iter().flat_map(|s| pairwise(*s, &a, &b)).collect();
        let root = -(2.0f32.sqrt());
        assert_eq!(values, [0.96, 0.0, 24.0, 0.0, root, -1.0, -2.0, -1.0]);
    }
}
