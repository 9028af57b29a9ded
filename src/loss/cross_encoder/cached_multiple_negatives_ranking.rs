//! CachedMultipleNegativesRankingLoss of a model that reads pairs.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::logits;
use super::multiple_negatives_ranking::{self, MultipleNegativesRankingLoss, Negatives};
use crate::error::Result;
use crate::flow::{ActivationFn, Card, Labels, MicroBatch, Outputs, Pairing};
use crate::loss::{Loss, inputs};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "CachedMultipleNegativesRankingLoss",
    summary: "MultipleNegativesRankingLoss with many candidates, taken in parts by gradient caching.",
    gotchas: &[
        "It costs a second forward pass: where memory is not short, MultipleNegativesRankingLoss is the same and faster.",
        "Passages of other rows are taken for wrong: use `batch_sampler = \"no_duplicates\"`.",
        "The model's `activation_fn` has to be `Identity`; that of the loss is its own and used in training only.",
    ],
    paper: "https://arxiv.org/abs/2101.06983",
    ..multiple_negatives_ranking::CARD
};

/// [`MultipleNegativesRankingLoss`] with pairs taken in parts, so that many candidates fit into little memory.
///
/// The loss is that of `MultipleNegativesRankingLoss`, over the whole batch.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (query, passage) pairs | none |
/// | (query, positive, negative) triplets | none |
/// | (query, positive, negative_1, ..., negative_n) | none |
///
/// # Shapes
/// Tensors of logits `[batch, 1]`, the positive's first; the result is a scalar.
///
/// # Defaults
/// `mini_batch_size = 32` pairs a part, the reference's. The others as `MultipleNegativesRankingLoss`.
///
/// # Related
/// `MultipleNegativesRankingLoss` with `args.gradient_cache_tokens` is the same.
///
/// # Source
/// [Gao et al. 2021](https://arxiv.org/abs/2101.06983);
/// `cross_encoder/losses/cached_multiple_negatives_ranking.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "CachedMultipleNegativesRankingLoss"
/// num_negatives = 16
/// mini_batch_size = 64
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CachedMultipleNegativesRankingLoss {
    /// How many texts of other rows each query is paired with in a step; `all` for all there are.
    pub num_negatives: Negatives,
    /// Inverse temperature: activated logits are multiplied by it.
    pub scale: f64,
    /// Applied to the logits before scaling.
    pub activation_fn: ActivationFn,
    /// Pairs of a part, if all were as long as the longest of a batch.
    pub mini_batch_size: usize,
    /// The reference's progress bar over the parts; only `false` is possible here.
    pub show_progress_bar: bool,
}

impl Default for CachedMultipleNegativesRankingLoss {
    fn default() -> Self {
        let plain = MultipleNegativesRankingLoss::default();
        Self {
            num_negatives: plain.num_negatives,
            scale: plain.scale,
            activation_fn: plain.activation_fn,
            mini_batch_size: 32,
            show_progress_bar: false,
        }
    }
}

impl CachedMultipleNegativesRankingLoss {
    fn plain(&self) -> MultipleNegativesRankingLoss {
        MultipleNegativesRankingLoss {
            num_negatives: self.num_negatives,
            scale: self.scale,
            activation_fn: self.activation_fn,
        }
    }
}

impl Settings for CachedMultipleNegativesRankingLoss {
    fn validate(&self) -> Result<()> {
        inputs::micro_batch(self.mini_batch_size, None, self.show_progress_bar)?;
        self.plain().validate()
    }
}

impl Loss for CachedMultipleNegativesRankingLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn pairing(&self) -> Pairing {
        self.plain().pairing()
    }

    fn micro_batch(&self) -> Option<MicroBatch> {
        inputs::micro_batch(self.mini_batch_size, None, self.show_progress_bar).ok()
    }

    fn compute(&self, outputs: &Outputs, _labels: Option<&Labels>) -> Result<Tensor> {
        self.plain().over_candidates(&CARD, outputs)
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        logits::check_one(&CARD, dim)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::random_columns;

    #[test]
    fn is_the_plain_loss_in_parts() {
        let cached = CachedMultipleNegativesRankingLoss { scale: 3.0, ..Default::default() };
        let outputs = Outputs::new(random_columns(5, 4, 1, 1));
        let value = |loss: &dyn Loss| loss.compute(&outputs, None).unwrap().to_scalar::<f64>().unwrap();
        assert_eq!(value(&cached), value(&MultipleNegativesRankingLoss { scale: 3.0, ..Default::default() }));
        assert_eq!(cached.micro_batch(), Some(MicroBatch::Sequences(32)));
        assert_eq!(cached.pairing(), Pairing::InBatch { negatives: Some(4) });
        assert!(CachedMultipleNegativesRankingLoss { mini_batch_size: 0, ..cached }.validate().is_err());
    }
}
