//! MultipleNegativesSymmetricRankingLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use super::multiple_negatives_ranking::{Direction, MultipleNegativesRankingLoss, PartitionMode};
use crate::error::Result;
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &[
        "(anchor, positive) pairs",
        "(anchor, positive, negative) triplets",
        "(anchor, positive, negative_1, ..., negative_n)",
    ],
    columns: (2, usize::MAX),
    labels: LabelKind::None,
    in_batch_negatives: true,
    gotchas: &[
        "Every other row is a negative, both ways: use `batch_sampler = \"no_duplicates\"`.",
        "Made for two sides that are alike; where questions look for answers, the way back from an answer to its question \
         may not be wanted.",
    ],
    paper: "https://arxiv.org/abs/2310.19923",
    ..Card::new(
        "MultipleNegativesSymmetricRankingLoss",
        "MultipleNegativesRankingLoss both ways: the positive of each anchor and the anchor of each positive.",
    )
};

/// Picks the positive of each anchor among all documents of the batch, and the anchor of each positive among all
/// anchors.
///
/// `loss = (forward + backward) / 2`, where `forward` is [`MultipleNegativesRankingLoss`] and `backward = mean over rows
/// i of log(sum over j of exp(scale * sim(p_i, a_j))) - scale * sim(p_i, a_i)`.
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
/// # Defaults
/// `scale = 20` is a temperature of 0.05, and `similarity_fct = "cosine"`, as `MultipleNegativesRankingLoss`.
///
/// # Related
/// `MultipleNegativesRankingLoss` with `directions = ["query_to_doc", "doc_to_query"]` and `partition_mode =
/// "per_direction"` is the same loss, and has more options.
///
/// # Source
/// [Günther et al. 2024](https://arxiv.org/abs/2310.19923); `losses/multiple_negatives_symmetric_ranking.py` of
/// sentence-transformers, which has deprecated the name in favour of the two settings.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "MultipleNegativesSymmetricRankingLoss"
/// scale = 20.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MultipleNegativesSymmetricRankingLoss {
    /// Inverse temperature: similarities are multiplied by it.
    pub scale: f64,
    /// How embeddings are compared.
    pub similarity_fct: Similarity,
    /// The reference's setting for training on several devices; only `false` is possible here.
    pub gather_across_devices: bool,
}

impl Default for MultipleNegativesSymmetricRankingLoss {
    fn default() -> Self {
        Self { scale: 20.0, similarity_fct: Similarity::Cosine, gather_across_devices: false }
    }
}

impl Settings for MultipleNegativesSymmetricRankingLoss {
    fn validate(&self) -> Result<()> {
        inputs::positive("scale", self.scale)?;
        inputs::one_device(self.gather_across_devices)
    }
}

impl Loss for MultipleNegativesSymmetricRankingLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        inputs::columns(&CARD, outputs)?;
        both_ways(self.scale, self.similarity_fct).compute(outputs, labels)
    }
}

/// The general loss that this one is.
pub(super) fn both_ways(scale: f64, similarity_fct: Similarity) -> MultipleNegativesRankingLoss {
    MultipleNegativesRankingLoss {
        scale,
        similarity_fct,
        directions: vec![Direction::QueryToDoc, Direction::DocToQuery],
        partition_mode: PartitionMode::PerDirection,
        ..MultipleNegativesRankingLoss::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn is_the_mean_of_both_ways() {
        let pairs = random_columns(2, 4, 5, 1);
        let value = |loss: &dyn Loss, columns: Vec<Tensor>| -> f64 {
            loss.compute(&Outputs::new(columns), None).unwrap().to_scalar().unwrap()
        };
        let one_way = MultipleNegativesRankingLoss::default();
        let back = vec![pairs[1].clone(), pairs[0].clone()];
        let expected = (value(&one_way, pairs.clone()) + value(&one_way, back)) / 2.0;
        let got = value(&MultipleNegativesSymmetricRankingLoss::default(), pairs);
        assert!((got - expected).abs() < 1e-12);
    }

    #[test]
    fn gradient() {
        for similarity_fct in Similarity::ALL {
            let loss =
                MultipleNegativesSymmetricRankingLoss { scale: 2.0, similarity_fct, gather_across_devices: false };
            check_gradient(&loss, &random_columns(3, 4, 5, 2), None);
        }
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let loss = MultipleNegativesSymmetricRankingLoss { gather_across_devices: true, ..Default::default() };
        assert!(loss.validate().unwrap_err().to_string().contains("a run uses one device"));
        let error = loss.compute(&Outputs::new(random_columns(1, 2, 3, 1)), None).unwrap_err();
        assert!(error.to_string().starts_with("`MultipleNegativesSymmetricRankingLoss` takes 2 or more input columns"));
    }
}
