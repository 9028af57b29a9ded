//! CachedMultipleNegativesRankingLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use super::multiple_negatives_ranking::{self, Direction, HardnessMode, MultipleNegativesRankingLoss, PartitionMode};
use crate::error::Result;
use crate::flow::{Card, Labels, MicroBatch, Outputs};
use crate::loss::Loss;
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "CachedMultipleNegativesRankingLoss",
    summary: "MultipleNegativesRankingLoss on a large batch, taken in parts by gradient caching.",
    gotchas: &[
        "It costs a second forward pass: where memory is not short, MultipleNegativesRankingLoss is the same and faster.",
        "Every other row is a negative: use `batch_sampler = \"no_duplicates\"`.",
        "Raise `per_device_train_batch_size`: large batches are what the parts are for.",
    ],
    paper: "https://arxiv.org/abs/2101.06983",
    ..multiple_negatives_ranking::CARD
};

/// [`MultipleNegativesRankingLoss`] with batches taken in parts, so that many negatives fit into little memory.
///
/// The loss is that of `MultipleNegativesRankingLoss`, over the whole batch.
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
/// `MultipleNegativesRankingLoss`.
///
/// # Related
/// `MultipleNegativesRankingLoss` with `args.gradient_cache_tokens` is the same.
///
/// # Source
/// [Gao et al. 2021](https://arxiv.org/abs/2101.06983); `losses/cached_multiple_negatives_ranking.py` of
/// sentence-transformers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "CachedMultipleNegativesRankingLoss"
/// mini_batch_size = 64
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CachedMultipleNegativesRankingLoss {
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
    /// Which similarities stand in the softmax; `query_to_doc` has to be among them.
    pub directions: Vec<Direction>,
    /// One softmax over all directions, or one for each.
    pub partition_mode: PartitionMode,
    /// The reference's progress bar over the parts; only `false` is possible here.
    pub show_progress_bar: bool,
    /// Which negatives are made heavier the more similar they are; none by default.
    pub hardness_mode: Option<HardnessMode>,
    /// How much heavier; not multiplied by `scale`.
    pub hardness_strength: f64,
    /// Whether candidates with the same text as the row's anchor or positive are left out of the softmax.
    pub mask_duplicates: bool,
}

impl Default for CachedMultipleNegativesRankingLoss {
    fn default() -> Self {
        let plain = MultipleNegativesRankingLoss::default();
        Self {
            scale: plain.scale,
            similarity_fct: plain.similarity_fct,
            mini_batch_size: 32,
            mini_batch_num_tokens: None,
            gather_across_devices: plain.gather_across_devices,
            directions: plain.directions,
            partition_mode: plain.partition_mode,
            show_progress_bar: false,
            hardness_mode: plain.hardness_mode,
            hardness_strength: plain.hardness_strength,
            mask_duplicates: plain.mask_duplicates,
        }
    }
}

impl CachedMultipleNegativesRankingLoss {
    fn plain(&self) -> MultipleNegativesRankingLoss {
        MultipleNegativesRankingLoss {
            scale: self.scale,
            similarity_fct: self.similarity_fct,
            gather_across_devices: self.gather_across_devices,
            directions: self.directions.clone(),
            partition_mode: self.partition_mode,
            hardness_mode: self.hardness_mode,
            hardness_strength: self.hardness_strength,
            mask_duplicates: self.mask_duplicates,
        }
    }
}

impl Settings for CachedMultipleNegativesRankingLoss {
    fn validate(&self) -> Result<()> {
        inputs::micro_batch(self.mini_batch_size, self.mini_batch_num_tokens, self.show_progress_bar)?;
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

    fn micro_batch(&self) -> Option<MicroBatch> {
        inputs::micro_batch(self.mini_batch_size, self.mini_batch_num_tokens, self.show_progress_bar).ok()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        inputs::columns(&CARD, outputs)?;
        self.plain().compute(outputs, labels)
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        self.plain().check_dim(dim)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn is_the_plain_loss() {
        let outputs = Outputs::new(random_columns(3, 4, 5, 1));
        let value = |loss: &dyn Loss| loss.compute(&outputs, None).unwrap().to_scalar::<f64>().unwrap();
        let mut cached = CachedMultipleNegativesRankingLoss { scale: 3.0, ..Default::default() };
        assert_eq!(value(&cached), value(&MultipleNegativesRankingLoss { scale: 3.0, ..Default::default() }));
        cached.directions = vec![Direction::QueryToDoc, Direction::DocToDoc];
        assert_eq!(value(&cached), value(&cached.plain()));
        check_gradient(&cached, &random_columns(3, 4, 5, 1), None);
    }

    #[test]
    fn parts_are_asked_for() {
        let mut loss = CachedMultipleNegativesRankingLoss::default();
        assert_eq!(loss.micro_batch(), Some(MicroBatch::Sequences(32)));
        assert_eq!(MicroBatch::Sequences(32).tokens(100), 3200);
        loss.mini_batch_num_tokens = Some(4096);
        assert_eq!(loss.micro_batch(), Some(MicroBatch::Tokens(4096)));
        assert_eq!(MicroBatch::Tokens(4096).tokens(100), 4096);
        loss.mini_batch_num_tokens = Some(0);
        assert!(loss.validate().is_err());
        let wrong = [
            CachedMultipleNegativesRankingLoss { mini_batch_size: 0, ..Default::default() },
            CachedMultipleNegativesRankingLoss { show_progress_bar: true, ..Default::default() },
            CachedMultipleNegativesRankingLoss { directions: vec![], ..Default::default() },
        ];
        assert!(wrong.iter().all(|loss| loss.validate().is_err()));
        assert_eq!(loss.card().name, "CachedMultipleNegativesRankingLoss");
        assert!(loss.card().in_batch_negatives);
    }
}
