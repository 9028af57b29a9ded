//! What a dense evaluator's model does when it is a sparse one: it is watched, so that it can be told how sparse it is.

use std::cell::RefCell;

use super::super::shared;
use crate::error::Result;
use crate::flow::{Embeddings, Encode, EncodeOptions, EncodeSparse, SparseEmbeddings};

/// What is told of the embeddings: [`Told`] as a number, since only numbers may be constants of a type.
pub(super) const SEARCH: u8 = 0;
pub(super) const ALL: u8 = 1;
pub(super) const TRIPLETS: u8 = 2;
pub(super) const RANKING: u8 = 3;

/// Which embeddings are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Those of queries and of documents, and what a comparison of both costs.
    Search,
    /// None: the mean over all.
    All,
    /// Anchors, positives, negatives.
    Triplets,
    /// Those of queries and of documents.
    Ranking,
}

impl Told {
    pub(super) fn of(kind: u8) -> Self {
        match kind {
            SEARCH => Self::Search,
            TRIPLETS => Self::Triplets,
            RANKING => Self::Ranking,
            _ => Self::All,
        }
    }

    fn groups(self) -> &'static [&'static str] {
        match self {
            Self::Search | Self::Ranking => &["query_", "corpus_"],
            Self::All => &[""],
            Self::Triplets => &["anchor_", "positive_", "negative_"],
        }
    }

    /// Keys without the evaluator's name.
    pub(super) fn keys(self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for group in self.groups() {
            keys.extend([format!("{group}active_dims"), format!("{group}sparsity_ratio")]);
        }
        if self == Self::Search {
            keys.push("avg_flops".to_owned());
        }
        keys
    }
}

/// What was seen of the embeddings of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    rows: usize,
    dim: usize,
    /// The sum over calls of what is averaged: in a search over rows, else over calls.
    active: f64,
    ratio: f64,
    weight: f64,
    /// How many rows use each dimension; of searches only.
    used: Vec<u32>,
}

/// A model that is watched while it encodes.
pub(super) struct Watched<'a> {
    pub(super) model: &'a dyn Encode,
    pub(super) sparse: &'a dyn EncodeSparse,
    pub(super) max_active_dims: Option<usize>,
    pub(super) told: Told,
    pub(super) groups: RefCell<Vec<Seen>>,
}

impl Watched<'_> {
    fn see(&self, embeddings: &SparseEmbeddings, task: Option<&str>) {
        let mut groups = self.groups.borrow_mut();
        groups.resize(self.told.groups().len(), Seen::default());
        let group = match self.told {
            Told::Search | Told::Ranking => usize::from(task != Some(shared::QUERY)),
            Told::All => 0,
            // one call for each, in this order
            Told::Triplets => groups.iter().position(|seen| seen.rows == 0).unwrap_or(2),
        };
        let Some(seen) = groups.get_mut(group) else { return };
        // documents of a search come in blocks, all else in one call or in one each
        let weight = if self.told == Told::Search { embeddings.rows() as f64 } else { 1.0 };
        seen.rows += embeddings.rows();
        seen.dim = embeddings.dim();
        seen.active += weight * embeddings.active_dims();
        seen.ratio += weight * embeddings.sparsity_ratio();
        seen.weight += weight;
        if self.told == Told::Search {
            seen.used.resize(embeddings.dim(), 0);
            for row in 0..embeddings.rows() {
                for index in embeddings.row(row).0 {
                    seen.used[*index as usize] += 1;
                }
            }
        }
    }

    /// Keys without the evaluator's name, and values.
    pub(super) fn tell(&self) -> Vec<(String, f64)> {
        tell(self.told, &self.groups.borrow())
    }
}

/// What is told of groups.
pub(super) fn tell(told: Told, groups: &[Seen]) -> Vec<(String, f64)> {
    let mut values = Vec::new();
    for (group, seen) in told.groups().iter().zip(groups) {
        values.push((format!("{group}active_dims"), seen.active / seen.weight));
        values.push((format!("{group}sparsity_ratio"), seen.ratio / seen.weight));
    }
    if let (Told::Search, [queries, documents, ..]) = (told, groups) {
        let part = |count: &u32, seen: &Seen| f64::from(*count) / seen.rows.max(1) as f64;
        let both = queries.used.iter().zip(&documents.used);
        values.push(("avg_flops".to_owned(), both.map(|(q, d)| part(q, queries) * part(d, documents)).sum()));
    }
    values
}

impl Seen {
    /// Adds what was seen in another place.
    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.dim = other.dim;
        self.active += other.active;
        self.ratio += other.ratio;
        self.weight += other.weight;
        self.used.resize(other.used.len().max(self.used.len()), 0);
        self.used.iter_mut().zip(&other.used).for_each(|(sum, count)| *sum += count);
    }
}

impl Encode for Watched<'_> {
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
        Ok(self.encode_sparse(texts, options)?.to_dense())
    }

    fn sparse(&self) -> Option<&dyn EncodeSparse> {
        Some(self)
    }

    fn similarity_fn_name(&self) -> &str {
        self.model.similarity_fn_name()
    }

    fn named_prompt(&self, name: &str) -> Option<String> {
        self.model.named_prompt(name)
    }

    fn looked_at(&self) -> bool {
        self.model.looked_at()
    }
}

impl EncodeSparse for Watched<'_> {
    fn encode_sparse(&self, texts: &[&str], options: &EncodeOptions) -> Result<SparseEmbeddings> {
        let options = EncodeOptions { max_active_dims: self.max_active_dims, ..options.clone() };
        let embeddings = self.sparse.encode_sparse(texts, &options)?;
        self.see(&embeddings, options.task.as_deref());
        Ok(embeddings)
    }

    fn words(&self, dimensions: &[u32]) -> Vec<String> {
        self.sparse.words(dimensions)
    }
}
