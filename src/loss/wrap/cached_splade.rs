//! CachedSpladeLoss: SpladeLoss by gradient caching.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Wrap;
use super::splade::{self, Splade, SpladeLoss};
use crate::error::Result;
use crate::flow::Card;
use crate::loss::Loss;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "CachedSpladeLoss",
    summary: "SpladeLoss in the memory of small batches, by gradient caching.",
    ..splade::CARD
};

/// [`Splade`] by gradient caching: the table `[loss.cached_splade]`, in parts of 32 sequences unless
/// `mini_batch_size` says otherwise.
///
/// # Recipe
/// ```toml
/// model_type = "SparseEncoder"
/// [loss]
/// name = "CachedSpladeLoss"
/// loss = { name = "SparseMultipleNegativesRankingLoss" }
/// document_regularizer_weight = 3e-3
/// query_regularizer_weight = 5e-3
/// mini_batch_size = 16
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CachedSplade(Splade);

impl Settings for CachedSplade {
    fn validate(&self) -> Result<()> {
        self.0.validate()
    }
}

impl Wrap for CachedSplade {
    const KEY: &'static str = "cached_splade";
    const CARD: &'static Card = &CARD;

    fn around(self, inner: Box<dyn Loss>) -> Box<dyn Loss> {
        /// As in the reference.
        const MINI_BATCH: usize = 32;
        let mini_batch_size = self.0.mini_batch_size.or(Some(MINI_BATCH));
        Box::new(SpladeLoss::new(inner, Splade { mini_batch_size, ..self.0 }, &CARD))
    }
}
