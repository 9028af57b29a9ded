//! Embeddings of texts that are compared text by text, whatever they are: sparse ones are never filled up with zeros, and
//! of those with a vector for each token every text has its own number.

use rayon::prelude::*;

use super::Similarity;
use super::blocks::{self, Hit, Search};
use super::inverted::InvertedIndex;
use super::late::{self, LateSearch};
use crate::error::{Error, Result};
use crate::flow::{Embeddings, Encode, EncodeOptions, MultiVectors, SparseEmbeddings, embedding_not_finite};
use crate::ops::LateInteraction;

/// Rows of embeddings.
#[derive(Debug, Clone)]
pub enum Rows {
    /// A value for every dimension.
    Dense(Embeddings),
    /// Those that are not zero.
    Sparse(SparseEmbeddings),
    /// A vector for each token, compared by late interaction.
    Tokens(MultiVectors),
}

/// How texts with a vector for each token are scored; a similarity of single vectors names none.
fn scoring(similarity: Similarity) -> LateInteraction {
    late::scoring(similarity).unwrap_or(LateInteraction::MaxSim)
}

impl Rows {
    /// The embeddings of texts: sparse or with a vector for each token where the model's are.
    ///
    /// # Errors
    /// The model's, and as [`Rows::checked`].
    pub fn encode(model: &dyn Encode, texts: &[&str], options: &EncodeOptions) -> Result<Self> {
        if let Some(late) = model.multi_vector() {
            return Self::Tokens(late.encode_multi_vector(texts, options)?).checked(texts);
        }
        // cut or normalised ones are made of a whole row
        let rows = match model.sparse().filter(|_| options.truncate_dim.is_none() && !options.normalize) {
            Some(sparse) => Self::Sparse(sparse.encode_sparse(texts, options)?),
            None => Self::Dense(model.encode(texts, options)?),
        };
        rows.checked(texts)
    }

    /// Refuses what a model gave for texts if it is not one row a text, or not all numbers.
    ///
    /// # Errors
    /// [`Error::Model`] naming the first text whose embedding is not finite.
    pub fn checked(self, texts: &[&str]) -> Result<Self> {
        if self.rows() != texts.len() {
            return Err(Error::Internal(format!("{} texts gave {} embeddings", texts.len(), self.rows())));
        }
        match self.not_finite() {
            Some(row) => Err(embedding_not_finite(texts.get(row).copied().unwrap_or_default())),
            None => Ok(self),
        }
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense(rows) => rows.rows(),
            Self::Sparse(rows) => rows.rows(),
            Self::Tokens(texts) => texts.texts(),
        }
    }

    /// The width.
    #[must_use]
    pub fn dim(&self) -> usize {
        match self {
            Self::Dense(rows) => rows.dim(),
            Self::Sparse(rows) => rows.dim(),
            Self::Tokens(texts) => texts.dim(),
        }
    }

    /// The first row with a value that is no finite number.
    #[must_use]
    pub fn not_finite(&self) -> Option<usize> {
        match self {
            Self::Dense(rows) => rows.data().iter().position(|x| !x.is_finite()).map(|at| at / rows.dim().max(1)),
            Self::Sparse(rows) => rows.not_finite(),
            Self::Tokens(texts) => (0..texts.texts()).find(|i| texts.text(*i).iter().any(|value| !value.is_finite())),
        }
    }

    /// The similarity of row `a[i]` to row `b[i]` of `other`, for every `i`; accumulated in f64.
    #[must_use]
    pub fn pairwise(&self, similarity: Similarity, a: &[usize], other: &Self, b: &[usize]) -> Vec<f32> {
        let pairs = a.par_iter().zip(b);
        match (self, other) {
            (Self::Dense(x), Self::Dense(y)) => {
                pairs.map(|(i, j)| blocks::pair(similarity, x.row(*i), y.row(*j))).collect()
            }
            (Self::Sparse(x), Self::Sparse(y)) => {
                pairs.map(|(i, j)| sparse_pair(similarity, x.row(*i), y.row(*j))).collect()
            }
            (Self::Tokens(x), Self::Tokens(y)) => {
                pairs.map(|(i, j)| late::pair(scoring(similarity), (x, *i), (y, *j))).collect()
            }
            _ => pairs.map(|(i, j)| blocks::pair(similarity, &self.filled(*i), &other.filled(*j))).collect(),
        }
    }

    /// The similarity of each row to the same row of `other`; rows beyond the shorter are left out.
    #[must_use]
    pub fn pairs(&self, similarity: Similarity, other: &Self) -> Vec<f32> {
        let all: Vec<usize> = (0..self.rows().min(other.rows())).collect();
        self.pairwise(similarity, &all, other, &all)
    }

    /// Row `i` with its zeros; of a text with several vectors the first.
    #[must_use]
    pub fn filled(&self, i: usize) -> Vec<f32> {
        match self {
            Self::Dense(rows) => rows.row(i).to_vec(),
            Self::Sparse(rows) => {
                let mut filled = vec![0.0; rows.dim()];
                let (indices, values) = rows.row(i);
                indices.iter().zip(values).for_each(|(index, value)| filled[*index as usize] = *value);
                filled
            }
            Self::Tokens(texts) => texts.text(i).get(..texts.dim()).unwrap_or_default().to_vec(),
        }
    }

    /// Some of the rows, in the order asked for; those that do not exist are left out.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let rows: Vec<usize> = rows.iter().copied().filter(|row| *row < self.rows()).collect();
        match self {
            Self::Dense(all) => {
                let data = rows.iter().flat_map(|row| all.row(*row)).copied().collect();
                Self::Dense(Embeddings::new(all.dim(), data))
            }
            Self::Sparse(all) => Self::Sparse(all.select(&rows)),
            Self::Tokens(all) => {
                let mut some = MultiVectors::new(all.dim());
                rows.iter().for_each(|row| some.push(all.text(*row)));
                Self::Tokens(some)
            }
        }
    }

    /// These rows, then those of `other`, which must be of the same kind and width.
    ///
    /// # Errors
    /// [`Error::Internal`] when they are not.
    pub fn followed_by(self, other: Self) -> Result<Self> {
        if self.dim() != other.dim() {
            return Err(Error::Internal(format!("rows of {} and {} values", self.dim(), other.dim())));
        }
        match (self, other) {
            (Self::Dense(a), Self::Dense(b)) => Ok(Self::Dense(a.followed_by(&b))),
            (Self::Sparse(mut a), Self::Sparse(b)) => {
                a.append(&b);
                Ok(Self::Sparse(a))
            }
            (Self::Tokens(mut a), Self::Tokens(b)) => {
                (0..b.texts()).for_each(|i| a.push(b.text(i)));
                Ok(Self::Tokens(a))
            }
            _ => Err(Error::Internal("rows of different kinds".to_owned())),
        }
    }

    /// For each row the `k` most similar ones of `other`, best first, equal ones in the order of their numbers.
    #[must_use]
    pub fn nearest(&self, similarity: Similarity, other: &Self, k: usize) -> Vec<Vec<Hit>> {
        let numbers: Vec<u32> = (0..).take(other.rows()).collect();
        let mut found = Finder::new(similarity, self.clone(), k);
        found.add(other.clone(), &numbers);
        found.finish()
    }
}

