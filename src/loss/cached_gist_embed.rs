//! CachedGISTEmbedLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gist_embed::{self, GISTEmbedLoss, MarginStrategy};
use super::inputs;
use crate::error::Result;
use crate::flow::{Card, Labels, MicroBatch, Outputs};
use crate::loss::Loss;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    name: "CachedGISTEmbedLoss",
    summary: "GISTEmbedLoss on a large batch, taken in parts by gradient caching.",
    inputs: &[
        "(anchor, positive) pairs",
        "(anchor, positive, negative) triplets",
        "(anchor, positive, negative_1, ..., negative_n)",
    ],
    columns: (2, usize::MAX),
    gotchas: &[
        "It costs a second forward pass: where memory is not short, GISTEmbedLoss is the same and faster.",
        "The guide encodes every text of every batch, once: a small one costs little, a large one more than the training.",
        "Raise `per_device_train_batch_size`: large batches are what the parts are for.",
    ],
    ..gist_embed::CARD
};

/// [`GISTEmbedLoss`] with batches taken in parts, so that many negatives fit into little memory.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (anchor, positive) pairs | none |
/// | (anchor, positive, negative) triplets | none |
/// | (anchor, positive, negative_1, ..., negative_n) | none |
///
/// # Shapes
/// Two or more embeddings of `[batch, dim]`, and as many of the guide, whose width may differ; the result is a scalar.
///
/// # Parts
/// Gradient caching works on tokens here, and no text is padded: a part has room for `mini_batch_size` sequences even if
/// all were as long as the longest of a batch, and takes more where they are shorter. `mini_batch_num_tokens` says it in
/// tokens. `args.gradient_cache_tokens` does the same for every loss, and decides where it is given. Value and gradients
/// are those of a batch at once. A static embedding can be trained with it, too.
///
/// # Defaults
/// `mini_batch_size = 32`, the reference's; larger parts are faster until memory is short. The others as
/// `GISTEmbedLoss`.
///
/// # Related
/// `GISTEmbedLoss`, a batch at once; `CachedMultipleNegativesRankingLoss`, without a guide.
///
/// # Source
/// [Solatorio 2024](https://arxiv.org/abs/2402.16829), [Gao et al. 2021](https://arxiv.org/abs/2101.06983);
/// `losses/cached_gist_embed.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "CachedGISTEmbedLoss"
/// guide = "sentence-transformers/all-MiniLM-L6-v2"
/// mini_batch_size = 64
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CachedGISTEmbedLoss {
    /// The guide: a model directory, or a model's id on the Hub.
    pub guide: String,
    /// Cosines are divided by it.
    pub temperature: f64,
    /// Sequences of a part, if their texts were as long as the longest of a batch.
    pub mini_batch_size: usize,
    /// Tokens of a part, instead of `mini_batch_size`.
    pub mini_batch_num_tokens: Option<usize>,
    /// The reference's progress bar over the parts; only `false` is possible here.
    pub show_progress_bar: bool,
    /// Whether `margin` is taken off the positive's cosine, or a share of it.
    pub margin_strategy: MarginStrategy,
    /// How far below the positive a negative must stay.
    pub margin: f64,
    /// Whether the other anchors are negatives as well.
    pub contrast_anchors: bool,
    /// Whether positives are pushed apart as well.
    pub contrast_positives: bool,
    /// The reference's setting for training on several devices; only `false` is possible here.
    pub gather_across_devices: bool,
}

impl Default for CachedGISTEmbedLoss {
    fn default() -> Self {
        let plain = GISTEmbedLoss::default();
        Self {
            guide: plain.guide,
            temperature: plain.temperature,
            mini_batch_size: 32,
            mini_batch_num_tokens: None,
            show_progress_bar: false,
            margin_strategy: plain.margin_strategy,
            margin: plain.margin,
            contrast_anchors: plain.contrast_anchors,
            contrast_positives: plain.contrast_positives,
            gather_across_devices: plain.gather_across_devices,
        }
    }
}

impl CachedGISTEmbedLoss {
    fn plain(&self) -> GISTEmbedLoss {
        GISTEmbedLoss {
            guide: self.guide.clone(),
            temperature: self.temperature,
            margin_strategy: self.margin_strategy,
            margin: self.margin,
            contrast_anchors: self.contrast_anchors,
            contrast_positives: self.contrast_positives,
            gather_across_devices: self.gather_across_devices,
        }
    }
}

impl Settings for CachedGISTEmbedLoss {
    fn validate(&self) -> Result<()> {
        self.plain().validate()?;
        inputs::micro_batch(self.mini_batch_size, self.mini_batch_num_tokens, self.show_progress_bar).map(|_| ())
    }
}

impl Loss for CachedGISTEmbedLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn micro_batch(&self) -> Option<MicroBatch> {
        inputs::micro_batch(self.mini_batch_size, self.mini_batch_num_tokens, self.show_progress_bar).ok()
    }

    fn guide(&self) -> Option<&str> {
        Some(&self.guide)
    }

    fn compute(&self, outputs: &Outputs, _labels: Option<&Labels>) -> Result<Tensor> {
        self.plain().value(&CARD, outputs)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::random_columns;

    #[test]
    fn is_the_plain_loss_with_more_negatives() {
        let value = |loss: &dyn Loss, count: usize| {
            let guide = random_columns(count, 4, 7, 5);
            let outputs = Outputs { guide, ..Outputs::new(random_columns(count, 4, 5, 3)) };
            loss.compute(&outputs, None).map(|value| value.to_scalar::<f64>().unwrap())
        };
        let (cached, plain) = (CachedGISTEmbedLoss::default(), GISTEmbedLoss::default());
        assert_eq!(value(&cached, 3).unwrap(), value(&plain, 3).unwrap());
        assert!(value(&plain, 4).is_err());
        assert!(value(&cached, 4).unwrap() > value(&cached, 3).unwrap(), "one more column of negatives");
        assert_eq!(cached.micro_batch(), Some(MicroBatch::Sequences(32)));
        assert!(CachedGISTEmbedLoss { mini_batch_size: 0, ..cached.clone() }.validate().is_err());
        assert!(CachedGISTEmbedLoss { gather_across_devices: true, ..cached }.validate().is_err());
    }
}
