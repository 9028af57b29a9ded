//! The evaluators of sparse embeddings: those of dense ones, which also tell how sparse the embeddings are.
//!
//! Names, keys and columns of CSV files are those of sentence-transformers' `Sparse…Evaluator` classes. Each takes the
//! settings of its dense twin, and `max_active_dims`. The search is exact either way; embeddings are filled up with
//! zeros in blocks of bounded size.

use std::cell::RefCell;

use serde_json::{Map, Value};

use super::{Csv, Entry, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed, shared};
use crate::error::{Error, Result};
use crate::flow::{Card, Embeddings, Encode, EncodeOptions, EncodeSparse, Metrics, ModelType, SparseEmbeddings};
use crate::util::registry;

/// What is told of the embeddings: [`Told`] as a number, since only numbers may be constants of a type.
const SEARCH: u8 = 0;
const ALL: u8 = 1;
const TRIPLETS: u8 = 2;
const RANKING: u8 = 3;

/// Documents of a search whose embeddings are filled up at a time.
const CHUNK: u64 = 512;

/// Which embeddings are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
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
    fn of(kind: u8) -> Self {
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
    fn keys(self) -> Vec<String> {
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

/// The settings of a dense evaluator, and how many of the largest values are kept.
struct SparseSettings<S> {
    inner: S,
    max_active_dims: Option<usize>,
    told: Told,
}

impl<S: EvaluatorSettings> SparseSettings<S> {
    /// Reads `max_active_dims` itself and leaves the rest to the dense evaluator.
    fn read(name: &str, settings: &Map<String, Value>, told: Told) -> Result<(Self, S)> {
        let mut own = settings.clone();
        let max_active_dims = match own.shift_remove("max_active_dims") {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_u64().filter(|most| *most > 0) {
                Some(most) => Some(usize::try_from(most).unwrap_or(usize::MAX)),
                None => {
                    return Err(Error::usage(format!(
                        "`{name}` setting `max_active_dims`: {value} is no number above 0"
                    ))
                    .with_hint("leave it out to keep all"));
                }
            },
        };
        for key in ["truncate_dim", "precision"] {
            if own.get(key).is_some_and(|value| !value.is_null() && value != "float32") {
                return Err(Error::usage(format!("`{name}` setting `{key}`: it is for dense embeddings"))
                    .with_hint("leave it out; `max_active_dims` keeps the largest values"));
            }
        }
        let inner = registry::read_settings(name, &own)?;
        if told == Told::Search && !own.contains_key("corpus_chunk_size") {
            own.insert("corpus_chunk_size".to_owned(), CHUNK.into());
        }
        let working = registry::read_settings(name, &own)?;
        Ok((Self { inner, max_active_dims, told }, working))
    }
}

impl<S: EvaluatorSettings> Keyed for SparseSettings<S> {
    fn json(&self) -> Value {
        let mut settings = self.inner.to_json();
        if let Some(most) = self.max_active_dims {
            settings["max_active_dims"] = most.into();
        }
        settings
    }

    fn name(&self) -> &str {
        EvaluatorSettings::name(&self.inner)
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        EvaluatorSettings::primary_key(&self.inner, similarity_fn_name)
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        let mut keys = EvaluatorSettings::keys(&self.inner, similarity_fn_name);
        let name = EvaluatorSettings::name(&self.inner);
        keys.extend(self.told.keys().iter().map(|key| shared::prefixed(name, key)));
        keys
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        let name = EvaluatorSettings::name(&self.inner);
        let with = |csv: Csv| {
            self.told.keys().iter().fold(csv, |csv, key| csv.column(key.clone(), shared::prefixed(name, key)))
        };
        EvaluatorSettings::csv(&self.inner, similarity_fn_name).into_iter().map(with).collect()
    }
}

struct Sparse<T: FromData> {
    card: &'static Card,
    inner: T,
    settings: SparseSettings<T::Settings>,
}

impl<T: FromData> Evaluator for Sparse<T>
where
    T::Settings: Send + Sync,
{
    fn card(&self) -> &'static Card {
        self.card
    }

    fn settings(&self) -> &dyn Keyed {
        &self.settings
    }

    fn meet(&self, model: &dyn Encode) {
        self.inner.meet(model);
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        let sparse = model.sparse().ok_or_else(|| {
            Error::usage(format!("`{}` measures sparse embeddings, and the model's are dense", self.card.name))
                .with_hint("name the evaluator without `Sparse`, or give a SparseEncoder")
        })?;
        let max_active_dims = self.settings.max_active_dims;
        let watched = Watched { model, sparse, max_active_dims, groups: RefCell::default(), told: self.settings.told };
        let mut metrics = self.inner.evaluate(&watched)?;
        let name = Keyed::name(&self.settings);
        for (key, value) in watched.tell() {
            metrics.push(shared::prefixed(name, &key), value);
        }
        Ok(metrics)
    }
}

/// What was seen of the embeddings of a group.
#[derive(Debug, Clone, Default)]
struct Seen {
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
struct Watched<'a> {
    model: &'a dyn Encode,
    sparse: &'a dyn EncodeSparse,
    max_active_dims: Option<usize>,
    told: Told,
    groups: RefCell<Vec<Seen>>,
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
        // documents come in blocks, all else in one call or in one each
        let weight = if self.told == Told::Search && group == 1 { embeddings.rows() as f64 } else { 1.0 };
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

    fn tell(&self) -> Vec<(String, f64)> {
        let groups = self.groups.borrow();
        let mut values = Vec::new();
        for (group, seen) in self.told.groups().iter().zip(groups.iter()) {
            values.push((format!("{group}active_dims"), seen.active / seen.weight));
            values.push((format!("{group}sparsity_ratio"), seen.ratio / seen.weight));
        }
        if let (Told::Search, [queries, documents, ..]) = (self.told, groups.as_slice()) {
            let part = |count: &u32, seen: &Seen| f64::from(*count) / seen.rows.max(1) as f64;
            let both = queries.used.iter().zip(&documents.used);
            values.push(("avg_flops".to_owned(), both.map(|(q, d)| part(q, queries) * part(d, documents)).sum()));
        }
        values
    }
}

impl Encode for Watched<'_> {
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
        let options = EncodeOptions { max_active_dims: self.max_active_dims, ..options.clone() };
        let embeddings = self.sparse.encode_sparse(texts, &options)?;
        self.see(&embeddings, options.task.as_deref());
        Ok(embeddings.to_dense())
    }

    fn similarity_fn_name(&self) -> &str {
        self.model.similarity_fn_name()
    }

    fn named_prompt(&self, name: &str) -> Option<String> {
        self.model.named_prompt(name)
    }
}

