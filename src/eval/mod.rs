//! How good is a model? Evaluators: from anything that encodes to named numbers.
//!
//! An evaluator is a file of its own and one line in [`EVALUATORS`]. It gets its texts in memory and opens no files;
//! [`DataKind`] says what to read for it. Names, keys and values are those of sentence-transformers' evaluators:
//! `<name>_<metric>`, or just `<metric>` without a name; the trainer puts `eval_` in front ([`trainer_key`]).
//!
//! # Several evaluators
//! A run's evaluators are its several `[[evaluator]]` tables, in their order; that is the reference's
//! `SequentialEvaluator`. Its default main score is that of the last evaluator; here it is the primary metric of the
//! first one, and `args.metric_for_best_model` names any other.
//!
//! # NaN
//! A metric without a value, as the correlation with a model that gives every pair the same score, is NaN and not an
//! error: a run goes on, and the report shows that there is nothing to show. A NaN is never better than anything and
//! every number is better than it; [`improves`] says so for choosing checkpoints. Embeddings with NaN or infinite
//! values are an error instead, since a ranking of them would be an accident. JSON has no NaN: it is written `null`.

pub mod binary_classification;
pub mod bootstrap;
pub mod cross_encoder;
pub mod csv;
mod data;
pub mod distillation;
pub mod embedding_similarity;
pub mod information_retrieval;
pub mod label_accuracy;
pub mod metrics;
pub mod mse;
pub mod mse_from_dataframe;
pub mod multi_vector;
pub mod nano_beir;
pub mod paraphrase_mining;
pub mod reciprocal_rank_fusion;
pub mod reranking;
pub mod shared;
pub mod sparse;
pub mod translation;
pub mod triplet;

use cross_encoder::{
    classification as pair_classification, correlation as pair_correlation, nano_beir as pair_nano_beir,
    reranking as pair_reranking,
};
pub use csv::Csv;
pub use data::{DataKind, EvaluationData};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::flow::{Card, Encode, Metrics, ModelType};
use crate::util::registry::{self, Named, Settings};

/// Measures a model on data it holds.
pub trait Evaluator: Send + Sync {
    /// Its catalogue entry.
    fn card(&self) -> &'static Card;

    /// What it was made with.
    fn settings(&self) -> &dyn Keyed;

    /// Encodes and measures.
    ///
    /// # Errors
    /// When the model cannot encode, its embeddings are not finite, or its similarity function is unknown.
    fn evaluate(&self, model: &dyn Encode) -> Result<Metrics>;

    /// Told of the model before its first evaluation, where keys depend on more than the similarity function.
    fn meet(&self, model: &dyn Encode) {
        let _ = model;
    }

    /// The name given to this one, which is the prefix of its metrics; may be empty.
    fn name(&self) -> &str {
        self.settings().name()
    }

    /// The key of the metric that stands for the whole, for a model with that similarity function.
    fn primary_key(&self, similarity_fn_name: &str) -> String {
        self.settings().primary_key(similarity_fn_name)
    }

    /// All keys [`evaluate`](Self::evaluate) will give, in their order, known before any run; empty for a similarity
    /// function that cannot be evaluated.
    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        self.settings().keys(similarity_fn_name)
    }

    /// The CSV files that get a row at each evaluation of a run.
    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        self.settings().csv(similarity_fn_name)
    }

    /// Its settings, defaults filled in, for the plan and the model card.
    fn config(&self) -> Value {
        self.settings().json()
    }
}

/// Settings of an evaluator, from which its keys follow before there is any data.
pub trait EvaluatorSettings: Settings {
    /// As [`Evaluator::name`].
    fn name(&self) -> &str;

    /// As [`Evaluator::primary_key`].
    fn primary_key(&self, similarity_fn_name: &str) -> String;

    /// As [`Evaluator::keys`].
    fn keys(&self, similarity_fn_name: &str) -> Vec<String>;

    /// As [`Evaluator::csv`].
    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv>;
}

