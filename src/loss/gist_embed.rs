//! GISTEmbedLoss.

use candle_core::{D, DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, inputs};
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::ops;
use crate::scoring::{cosine, stable};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(anchor, positive) pairs", "(anchor, positive, negative) triplets"],
    columns: (2, 3),
    labels: LabelKind::None,
    in_batch_negatives: true,
    gotchas: &[
        "The guide encodes every text of every batch: a small one costs little, a large one more than the training.",
        "A guide that is worse than the model on the data hides the very negatives to learn from.",
    ],
    paper: "https://arxiv.org/abs/2402.16829",
    ..Card::new(
        "GISTEmbedLoss",
        "In-batch negatives without those that a guide model finds more similar than the positive.",
    )
};

/// How near to the positive, by the guide, a negative may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MarginStrategy {
    /// `positive - margin`.
    #[default]
    Absolute,
    /// `positive - |positive| * margin`.
    Relative,
}

/// MultipleNegativesRankingLoss with a guide that takes false negatives out.
///
/// With cosines `s` of the model and `g` of the guide, a candidate `c` of anchor `a` with positive `p` is left out where
/// `g(a, c)` is above the guide's threshold for `g(a, p)`. Candidates are the positives of the batch, with
/// `contrast_anchors` its anchors, with `contrast_positives` the positives as seen from the row's positive, and the
/// negatives. `loss = mean over rows of -log(exp(s(a, p) / temperature) / sum over c of exp(s(., c) / temperature))`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (anchor, positive) pairs | none |
/// | (anchor, positive, negative) triplets | none |
///
/// # Shapes
/// Two or three embeddings of `[batch, dim]`, and as many of the guide, whose width may differ; the result is a scalar.
///
/// # Defaults
/// `temperature = 0.01` and no margin, the paper's; both contrasts are on, as there.
///
/// # Related
/// `MultipleNegativesRankingLoss` without a guide; `CachedGISTEmbedLoss` takes large batches in parts, and rows with
/// several negatives.
///
/// # Source
/// [Solatorio 2024](https://arxiv.org/abs/2402.16829); `losses/gist_embed.py` of sentence-transformers. The guide reads
/// the data's texts with its own tokenizer, where the reference decodes the model's tokens.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "GISTEmbedLoss"
/// guide = "sentence-transformers/all-MiniLM-L6-v2"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GISTEmbedLoss {
    /// The guide: a model directory, or a model's id on the Hub.
    pub guide: String,
    /// Cosines are divided by it.
    pub temperature: f64,
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

impl Default for GISTEmbedLoss {
    fn default() -> Self {
        Self {
            guide: String::new(),
            temperature: 0.01,
            margin_strategy: MarginStrategy::Absolute,
            margin: 0.0,
            contrast_anchors: true,
            contrast_positives: true,
            gather_across_devices: false,
        }
    }
}

impl Settings for GISTEmbedLoss {
    fn validate(&self) -> Result<()> {
        inputs::positive("temperature", self.temperature)?;
        inputs::one_device(self.gather_across_devices)?;
        if !self.margin.is_finite() {
            return Err(Error::usage(format!("`margin` must be a finite number, got {}", self.margin)));
        }
        Ok(())
    }
}

impl GISTEmbedLoss {
    /// Cosines of the model, `-inf` where the guide's are above the threshold of the row.
    ///
    /// `scores`, `guide` `[batch, candidates]`, `threshold` `[batch, 1]`, `keep` 1 where nothing is left out.
    fn guided(scores: &Tensor, guide: &Tensor, threshold: &Tensor, keep: Option<&Tensor>) -> Result<Tensor> {
        let mut mask = guide.broadcast_gt(threshold)?;
        if let Some(keep) = keep {
            mask = mask.mul(&keep.eq(0u8)?)?;
        }
        Ok(stable::masked_fill(scores, &mask, f64::NEG_INFINITY)?)
    }
}