fn sparse_pair(similarity: Similarity, (a, x): (&[u32], &[f32]), (b, y): (&[u32], &[f32])) -> f32 {
    let square = |values: &[f32]| -> f64 { values.iter().map(|v| f64::from(*v).powi(2)).sum() };
    // what both have, and what only one of them has
    let (mut i, mut j, mut dot, mut squares, mut sum) = (0, 0, 0.0f64, 0.0f64, 0.0f64);
    while i < a.len() || j < b.len() {
        let (left, right) = (a.get(i).copied().unwrap_or(u32::MAX), b.get(j).copied().unwrap_or(u32::MAX));
        let first = if left <= right { f64::from(x[i]) } else { 0.0 };
        let second = if right <= left { f64::from(y[j]) } else { 0.0 };
        i += usize::from(left <= right);
        j += usize::from(right <= left);
        dot += first * second;
        squares += (first - second).powi(2);
        sum += (first - second).abs();
    }
    let value = match similarity {
        Similarity::Cosine => {
            let eps = super::cosine::NORMALIZE_EPS;
            dot / (square(x).sqrt().max(eps) * square(y).sqrt().max(eps))
        }
        Similarity::Dot | Similarity::MaxSim | Similarity::MeanMaxSim => dot,
        Similarity::Euclidean => -squares.sqrt(),
        Similarity::Manhattan => -sum,
    };
    value as f32
}

/// Rows that are filled up with zeros at a time, where an inverted index cannot help.
const FILLED: usize = 512;

/// Keeps the best documents of each query while documents pass by in chunks: [`Search`] for dense rows and for
/// distances, an [`InvertedIndex`] a chunk for dot products and cosines of sparse ones.
#[derive(Debug)]
pub struct Finder {
    k: usize,
    dim: usize,
    way: Way,
}

#[derive(Debug)]
enum Way {
    All(Search),
    Inverted { queries: SparseEmbeddings, cosine: bool, best: Vec<Vec<Hit>> },
    Late(LateSearch),
}

impl Finder {
    /// A search for the `k` best documents of each of the queries.
    #[must_use]
    pub fn new(similarity: Similarity, queries: Rows, k: usize) -> Self {
        let dim = queries.dim();
        let way = match (queries, similarity) {
            (Rows::Sparse(queries), Similarity::Dot | Similarity::Cosine) => Way::Inverted {
                best: vec![Vec::new(); queries.rows()],
                cosine: similarity == Similarity::Cosine,
                queries,
            },
            (Rows::Sparse(queries), _) => Way::All(Search::new(similarity, queries.to_dense(), k)),
            (Rows::Tokens(queries), _) => Way::Late(LateSearch::new(scoring(similarity), queries, k)),
            (Rows::Dense(queries), _) => Way::All(Search::new(similarity, queries, k)),
        };
        Self { k, dim, way }
    }