impl Entry {
    const fn sparse<T: FromData, const TOLD: u8>(card: &'static Card) -> Self
    where
        T::Settings: Send + Sync,
    {
        Self {
            card,
            data: T::DATA,
            defaults: || registry::Settings::to_json(&T::Settings::default()),
            schema: || schemars::schema_for!(T::Settings),
            read: |settings| {
                Ok(Box::new(SparseSettings::<T::Settings>::read(T::CARD.name, settings, Told::of(TOLD))?.0))
            },
            build: |settings, data: EvaluationData| {
                let (own, working) = SparseSettings::read(T::CARD.name, settings, Told::of(TOLD))?;
                let kind = data.kind();
                match T::from_data(working, data) {
                    Some(inner) => Ok(Box::new(Sparse { card: T::CARD, inner: inner?, settings: own })),
                    None => Err(Error::data(format!("`{}` reads {}, got {kind}", T::CARD.name, T::DATA))),
                }
            },
        }
    }
}

macro_rules! sparse {
    ($($(#[$doc:meta])* $entry:ident, $name:literal, $evaluator:path, $told:expr;)*) => {
        $(
            mod $entry {
                use super::*;

                $(#[$doc])*
                pub const CARD: Card = Card {
                    name: $name,
                    model_types: &[ModelType::SparseEncoder],
                    ..*<$evaluator as FromData>::CARD
                };

                pub const ENTRY: Entry = Entry::sparse::<$evaluator, { $told }>(&CARD);
            }
        )*

        /// Every evaluator of sparse embeddings, one line each.
        pub static EVALUATORS: &[Entry] = &[$($entry::ENTRY),*];
    };
}

sparse! {
    /// ```toml
    /// [[evaluator]]
    /// type = "SparseInformationRetrievalEvaluator"
    /// path = "data/cranfield"
    /// ```
    search, "SparseInformationRetrievalEvaluator", super::super::information_retrieval::InformationRetrievalEvaluator, SEARCH;
    /// ```toml
    /// [[evaluator]]
    /// type = "SparseEmbeddingSimilarityEvaluator"
    /// path = "data/dev.jsonl"
    /// ```
    similarity, "SparseEmbeddingSimilarityEvaluator", super::super::embedding_similarity::EmbeddingSimilarityEvaluator, ALL;
    /// ```toml
    /// [[evaluator]]
    /// type = "SparseTripletEvaluator"
    /// path = "data/triplets.jsonl"
    /// ```
    triplets, "SparseTripletEvaluator", super::super::triplet::TripletEvaluator, TRIPLETS;
    /// ```toml
    /// [[evaluator]]
    /// type = "SparseBinaryClassificationEvaluator"
    /// path = "data/pairs.jsonl"
    /// ```
    classes, "SparseBinaryClassificationEvaluator", super::super::binary_classification::BinaryClassificationEvaluator, ALL;
    /// ```toml
    /// [[evaluator]]
    /// type = "SparseRerankingEvaluator"
    /// path = "data/rerank.jsonl"
    /// ```
    ranking, "SparseRerankingEvaluator", super::super::reranking::RerankingEvaluator, RANKING;
    /// ```toml
    /// [[evaluator]]
    /// type = "SparseTranslationEvaluator"
    /// path = "data/parallel.jsonl"
    /// ```
    translation, "SparseTranslationEvaluator", super::super::translation::TranslationEvaluator, ALL;
    /// ```toml
    /// [[evaluator]]
    /// type = "SparseMSEEvaluator"
    /// path = "data/parallel.jsonl"
    /// teacher_model = "teacher"
    /// ```
    values, "SparseMSEEvaluator", super::super::mse::MSEEvaluator, ALL;
}
