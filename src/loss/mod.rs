//! What is minimised? Losses: functions of embeddings and labels, and nothing else.
//!
//! A loss is a file of its own and one line in [`LOSSES`]; a wrapper, which computes another loss on changed
//! embeddings, one line in [`WRAPPERS`](wrap::WRAPPERS). The struct is its own configuration: what a recipe writes
//! under `[loss]` is read into it, checked, and it computes. [`build`] makes either from a name and settings.

pub mod angle;
pub mod batch_all_triplet;
pub mod batch_hard_soft_margin_triplet;
pub mod batch_hard_triplet;
pub mod batch_semi_hard_triplet;
pub mod cached_gist_embed;
pub mod cached_multiple_negatives_ranking;
pub mod cached_multiple_negatives_symmetric_ranking;
pub mod contrastive;
pub mod contrastive_tension;
pub mod contrastive_tension_in_batch_negatives;
pub mod cosent;
pub mod cosine_similarity;
pub mod cross_encoder;
pub mod denoising_auto_encoder;
pub mod distill_kl_div;
pub mod embed_distill;
pub mod gist_embed;
pub mod global_orthogonal_regularization;
pub mod inputs;
pub mod layer;
pub mod margin_mse;
pub mod mega_batch_margin;
mod mining;
pub mod mse;
pub mod multi_vector;
pub mod multiple_negatives_ranking;
pub mod multiple_negatives_symmetric_ranking;
pub mod online_contrastive;
pub mod softmax;
pub mod sparse_encoder;
pub mod terms;
mod traits;
pub mod triplet;
pub mod wrap;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::flow::{Card, ModelType};
use crate::util::registry::{self, Named, Settings};
pub use traits::{Balance, DecoderWanted, Loss, Parts, Setup, View};
use wrap::WRAPPERS;

type Build = fn(&Map<String, Value>) -> Result<Box<dyn Loss>>;

/// What the registry keeps of a loss.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its catalogue entry.
    pub card: &'static Card,
    /// Its settings, defaults filled in.
    pub defaults: fn() -> Value,
    /// The JSON schema of its settings.
    pub schema: fn() -> schemars::Schema,
    build: Build,
}

impl Entry {
    /// The entry of the loss `T`.
    #[must_use]
    pub const fn new<T: Loss + Settings + 'static>(card: &'static Card) -> Self {
        Self {
            card,
            defaults: || T::default().to_json(),
            schema: || schemars::schema_for!(T),
            build: |settings| {
                let loss: T = registry::read_settings(T::default().card().name, settings)?;
                Ok(Box::new(loss))
            },
        }
    }
}

impl Named for Entry {
    fn name(&self) -> &'static str {
        self.card.name
    }
}

crate::registry! {
    /// Every loss, one line each.
    pub static LOSSES: [Entry] = {
        multiple_negatives_ranking::MultipleNegativesRankingLoss,
        cosent::CoSENTLoss,
        cosine_similarity::CosineSimilarityLoss,
        triplet::TripletLoss,
        softmax::SoftmaxLoss,
        gist_embed::GISTEmbedLoss,
        cached_gist_embed::CachedGISTEmbedLoss,
        multiple_negatives_symmetric_ranking::MultipleNegativesSymmetricRankingLoss,
        cached_multiple_negatives_ranking::CachedMultipleNegativesRankingLoss,
        cached_multiple_negatives_symmetric_ranking::CachedMultipleNegativesSymmetricRankingLoss,
        angle::AnglELoss,
        contrastive::ContrastiveLoss,
        online_contrastive::OnlineContrastiveLoss,
        mega_batch_margin::MegaBatchMarginLoss,
        batch_all_triplet::BatchAllTripletLoss,
        batch_hard_triplet::BatchHardTripletLoss,
        batch_hard_soft_margin_triplet::BatchHardSoftMarginTripletLoss,
        batch_semi_hard_triplet::BatchSemiHardTripletLoss,
        mse::MSELoss,
        embed_distill::EmbedDistillLoss,
        margin_mse::MarginMSELoss,
        distill_kl_div::DistillKLDivLoss,
        contrastive_tension::ContrastiveTensionLoss,
        contrastive_tension_in_batch_negatives::ContrastiveTensionLossInBatchNegatives,
        denoising_auto_encoder::DenoisingAutoEncoderLoss,
        global_orthogonal_regularization::GlobalOrthogonalRegularizationLoss,
    }
}

/// The losses that train models of a type.
#[must_use]
pub fn entries(model_type: ModelType) -> &'static [Entry] {
    match model_type {
        ModelType::SentenceTransformer => LOSSES,
        ModelType::CrossEncoder => cross_encoder::LOSSES,
        ModelType::SparseEncoder => sparse_encoder::LOSSES,
        ModelType::MultiVectorEncoder => multi_vector::LOSSES,
    }
}

/// The wrappers of losses that train models of a type.
fn wrappers(model_type: ModelType) -> impl Iterator<Item = &'static wrap::Wrapper> + Clone {
    WRAPPERS.iter().filter(move |wrapper| wrapper.card.model_types.contains(&model_type))
}

