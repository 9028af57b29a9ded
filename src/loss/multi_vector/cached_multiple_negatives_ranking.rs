//! CachedMultiVectorMultipleNegativesRankingLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::multiple_negatives_ranking::{self, MultiVectorMultipleNegativesRankingLoss};
use super::{Similarity, columns};
use crate::error::Result;
use crate::flow::{Card, Labels, MicroBatch, Outputs};
use crate::loss::{Loss, inputs};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "CachedMultiVectorMultipleNegativesRankingLoss",
    summary: "MultiVectorMultipleNegativesRankingLoss on a large batch, taken in parts by gradient caching.",
    gotchas: &[
        "It costs a second forward pass: where memory is not short, MultiVectorMultipleNegativesRankingLoss is the same \
         and faster.",
        "Every other row is a negative: use `batch_sampler = \"no_duplicates\"`.",
    ],
    ..multiple_negatives_ranking::CARD
};

/// [`MultiVectorMultipleNegativesRankingLoss`] with batches taken in parts.
///
/// The loss is that one's, over the whole batch.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (anchor, positive) pairs | none |
/// | (anchor, positive, negative) triplets | none |
/// | (anchor, positive, negative_1, ..., negative_n) | none |
///
/// # Shapes
/// Two or more columns of `[vectors, dim]`; the result is a scalar.
///
/// # Defaults
/// `mini_batch_size = 32`, the reference's: a part has room for so many texts even if all were as long as the longest
/// of a batch. `mini_batch_num_tokens` says it in tokens. The others as `MultiVectorMultipleNegativesRankingLoss`.
///
/// # Related
/// `args.gradient_cache_tokens` does the same for every loss.
///
/// # Source
/// [Gao et al. 2021](https://arxiv.org/abs/2101.06983);
/// `multi_vector_encoder/losses/cached_multiple_negatives_ranking.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "MultiVectorEncoder"
/// [loss]
/// name = "CachedMultiVectorMultipleNegativesRankingLoss"
/// mini_batch_size = 16
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CachedMultiVectorMultipleNegativesRankingLoss {
    /// Inverse temperature: scores are multiplied by it.
    pub scale: f64,
    /// How a query and a document are scored.
    pub similarity_fct: Similarity,
    /// With `xtr`: how many vectors of all documents a query's vector finds.
    pub top_k: usize,
    /// Texts of a part, if they were as long as the longest of a batch.
    pub mini_batch_size: usize,
    /// Tokens of a part, instead of `mini_batch_size`.
    pub mini_batch_num_tokens: Option<usize>,
    /// The reference's bound on memory for scores; changes nothing here.
    pub score_mini_batch_size: Option<usize>,
    /// The reference's setting for training on several devices; only `false` is possible here.
    pub gather_across_devices: bool,
    /// The reference's progress bar over the parts; only `false` is possible here.
    pub show_progress_bar: bool,
}

impl Default for CachedMultiVectorMultipleNegativesRankingLoss {
    fn default() -> Self {
        let plain = MultiVectorMultipleNegativesRankingLoss::default();
        Self {
            scale: plain.scale,
            similarity_fct: plain.similarity_fct,
            top_k: plain.top_k,
            mini_batch_size: 32,
            mini_batch_num_tokens: None,
            score_mini_batch_size: None,
            gather_across_devices: plain.gather_across_devices,
            show_progress_bar: false,
        }
    }
}

impl CachedMultiVectorMultipleNegativesRankingLoss {
    fn plain(&self) -> MultiVectorMultipleNegativesRankingLoss {
        MultiVectorMultipleNegativesRankingLoss {
            scale: self.scale,
            similarity_fct: self.similarity_fct,
            top_k: self.top_k,
            gather_across_devices: self.gather_across_devices,
            ..Default::default()
        }
    }
}

impl Settings for CachedMultiVectorMultipleNegativesRankingLoss {
    fn validate(&self) -> Result<()> {
        inputs::micro_batch(self.mini_batch_size, self.mini_batch_num_tokens, self.show_progress_bar)?;
        self.plain().validate()
    }
}

impl Loss for CachedMultiVectorMultipleNegativesRankingLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn micro_batch(&self) -> Option<MicroBatch> {
        inputs::micro_batch(self.mini_batch_size, self.mini_batch_num_tokens, self.show_progress_bar).ok()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        columns(&CARD, outputs)?;
        self.plain().compute(outputs, labels)
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        self.plain().check_dim(dim)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::random_outputs;
    use super::*;

    #[test]
    fn is_the_plain_loss_in_parts() {
        let outputs = random_outputs(3, 5);
        let value = |loss: &dyn Loss| loss.compute(&outputs, None).unwrap().to_scalar::<f64>().unwrap();
        let cached = CachedMultiVectorMultipleNegativesRankingLoss { scale: 0.5, ..Default::default() };
        assert_eq!(value(&cached), value(&cached.plain()));
        assert_eq!(cached.micro_batch(), Some(MicroBatch::Sequences(32)));
        let wrong = CachedMultiVectorMultipleNegativesRankingLoss { mini_batch_size: 0, ..Default::default() };
        assert!(wrong.validate().is_err());
    }
}
