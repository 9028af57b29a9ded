//! The evaluators of sparse embeddings: those of dense ones, which also tell how sparse the embeddings are.
//!
//! Names, keys and columns of CSV files are those of sentence-transformers' `Sparse…Evaluator` classes. Each takes the
//! settings of its dense twin, and `max_active_dims`. Embeddings stay sparse: pairs are compared by what both have, and
//! a search goes through an inverted index a block of documents.

mod nano_beir;
mod watched;

use std::cell::RefCell;

use serde_json::{Map, Value};

use super::{
    Csv, Entry, EvaluationData, Evaluator, EvaluatorSettings, FromData, Keyed, reciprocal_rank_fusion, shared,
};
use crate::error::{Error, Result};
use crate::flow::{Card, Encode, EncodeSparse, Metrics, ModelType};
use crate::util::registry;
use watched::{ALL, RANKING, SEARCH, TRIPLETS, Told, Watched};

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
        let sparse = sparse_of(model, self.card)?;
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

/// The model as one of sparse embeddings.
fn sparse_of<'a>(model: &'a dyn Encode, card: &Card) -> Result<&'a dyn EncodeSparse> {
    model.sparse().ok_or_else(|| {
        Error::usage(format!("`{}` measures sparse embeddings, and the model's are dense", card.name))
            .with_hint("name the evaluator without `Sparse`, or give a SparseEncoder")
    })
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
            read: |card, settings| {
                Ok(Box::new(SparseSettings::<T::Settings>::read(card.name, settings, Told::of(TOLD))?.0))
            },
            build: |card, settings, data: EvaluationData| {
                let (own, working) = SparseSettings::read(card.name, settings, Told::of(TOLD))?;
                let kind = data.kind();
                match T::from_data(working, data) {
                    Some(inner) => Ok(Box::new(Sparse { card, inner: inner?, settings: own })),
                    None => Err(Error::data(format!("`{}` reads {}, got {kind}", card.name, T::DATA))),
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
        pub static EVALUATORS: &[Entry] = &[
            $($entry::ENTRY,)*
            nano_beir::ENTRY,
            Entry::new::<reciprocal_rank_fusion::ReciprocalRankFusionEvaluator>(&reciprocal_rank_fusion::CARD),
        ];
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