/// The names [`build_for`] knows: losses, then wrappers.
pub fn names_for(model_type: ModelType) -> impl Iterator<Item = &'static str> + Clone {
    cards_for(model_type).map(|card| card.name)
}

/// The cards of all losses that train models of a type, then those of the wrappers.
pub fn cards_for(model_type: ModelType) -> impl Iterator<Item = &'static Card> + Clone {
    entries(model_type).iter().map(|entry| entry.card).chain(wrappers(model_type).map(|wrapper| wrapper.card))
}

/// [`names_for`] bi-encoders.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    names_for(ModelType::SentenceTransformer)
}

/// [`cards_for`] bi-encoders.
pub fn cards() -> impl Iterator<Item = &'static Card> + Clone {
    cards_for(ModelType::SentenceTransformer)
}

/// [`build_for`] bi-encoders.
///
/// # Errors
/// As there.
pub fn build(name: &str, settings: &Map<String, Value>) -> Result<Box<dyn Loss>> {
    build_for(ModelType::SentenceTransformer, name, settings)
}

/// The loss called `name` of models of a type with `settings`: its table in the recipe without `name`.
///
/// A table under a wrapper's key (`matryoshka`) wraps the loss. The reference's order is understood too:
/// `name = "MatryoshkaLoss"` with the wrapped loss as `loss = { name = "...", ... }` or just its name.
///
/// # Errors
/// [`Error::Usage`] naming the loss and the key: unknown loss, unknown key, wrong value.
pub fn build_for(model_type: ModelType, name: &str, settings: &Map<String, Value>) -> Result<Box<dyn Loss>> {
    if let Some(wrapper) = wrappers(model_type).find(|wrapper| wrapper.name() == name) {
        let mut own = settings.clone();
        let inner = match own.shift_remove("loss") {
            Some(Value::String(inner)) => build_for(model_type, &inner, &Map::new())?,
            Some(Value::Object(mut inner)) => match inner.shift_remove("name") {
                Some(Value::String(name)) => build_for(model_type, &name, &inner)?,
                _ => return Err(no_inner(name)),
            },
            None if wrapper.usual.is_some() => build_for(model_type, wrapper.usual.unwrap_or_default(), &Map::new())?,
            _ => return Err(no_inner(name)),
        };
        return wrapper.wrap(inner, &own);
    }
    let mut own = settings.clone();
    let mut around = Vec::new();
    for wrapper in wrappers(model_type) {
        match own.shift_remove(wrapper.key) {
            None => {}
            Some(Value::Object(table)) => around.push((wrapper, table)),
            Some(_) => {
                return Err(Error::usage(format!("`{name}` setting `{}`: not a table", wrapper.key))
                    .with_hint(format!("write it as a table of its own, `[loss.{}]`", wrapper.key)));
            }
        }
    }
    let entry = entries(model_type).iter().find(|entry| entry.name() == name);
    let entry = entry.ok_or_else(|| match elsewhere(model_type, name) {
        Some((text, hint)) => Error::usage(text).with_hint(hint),
        None => registry::unknown(names_for(model_type), "loss", name),
    })?;
    let mut loss = (entry.build)(&own)?;
    for (wrapper, table) in around {
        loss = wrapper.wrap(loss, &table)?;
    }
    Ok(loss)
}

/// [`settings_for`] bi-encoders.
///
/// # Errors
/// As [`build`].
pub fn settings(name: &str, settings: &Map<String, Value>) -> Result<Map<String, Value>> {
    settings_for(ModelType::SentenceTransformer, name, settings)
}

/// The settings of the loss called `name`, checked and with its defaults filled in, in the form [`build_for`] takes.
///
/// # Errors
/// As [`build_for`].
pub fn settings_for(model_type: ModelType, name: &str, settings: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut full = object(build_for(model_type, name, settings)?.config());
    let around = wrappers(model_type).filter(|wrapper| wrapper.name() != name && settings.contains_key(wrapper.key));
    let around: Vec<_> = around.collect();
    // A wrapper's own table is taken off the outermost first.
    let mut tables = Vec::new();
    for wrapper in around.into_iter().rev() {
        let inner = full.shift_remove("loss").map(object).unwrap_or_default();
        tables.push((wrapper.key.to_owned(), Value::Object(std::mem::replace(&mut full, inner))));
        full.shift_remove("name");
    }
    full.extend(tables.into_iter().rev());
    Ok(full)
}

/// What to say of a loss that trains models of another type: a message and the way out; `None` for one of no type.
#[must_use]
pub fn elsewhere(model_type: ModelType, name: &str) -> Option<(String, String)> {
    let types = [
        ModelType::SentenceTransformer,
        ModelType::CrossEncoder,
        ModelType::SparseEncoder,
        ModelType::MultiVectorEncoder,
    ];
    let theirs = types.into_iter().find(|theirs| names_for(*theirs).any(|known| known == name))?;
    let own: Vec<&str> = names_for(model_type).collect();
    Some(registry::of_another_type("loss", (name, theirs), (model_type, &own)))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn no_inner(name: &str) -> Error {
    Error::usage(format!("`{name}` needs the loss it wraps"))
        .with_hint("name it: `loss = { name = \"MultipleNegativesRankingLoss\" }`")
}

#[cfg(test)]
mod tests;