/// An evaluator that is made of settings and data.
pub trait FromData: Evaluator + Sized + 'static {
    /// What a recipe may set.
    type Settings: EvaluatorSettings;
    /// The catalogue entry.
    const CARD: &'static Card;
    /// What it reads.
    const DATA: DataKind;

    /// The evaluator; `None` when `data` is of another kind than [`Self::DATA`].
    fn from_data(settings: Self::Settings, data: EvaluationData) -> Option<Result<Self>>;
}

type Read = fn(&'static Card, &Map<String, Value>) -> Result<Box<dyn Keyed>>;
type Build = fn(&'static Card, &Map<String, Value>, EvaluationData) -> Result<Box<dyn Evaluator>>;

/// [`EvaluatorSettings`] of any type.
pub trait Keyed {
    /// As [`Settings::to_json`].
    fn json(&self) -> Value;
    /// As [`Evaluator::name`].
    fn name(&self) -> &str;
    /// As [`Evaluator::primary_key`].
    fn primary_key(&self, similarity_fn_name: &str) -> String;
    /// As [`Evaluator::keys`].
    fn keys(&self, similarity_fn_name: &str) -> Vec<String>;
    /// As [`Evaluator::csv`].
    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv>;
}

impl<T: EvaluatorSettings> Keyed for T {
    fn json(&self) -> Value {
        self.to_json()
    }

    fn name(&self) -> &str {
        EvaluatorSettings::name(self)
    }

    fn primary_key(&self, similarity_fn_name: &str) -> String {
        EvaluatorSettings::primary_key(self, similarity_fn_name)
    }

    fn keys(&self, similarity_fn_name: &str) -> Vec<String> {
        EvaluatorSettings::keys(self, similarity_fn_name)
    }

    fn csv(&self, similarity_fn_name: &str) -> Vec<Csv> {
        EvaluatorSettings::csv(self, similarity_fn_name)
    }
}

/// What the registry keeps of an evaluator.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its catalogue entry.
    pub card: &'static Card,
    /// What to read for it.
    pub data: DataKind,
    /// Its settings, defaults filled in.
    pub defaults: fn() -> Value,
    /// The JSON schema of its settings.
    pub schema: fn() -> schemars::Schema,
    read: Read,
    build: Build,
}

impl Entry {
    /// The entry of the evaluator `T`.
    #[must_use]
    pub const fn new<T: FromData>(card: &'static Card) -> Self {
        Self {
            card,
            data: T::DATA,
            defaults: || T::Settings::default().to_json(),
            schema: || schemars::schema_for!(T::Settings),
            read: |card, settings| Ok(Box::new(registry::read_settings::<T::Settings>(card.name, settings)?)),
            build: |card, settings, data| {
                let settings = registry::read_settings(card.name, settings)?;
                let kind = data.kind();
                match T::from_data(settings, data) {
                    Some(evaluator) => Ok(Box::new(evaluator.map_err(|e| e.within(format!("`{}`", card.name)))?)),
                    None => Err(Error::data(format!("`{}` reads {}, got {kind}", card.name, T::DATA))),
                }
            },
        }
    }

    /// Checks settings before any data is read, and fills in the defaults.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the evaluator and the key.
    pub fn settings(&self, settings: &Map<String, Value>) -> Result<Map<String, Value>> {
        match (self.read)(self.card, settings)?.json() {
            Value::Object(settings) => Ok(settings),
            other => Err(Error::Internal(format!("settings of `{}` are {other}", self.card.name))),
        }
    }

    /// The key of the primary metric, known from the settings alone.
    ///
    /// # Errors
    /// As [`Self::settings`].
    pub fn primary_key(&self, settings: &Map<String, Value>, similarity_fn_name: &str) -> Result<String> {
        Ok((self.read)(self.card, settings)?.primary_key(similarity_fn_name))
    }

    /// All keys there will be, known from the settings alone.
    ///
    /// # Errors
    /// As [`Self::settings`].
    pub fn keys(&self, settings: &Map<String, Value>, similarity_fn_name: &str) -> Result<Vec<String>> {
        Ok((self.read)(self.card, settings)?.keys(similarity_fn_name))
    }

    /// The evaluator with settings and data.
    ///
    /// # Errors
    /// [`Error::Usage`] for the settings, [`Error::Data`] for the data.
    pub fn build(&self, settings: &Map<String, Value>, data: EvaluationData) -> Result<Box<dyn Evaluator>> {
        (self.build)(self.card, settings, data)
    }
}

impl Named for Entry {
    fn name(&self) -> &'static str {
        self.card.name
    }
}

