//! TripletLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use crate::error::Result;
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::scoring::{Similarity, stable};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(anchor, positive, negative) triplets"],
    columns: (3, 3),
    labels: LabelKind::None,
    gotchas: &[
        "The margin belongs to the metric: with `cosine` distances lie in [0, 2], so the default margin of 5 is never \
         reached; use about 0.3.",
        "MultipleNegativesRankingLoss takes the same triplets, adds in-batch negatives and is usually stronger.",
    ],
    paper: "https://arxiv.org/abs/1703.07737",
    ..Card::new("TripletLoss", "Keeps the negative a margin further away from the anchor than the positive.")
};

/// How far apart two embeddings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DistanceMetric {
    /// 1 - cosine.
    #[serde(alias = "COSINE", alias = "TripletDistanceMetric.COSINE")]
    Cosine,
    /// The L2 norm of the difference.
    #[default]
    #[serde(alias = "EUCLIDEAN", alias = "TripletDistanceMetric.EUCLIDEAN")]
    Euclidean,
    /// The L1 norm of the difference.
    #[serde(alias = "MANHATTAN", alias = "TripletDistanceMetric.MANHATTAN")]
    Manhattan,
}

impl DistanceMetric {
    /// The distance of each pair of rows: two `[n, dim]` to `[n]`.
    fn pairwise(self, a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Cosine => Similarity::Cosine.pairwise(a, b)?.affine(-1.0, 1.0),
            Self::Euclidean => Similarity::Euclidean.pairwise(a, b)?.neg(),
            Self::Manhattan => Similarity::Manhattan.pairwise(a, b)?.neg(),
        }
    }
}

/// Keeps the negative at least a margin further away from the anchor than the positive.
///
/// `loss = mean over rows of max(d(anchor, positive) - d(anchor, negative) + triplet_margin, 0)`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (anchor, positive, negative) triplets | none |
///
/// # Shapes
/// Three embeddings of `[batch, dim]`; the result is a scalar.
///
/// # Defaults
/// `distance_metric = "euclidean"` and `triplet_margin = 5`, the reference's, made for embeddings that are not
/// normalised; normalised ones are at most 2 apart and want a margin well below that.
///
/// # Related
/// `MultipleNegativesRankingLoss` takes the same triplets and uses the rest of the batch as further negatives.
///
/// # Source
/// [Hermans et al. 2017](https://arxiv.org/abs/1703.07737); `losses/triplet.py` of sentence-transformers. Where two
/// embeddings are equal the gradient of their distance is 0.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "TripletLoss"
/// distance_metric = "cosine"
/// triplet_margin = 0.3
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TripletLoss {
    /// How distance is measured: `cosine`, `euclidean` or `manhattan`.
    pub distance_metric: DistanceMetric,
    /// How much further away than the positive the negative has to be, in units of the metric.
    pub triplet_margin: f64,
}

impl Default for TripletLoss {
    fn default() -> Self {
        Self { distance_metric: DistanceMetric::Euclidean, triplet_margin: 5.0 }
    }
}

impl Settings for TripletLoss {
    fn validate(&self) -> Result<()> {
        inputs::not_negative("triplet_margin", self.triplet_margin)
    }
}

impl Loss for TripletLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, _labels: Option<&Labels>) -> Result<Tensor> {
        let columns = inputs::columns(&CARD, outputs)?;
        let near = self.distance_metric.pairwise(&columns[0], &columns[1])?;
        let far = self.distance_metric.pairwise(&columns[0], &columns[2])?;
        Ok(stable::relu(&near.sub(&far)?.affine(1.0, self.triplet_margin)?)?.mean_all()?)
    }

    fn check_dim(&self, _dim: usize) -> Result<Vec<String>> {
        if self.distance_metric == DistanceMetric::Cosine && self.triplet_margin >= 2.0 {
            return Ok(vec![format!(
                "`TripletLoss`: cosine distances lie in [0, 2], so no triplet ever reaches `triplet_margin` {}; use about 0.3",
                self.triplet_margin
            )]);
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn by_hand() {
        let device = candle_core::Device::Cpu;
        let row = |x: [[f64; 2]; 1]| Tensor::new(&x, &device).unwrap();
        let outputs = Outputs::new(vec![row([[0.0, 0.0]]), row([[3.0, 4.0]]), row([[0.0, 2.0]])]);
        for (distance_metric, expected) in
            [(DistanceMetric::Euclidean, 5.0 - 2.0 + 1.0), (DistanceMetric::Manhattan, 7.0 - 2.0 + 1.0)]
        {
            let loss = TripletLoss { distance_metric, triplet_margin: 1.0 };
            assert_eq!(loss.compute(&outputs, None).unwrap().to_scalar::<f64>().unwrap(), expected);
        }
    }

    #[test]
    fn gradient() {
        for distance_metric in [DistanceMetric::Cosine, DistanceMetric::Euclidean, DistanceMetric::Manhattan] {
            for triplet_margin in [0.05, 5.0] {
                check_gradient(&TripletLoss { distance_metric, triplet_margin }, &random_columns(3, 4, 5, 3), None);
            }
        }
    }

    #[test]
    fn a_margin_out_of_reach_is_told() {
        let loss = TripletLoss { distance_metric: DistanceMetric::Cosine, ..Default::default() };
        assert_eq!(loss.check_dim(8).unwrap().len(), 1);
        assert!(TripletLoss::default().check_dim(8).unwrap().is_empty());
        assert!(TripletLoss { triplet_margin: -1.0, ..Default::default() }.validate().is_err());
    }
}
