//! MultipleNegativesRankingLoss of a model that reads pairs.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::logits;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Card, LabelKind, Labels, ModelType, Outputs, Pairing};
use crate::loss::{Loss, inputs};
use crate::ops;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::CrossEncoder],
    inputs: &[
        "(query, passage) pairs",
        "(query, positive, negative) triplets",
        "(query, positive, negative_1, ..., negative_n)",
    ],
    columns: (2, usize::MAX),
    labels: LabelKind::None,
    in_batch_negatives: true,
    gotchas: &[
        "A step reads `1 + num_negatives` pairs a row, and one more for each negative of its own.",
        "Passages of other rows are taken for wrong: use `batch_sampler = \"no_duplicates\"`.",
        "Negatives drawn from the batch are easy: mined hard negatives as further columns teach more.",
        "The model's `activation_fn` has to be `Identity`; that of the loss is its own and used in training only.",
    ],
    paper: "https://arxiv.org/abs/1807.03748",
    ..Card::new(
        "MultipleNegativesRankingLoss",
        "Picks each query's passage among passages of other rows; for pairs without labels.",
    )
};

/// How many texts of other rows are drawn for each query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number or \"all\"")]
pub enum Negatives {
    /// So many, or all if there are fewer.
    Drawn(usize),
    /// Every one.
    Every(Every),
}

/// The word for no drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// All that there are in the batch.
    All,
}

/// Picks the positive of each query among candidates, most of them from other rows of the batch.
///
/// `loss = mean over rows of log(sum over candidates c of exp(scale * a(q, c))) - scale * a(q, p)`, where `a` is the
/// logit after the activation. Candidates are the positive `p`, `num_negatives` texts of other rows, drawn anew in each
/// step from their positives and negatives, and the row's own negatives.
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
/// `num_negatives = 4`: every candidate costs a pass through the model. `activation_fn = "Sigmoid"` with `scale = 10`
/// puts logits between 0 and 10 and bounds what one pair can add.
///
/// # Related
/// `CachedMultipleNegativesRankingLoss` for many candidates in little memory. `BinaryCrossEntropyLoss` on mined hard
/// negatives is usually stronger.
///
/// # Source
/// [van den Oord et al. 2018](https://arxiv.org/abs/1807.03748);
/// `cross_encoder/losses/multiple_negatives_ranking.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "CrossEncoder"
/// [loss]
/// name = "MultipleNegativesRankingLoss"
/// num_negatives = 7
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MultipleNegativesRankingLoss {
    /// How many texts of other rows each query is paired with in a step; `all` for all there are.
    pub num_negatives: Negatives,
    /// Inverse temperature: activated logits are multiplied by it.
    pub scale: f64,
    /// Applied to the logits before scaling.
    pub activation_fn: ActivationFn,
}

impl Default for MultipleNegativesRankingLoss {
    fn default() -> Self {
        Self { num_negatives: Negatives::Drawn(4), scale: 10.0, activation_fn: ActivationFn::Sigmoid }
    }
}

impl Settings for MultipleNegativesRankingLoss {
    fn validate(&self) -> Result<()> {
        if self.num_negatives == Negatives::Drawn(0) {
            return Err(Error::usage("`num_negatives` must be 1 or more, got 0")
                .with_hint("write `num_negatives = \"all\"` for every text of the other rows"));
        }
        inputs::positive("scale", self.scale)
    }
}

impl Loss for MultipleNegativesRankingLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn pairing(&self) -> Pairing {
        Pairing::InBatch {
            negatives: match self.num_negatives {
                Negatives::Drawn(count) => Some(count),
                Negatives::Every(Every::All) => None,
            },
        }
    }

    fn compute(&self, outputs: &Outputs, _labels: Option<&Labels>) -> Result<Tensor> {
        self.over_candidates(&CARD, outputs)
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        logits::check_one(&CARD, dim)
    }
}

impl MultipleNegativesRankingLoss {
    /// The loss over a batch's columns, as many as there are candidates.
    pub(super) fn over_candidates(&self, card: &Card, outputs: &Outputs) -> Result<Tensor> {
        let scores = logits::scores(card, outputs, self.activation_fn)?;
        let scores = Tensor::stack(&scores, 1)?.affine(self.scale, 0.0)?; // [n, candidates]
        Ok(ops::cross_entropy(&scores, &vec![0; scores.dim(0)?])?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn gradient() {
        for activation_fn in [ActivationFn::Sigmoid, ActivationFn::Identity] {
            let loss = MultipleNegativesRankingLoss { activation_fn, scale: 3.0, ..Default::default() };
            check_gradient(&loss, &random_columns(2, 3, 1, 3), None);
            check_gradient(&loss, &random_columns(6, 4, 1, 3), None);
        }
    }

    #[test]
    fn the_number_of_negatives_is_asked_for() {
        let made =
            |settings: serde_json::Value| -> MultipleNegativesRankingLoss { serde_json::from_value(settings).unwrap() };
        assert_eq!(made(serde_json::json!({})).pairing(), Pairing::InBatch { negatives: Some(4) });
        let all = made(serde_json::json!({"num_negatives": "all"}));
        assert_eq!(all.pairing(), Pairing::InBatch { negatives: None });
        assert_eq!(all.config()["num_negatives"], "all");
        assert!(made(serde_json::json!({"num_negatives": 0})).validate().is_err());
        assert!(made(serde_json::json!({"scale": 0})).validate().is_err());
        assert!(all.check_dim(3).is_err());
    }
}