crate::registry! {
    /// Every evaluator, one line each.
    pub static EVALUATORS: [Entry] = {
        information_retrieval::InformationRetrievalEvaluator,
        embedding_similarity::EmbeddingSimilarityEvaluator,
        triplet::TripletEvaluator,
        binary_classification::BinaryClassificationEvaluator,
        reranking::RerankingEvaluator,
        translation::TranslationEvaluator,
        mse::MSEEvaluator,
        paraphrase_mining::ParaphraseMiningEvaluator,
        nano_beir::NanoBEIREvaluator,
        label_accuracy::LabelAccuracyEvaluator,
        pair_reranking::CrossEncoderRerankingEvaluator,
        pair_classification::CrossEncoderClassificationEvaluator,
        pair_correlation::CrossEncoderCorrelationEvaluator,
        pair_nano_beir::CrossEncoderNanoBEIREvaluator,
        mse_from_dataframe::MSEEvaluatorFromDataFrame,
    }
}

/// All evaluators, those of sparse embeddings and of late interaction last.
pub fn entries() -> impl Iterator<Item = &'static Entry> + Clone {
    EVALUATORS.iter().chain(sparse::EVALUATORS).chain(multi_vector::EVALUATORS)
}

/// The entry of the evaluator called `name`: its card, what to read for it, and its builder.
///
/// # Errors
/// [`Error::Usage`] with the nearest name as hint.
pub fn find(name: &str) -> Result<&'static Entry> {
    let found = entries().find(|entry| entry.name() == name);
    found.ok_or_else(|| registry::unknown(entries().map(Named::name), "evaluator", name))
}

/// What to say of an evaluator of models of another type: a message and the way out; `None` for one of no type.
#[must_use]
pub fn elsewhere(model_type: ModelType, name: &str) -> Option<(String, String)> {
    let card = cards().find(|card| card.name == name)?;
    let theirs = card.model_types.first()?;
    let own: Vec<&str> = cards().filter(|card| card.model_types.contains(&model_type)).map(|card| card.name).collect();
    Some(registry::of_another_type("evaluator", (name, *theirs), (model_type, &own)))
}

/// The evaluator called `name` with settings (its table in the recipe without `type` and where its data lies) and data.
///
/// # Errors
/// As [`find`] and [`Entry::build`].
pub fn build(name: &str, settings: &Map<String, Value>, data: EvaluationData) -> Result<Box<dyn Evaluator>> {
    find(name)?.build(settings, data)
}

/// The cards of all evaluators.
pub fn cards() -> impl Iterator<Item = &'static Card> + Clone {
    entries().map(|entry| entry.card)
}

/// A metric's key as the trainer logs it and `metric_for_best_model` names it: with `eval_` in front, once.
#[must_use]
pub fn trainer_key(key: &str) -> String {
    if key.starts_with("eval_") { key.to_owned() } else { format!("eval_{key}") }
}

/// Whether `score` is better than the best so far, larger being better.
///
/// NaN improves on nothing; anything else improves on NaN and on nothing at all.
#[must_use]
pub fn improves(score: f64, best: Option<f64>) -> bool {
    !score.is_nan() && best.is_none_or(|best| best.is_nan() || score > best)
}

#[cfg(test)]
mod tests;
