//! CachedMultipleNegativesSymmetricRankingLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use super::multiple_negatives_symmetric_ranking::{self, both_ways};
use crate::error::Result;
use crate::flow::{Card, Labels, MicroBatch, Outputs};
use crate::loss::Loss;
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "CachedMultipleNegativesSymmetricRankingLoss",
    summary: "MultipleNegativesSymmetricRankingLoss on a large batch, taken in parts by gradient caching.",
    gotchas: &[
        "It costs a second forward pass: where memory is not short, MultipleNegativesSymmetricRankingLoss is the same and \
         faster.",
        "Every other row is a negative, both ways: use `batch_sampler = \"no_duplicates\"`.",
    ],
    paper: "https://arxiv.org/abs/2101.06983",
    ..multiple_negatives_symmetric_ranking::CARD
};

/// [`MultipleNegativesSymmetricRankingLoss`](multiple_negatives_symmetric_ranking::MultipleNegativesSymmetricRankingLoss)
/// with batches taken in parts, so that many negatives fit into little memory.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (anchor, positive) pairs | none |
/// | (anchor, positive, negative) triplets | none |
/// | (anchor, positive, negative_1, ..., negative_n) | none |
///
/// # Shapes
/// Two or more embeddings of `[batch, dim]`; the result is a scalar.
///
/// # Parts
/// Gradient caching works on tokens here, and no text is padded: a part has room for `mini_batch_size` sequences even if
/// all were as long as the longest of a batch, and takes more where they are shorter. `mini_batch_num_tokens` says it in
/// tokens. `args.gradient_cache_tokens` does the same for every loss, and decides where it is given. Value and gradients
/// are those of a batch at once.
///
/// # Defaults
/// `mini_batch_size = 32`, the reference's; larger parts are faster until memory is short. The others as
/// `MultipleNegativesSymmetricRankingLoss`.
///
/// # Related
/// `CachedMultipleNegativesRankingLoss` with two `directions` and `partition_mode = "per_direction"` is the same.
///
/// # Source
/// [Gao et al. 2021](https://arxiv.org/abs/2101.06983); `losses/cached_multiple_negatives_symmetric_ranking.py` of
/// sentence-transformers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "CachedMultipleNegativesSymmetricRankingLoss"
/// mini_batch_size = 64
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CachedMultipleNegativesSymmetricRankingLoss {
    /// Inverse temperature: similarities are multiplied by it.
    pub scale: f64,
    /// How embeddings are compared.
    pub similarity_fct: Similarity,
    /// Sequences of a part, if their texts were as long as the longest of a batch.
    pub mini_batch_size: usize,
    /// Tokens of a part, instead of `mini_batch_size`.
    pub mini_batch_num_tokens: Option<usize>,
    /// The reference's setting for training on several devices; only `false` is possible here.
    pub gather_across_devices: bool,
    /// The reference's progress bar over the parts; only `false` is possible here.
    pub show_progress_bar: bool,
}

impl Default for CachedMultipleNegativesSymmetricRankingLoss {
    fn default() -> Self {
        Self {
            scale: 20.0,
            similarity_fct: Similarity::Cosine,
            mini_batch_size: 32,
            mini_batch_num_tokens: None,
            gather_across_devices: false,
            show_progress_bar: false,
        }
    }
}

impl Settings for CachedMultipleNegativesSymmetricRankingLoss {
    fn validate(&self) -> Result<()> {
        inputs::positive("scale", self.scale)?;
        inputs::one_device(self.gather_across_devices)?;
        inputs::micro_batch(self.mini_batch_size, self.mini_batch_num_tokens, self.show_progress_bar).map(|_| ())
    }
}

impl Loss for CachedMultipleNegativesSymmetricRankingLoss {
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
        inputs::columns(&CARD, outputs)?;
        both_ways(self.scale, self.similarity_fct).compute(outputs, labels)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::multiple_negatives_symmetric_ranking::MultipleNegativesSymmetricRankingLoss;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn is_the_plain_loss() {
        let outputs = Outputs::new(random_columns(3, 4, 5, 1));
        let value = |loss: &dyn Loss| loss.compute(&outputs, None).unwrap().to_scalar::<f64>().unwrap();
        let cached = CachedMultipleNegativesSymmetricRankingLoss::default();
        assert_eq!(value(&cached), value(&MultipleNegativesSymmetricRankingLoss::default()));
        check_gradient(
            &CachedMultipleNegativesSymmetricRankingLoss { scale: 2.0, ..cached.clone() },
            &random_columns(2, 4, 5, 1),
            None,
        );
        assert_eq!(cached.micro_batch(), Some(MicroBatch::Sequences(32)));
        assert!(CachedMultipleNegativesSymmetricRankingLoss { mini_batch_size: 0, ..cached }.validate().is_err());
    }
}