impl GISTEmbedLoss {
    /// The loss as `card`, which says how many columns of negatives there may be.
    pub(super) fn value(&self, card: &Card, outputs: &Outputs) -> Result<Tensor> {
        let columns = inputs::columns(card, outputs)?;
        if outputs.guide.len() != columns.len() {
            return Err(Error::Internal(format!("`{}` computes without its guide", card.name)));
        }
        let guide: Vec<Tensor> =
            outputs.guide.iter().map(|g| g.to_dtype(columns[0].dtype())).collect::<Result<_, _>>()?;
        let rows = columns[0].dim(0)?;
        let own = inputs::mask(rows, rows, columns[0].device(), |i, j| i == j)?;
        let positives = cosines(&guide[0], &guide[1])?;
        let diagonal = own.to_dtype(DType::F32)?.to_dtype(positives.dtype())?;
        let positive = positives.mul(&diagonal)?.sum_keepdim(D::Minus1)?; // [batch, 1]
        let threshold = match self.margin_strategy {
            MarginStrategy::Absolute => positive.affine(1.0, -self.margin)?,
            MarginStrategy::Relative => positive.sub(&positive.abs()?.affine(self.margin, 0.0)?)?,
        };
        let mut scores = vec![Self::guided(&cosines(&columns[0], &columns[1])?, &positives, &threshold, Some(&own))?];
        let mut add = |i: usize, j: usize| -> Result<()> {
            let scored =
                Self::guided(&cosines(&columns[i], &columns[j])?, &cosines(&guide[i], &guide[j])?, &threshold, None)?;
            scores.push(scored);
            Ok(())
        };
        if self.contrast_anchors {
            add(0, 0)?;
        }
        if self.contrast_positives {
            add(1, 1)?;
        }
        for negative in 2..columns.len() {
            add(0, negative)?;
        }
        let scores = Tensor::cat(&scores, 1)?.affine(1.0 / self.temperature, 0.0)?;
        let targets: Vec<u32> = (0..rows as u32).collect();
        Ok(ops::cross_entropy(&scores, &targets)?)
    }
}

/// `[n, m]`: the cosine of every row with every row.
fn cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let unit = |x: &Tensor| cosine::normalize(x, cosine::COSINE_SIMILARITY_EPS);
    Ok(ops::dot_products(&unit(a)?, &unit(b)?)?)
}

impl Loss for GISTEmbedLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn guide(&self) -> Option<&str> {
        Some(&self.guide)
    }

    fn compute(&self, outputs: &Outputs, _labels: Option<&Labels>) -> Result<Tensor> {
        self.value(&CARD, outputs)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::random_columns;

    fn value(loss: &GISTEmbedLoss, columns: &[Tensor], guide: &[Tensor]) -> f64 {
        let outputs = Outputs { guide: guide.to_vec(), ..Outputs::new(columns.to_vec()) };
        loss.compute(&outputs, None).unwrap().to_scalar::<f64>().unwrap()
    }

    #[test]
    fn what_the_guide_finds_too_similar_is_left_out() {
        let columns = random_columns(3, 4, 5, 3);
        let loss = GISTEmbedLoss { temperature: 0.1, ..GISTEmbedLoss::default() };
        // to a guide for which all is alike nothing lies above the positive: every candidate counts
        let alike: Vec<Tensor> = (0..3).map(|_| columns[0].ones_like().unwrap()).collect();
        let all = value(&GISTEmbedLoss { margin: -1.0, ..loss.clone() }, &columns, &alike);
        // with a margin all but the positive lie above the threshold
        let none = value(&GISTEmbedLoss { margin: 0.5, ..loss.clone() }, &columns, &alike);
        assert!(none.abs() < 1e-12 && all > 0.1, "{none} {all}");
        let some = value(&loss, &columns, &random_columns(3, 4, 7, 5));
        assert!(some > none && some < all, "{some}");
    }

    #[test]
    fn it_needs_a_guide() {
        let loss = GISTEmbedLoss::default();
        assert!(loss.compute(&Outputs::new(random_columns(2, 3, 4, 1)), None).is_err());
        assert_eq!(loss.guide(), Some(""));
        assert!(GISTEmbedLoss { temperature: 0.0, ..loss }.validate().is_err());
    }
}
