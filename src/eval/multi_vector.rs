//! The evaluators of models with a vector for each token: those of single vectors, with scores by late interaction.
//!
//! Names, keys and values are those of sentence-transformers' `MultiVector…Evaluator` classes. Each takes the settings
//! of its twin but for what is for single vectors; how texts are compared is the model's `similarity_fn_name`.

use serde_json::{Map, Value};

use super::distillation::DistillationEvaluator;
use super::{Csv, Entry, EvaluationData, Evaluator, FromData, Keyed};
use crate::error::{Error, Result};
use crate::flow::{Card, Encode, Metrics, ModelType};
use crate::util::registry;

/// Settings that are for single vectors.
const FOREIGN: [&str; 8] = [
    "truncate_dim",
    "precision",
    "score_functions",
    "main_score_function",
    "similarity_fn_names",
    "main_similarity_function",
    "similarity_fct",
    "normalize_embeddings",
];

/// The twin's settings without those.
fn own(name: &str, settings: &Map<String, Value>) -> Result<Map<String, Value>> {
    match FOREIGN.iter().find(|key| settings.get(**key).is_some_and(|value| !value.is_null())) {
        Some(key) => Err(Error::usage(format!("`{name}` setting `{key}`: it is for single vectors"))
            .with_hint("leave it out: texts are compared by the model's `similarity_fn_name`, `maxsim` for one")),
        None => Ok(settings.clone()),
    }
}

/// An evaluator under another name.
struct Late<T> {
    card: &'static Card,
    inner: T,
}

impl<T: FromData> Evaluator for Late<T> {
    fn card(&self) -> &'static Card {
        self.card
    }

    fn settings(&self) -> &dyn Keyed {
        self.inner.settings()
    }

    fn meet(&self, model: &dyn Encode) {
        self.inner.meet(model);
    }

    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics> {
        if model.multi_vector().is_none() {
            return Err(Error::usage(format!(
                "`{}` compares token by token, and the model has no such embeddings",
                self.card.name
            ))
            .with_hint("name the evaluator without `MultiVector`, or give a MultiVectorEncoder"));
        }
        self.inner.evaluate(model)
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        self.inner.primary_key(similarity_fn_name)
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        self.inner.keys(similarity_fn_name)
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        self.inner.csv(similarity_fn_name)
    }
}

impl Entry {
    const fn late<T: FromData>(card: &'static Card) -> Self {
        Self {
            card,
            data: T::DATA,
            defaults: || registry::Settings::to_json(&T::Settings::default()),
            schema: || schemars::schema_for!(T::Settings),
            read: |card, settings| {
                let own = own(card.name, settings)?;
                Ok(Box::new(registry::read_settings::<T::Settings>(card.name, &own)?))
            },
            build: |card, settings, data: EvaluationData| {
                let settings = registry::read_settings(card.name, &own(card.name, settings)?)?;
                let kind = data.kind();
                match T::from_data(settings, data) {
                    Some(inner) => Ok(Box::new(Late { card, inner: inner? })),
                    None => Err(Error::data(format!("`{}` reads {}, got {kind}", card.name, T::DATA))),
                }
            },
        }
    }
}

macro_rules! late {
    ($($(#[$doc:meta])* $entry:ident, $name:literal, $evaluator:path, $gotchas:expr;)*) => {
        $(
            mod $entry {
                use super::*;

                $(#[$doc])*
                pub const CARD: Card = Card {
                    name: $name,
                    model_types: &[ModelType::MultiVectorEncoder],
                    gotchas: $gotchas,
                    ..*<$evaluator as FromData>::CARD
                };

                pub const ENTRY: Entry = Entry::late::<$evaluator>(&CARD);
            }
        )*

        /// Every evaluator of late interaction, one line each.
        pub static EVALUATORS: &[Entry] =
            &[$($entry::ENTRY,)* Entry::new::<DistillationEvaluator>(&super::distillation::CARD)];
    };
}

late! {
    /// ```toml
    /// [[evaluator]]
    /// type = "MultiVectorInformationRetrievalEvaluator"
    /// path = "data/cranfield"
    /// ```
    search, "MultiVectorInformationRetrievalEvaluator", super::super::information_retrieval::InformationRetrievalEvaluator,
        super::super::information_retrieval::CARD.gotchas;
    /// ```toml
    /// [[evaluator]]
    /// type = "MultiVectorNanoBEIREvaluator"
    /// path = "data/nanobeir"
    /// ```
    searches, "MultiVectorNanoBEIREvaluator", super::super::nano_beir::NanoBEIREvaluator,
        super::super::nano_beir::CARD.gotchas;
    /// ```toml
    /// [[evaluator]]
    /// type = "MultiVectorTripletEvaluator"
    /// path = "data/triplets.jsonl"
    /// ```
    triplets, "MultiVectorTripletEvaluator", super::super::triplet::TripletEvaluator,
        &["With `maxsim` a `margin` grows with the queries' length; `meanmaxsim` lies in [-1, 1].", "Equal scores count as wrong."];
    /// ```toml
    /// [[evaluator]]
    /// type = "MultiVectorRerankingEvaluator"
    /// path = "data/rerank.jsonl"
    /// ```
    ranking, "MultiVectorRerankingEvaluator", super::super::reranking::RerankingEvaluator,
        &["Easy negatives give values near 1 that hide progress.", "Queries without a positive or without a negative document are left out."];
}