    /// Lets a chunk of documents pass; `ranks[i]` is the rank of row `i`.
    pub fn add(&mut self, documents: Rows, ranks: &[u32]) {
        if documents.dim() != self.dim {
            return;
        }
        match (&mut self.way, documents) {
            (Way::All(search), Rows::Dense(documents)) => search.add(documents, ranks),
            (Way::All(search), Rows::Sparse(documents)) => {
                let rows: Vec<usize> = (0..documents.rows().min(ranks.len())).collect();
                for (rows, ranks) in rows.chunks(FILLED).zip(ranks.chunks(FILLED)) {
                    search.add(documents.select(rows).to_dense(), ranks);
                }
            }
            (Way::Late(search), Rows::Tokens(documents)) => search.add(&documents, ranks),
            // embeddings of another kind than the queries' cannot be compared with them
            (Way::Late(_), _) | (_, Rows::Tokens(_)) => {}
            (Way::Inverted { queries, cosine, best }, documents) => {
                // equal scores go by rank, so the rows stand in that order
                let mut order: Vec<usize> = (0..documents.rows().min(ranks.len())).collect();
                order.sort_by_key(|row| ranks[*row]);
                let documents = match documents {
                    Rows::Sparse(documents) => documents.select(&order),
                    Rows::Dense(documents) => {
                        let mut sparse = SparseEmbeddings::new(documents.dim());
                        order.iter().for_each(|row| sparse.push(documents.row(*row), None));
                        sparse
                    }
                    Rows::Tokens(_) => return,
                };
                let found = InvertedIndex::new(&documents, *cosine).search(queries, self.k);
                for (best, found) in best.iter_mut().zip(found) {
                    best.extend(found.into_iter().map(|hit| Hit { rank: ranks[order[hit.rank as usize]], ..hit }));
                    best.sort_unstable();
                    best.truncate(self.k);
                }
            }
        }
    }

    /// The hits of each query, best first.
    #[must_use]
    pub fn finish(self) -> Vec<Vec<Hit>> {
        match self.way {
            Way::All(search) => search.finish(),
            Way::Inverted { best, .. } => best,
            Way::Late(search) => search.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::seed::Rng;

    fn both(rng: &mut Rng, rows: usize, dim: usize) -> (Rows, Rows) {
        let mut sparse = SparseEmbeddings::new(dim);
        for _ in 0..rows {
            let row: Vec<f32> =
                (0..dim).map(|_| if rng.below(4) == 0 { rng.below(4) as f32 - 1.0 } else { 0.0 }).collect();
            sparse.push(&row, None);
        }
        (Rows::Dense(sparse.to_dense()), Rows::Sparse(sparse))
    }

    #[test]
    fn sparse_rows_compare_as_dense_ones() {
        let mut rng = Rng::new(5);
        let ((dense_a, sparse_a), (dense_b, sparse_b)) = (both(&mut rng, 30, 20), both(&mut rng, 41, 20));
        for similarity in Similarity::ALL {
            let (want, got) = (dense_a.pairs(similarity, &dense_b), sparse_a.pairs(similarity, &sparse_b));
            let mixed = sparse_a.pairs(similarity, &dense_b);
            assert_eq!(want.len(), 30);
            for ((want, got), mixed) in want.iter().zip(&got).zip(&mixed) {
                assert!((want - got).abs() < 1e-6 && (want - mixed).abs() < 1e-6, "{similarity}: {want} {got} {mixed}");
            }
            // in two chunks whose rows stand in no order of their ranks
            let ranks: Vec<u32> = (0..41).map(|i| (i * 17) % 41).collect();
            let mut finder = Finder::new(similarity, sparse_a.clone(), 7);
            let mut plain = Finder::new(similarity, dense_a.clone(), 7);
            let (Rows::Sparse(rows), Rows::Dense(filled)) = (&sparse_b, &dense_b) else { unreachable!() };
            for part in [(0..25).collect::<Vec<usize>>(), (25..41).collect()] {
                let ranks: Vec<u32> = part.iter().map(|i| ranks[*i]).collect();
                finder.add(Rows::Sparse(rows.select(&part)), &ranks);
                plain.add(Rows::Dense(filled.select(&part)), &ranks);
            }
            for (got, want) in finder.finish().iter().zip(plain.finish()) {
                assert_eq!(got.len(), 7);
                for (a, b) in got.iter().zip(&want) {
                    assert!((a.score - b.score).abs() < 1e-5, "{similarity}: {got:?} {want:?}");
                    assert!(similarity == Similarity::Cosine || a.rank == b.rank, "{similarity}: {got:?} {want:?}");
                }
            }
        }
        assert_eq!(sparse_a.nearest(Similarity::Cosine, &sparse_a, 1).len(), 30);
    }

    #[test]
    fn values_that_are_no_numbers_are_found() {
        let mut sparse = SparseEmbeddings::new(3);
        sparse.push(&[0.0; 3], None);
        sparse.push(&[1.0, f32::NAN, 0.0], None);
        assert_eq!(Rows::Dense(sparse.to_dense()).not_finite(), Some(1));
        assert_eq!(Rows::Sparse(sparse).not_finite(), Some(1));
    }
}
