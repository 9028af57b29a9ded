//! ContrastiveLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use crate::error::Result;
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::scoring::{cosine, stable};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(anchor, positive or negative) pairs"],
    columns: (2, 2),
    labels: LabelKind::Float,
    gotchas: &[
        "Labels are 1 for similar and 0 for dissimilar pairs; one in between weighs both terms.",
        "The margin belongs to the metric: with `cosine_distance` distances lie in [0, 2].",
    ],
    paper: "https://doi.org/10.1109/CVPR.2006.100",
    ..Card::new("ContrastiveLoss", "Pulls similar pairs together and pushes dissimilar ones past a margin.")
};

/// How far apart the two embeddings of a pair are (`SiameseDistanceMetric`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SiameseDistance {
    /// The L2 norm of the difference.
    #[serde(alias = "EUCLIDEAN", alias = "SiameseDistanceMetric.EUCLIDEAN")]
    Euclidean,
    /// The L1 norm of the difference.
    #[serde(alias = "MANHATTAN", alias = "SiameseDistanceMetric.MANHATTAN")]
    Manhattan,
    /// 1 - cosine.
    #[default]
    #[serde(alias = "COSINE_DISTANCE", alias = "SiameseDistanceMetric.COSINE_DISTANCE", alias = "cosine")]
    CosineDistance,
}

/// What `torch.nn.functional.pairwise_distance` adds to every difference.
const PAIRWISE_EPS: f64 = 1e-6;

impl SiameseDistance {
    /// The distance of each pair of rows: two `[n, dim]` to `[n]`.
    pub(super) fn pairwise(self, a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
        let difference = || a.sub(b)?.affine(1.0, PAIRWISE_EPS);
        match self {
            Self::Euclidean => stable::sqrt(&difference()?.sqr()?.sum(1)?),
            Self::Manhattan => stable::abs(&difference()?)?.sum(1),
            Self::CosineDistance => cosine::pairwise(a, b, cosine::COSINE_SIMILARITY_EPS)?.affine(-1.0, 1.0),
        }
    }
}

/// Pulls the two embeddings of a similar pair together, and pushes those of a dissimilar one a margin apart.
///
/// `loss = mean over rows of 0.5 * (label * d^2 + (1 - label) * max(margin - d, 0)^2)`, where `d` is the distance of
/// the two embeddings.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (anchor, positive or negative) pairs | 1 for a positive, 0 for a negative |
///
/// # Shapes
/// Two embeddings of `[batch, dim]`, labels `[batch]`; the result is a scalar.
///
/// # Defaults
/// `distance_metric = "cosine_distance"` and `margin = 0.5`: a negative with a cosine below 0.5 is far enough.
/// `size_average = true` takes the mean, so that the value does not grow with the batch.
///
/// # Related
/// `OnlineContrastiveLoss` counts only the hard pairs of a batch and is usually stronger. `CoSENTLoss` ranks scores.
///
/// # Source
/// [Hadsell et al. 2006](https://doi.org/10.1109/CVPR.2006.100); `losses/contrastive.py` of sentence-transformers.
/// Euclidean and Manhattan distances are torch's `pairwise_distance`, which adds 1e-6 to every difference.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "ContrastiveLoss"
/// margin = 0.5
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveLoss {
    /// How distance is measured: `cosine_distance`, `euclidean` or `manhattan`.
    pub distance_metric: SiameseDistance,
    /// From which distance on a negative pair is left alone.
    pub margin: f64,
    /// Whether the mean of the rows is taken, or their sum.
    pub size_average: bool,
}

impl Default for ContrastiveLoss {
    fn default() -> Self {
        Self { distance_metric: SiameseDistance::default(), margin: 0.5, size_average: true }
    }
}

impl Settings for ContrastiveLoss {
    fn validate(&self) -> Result<()> {
        inputs::not_negative("margin", self.margin)
    }
}

impl Loss for ContrastiveLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let columns = inputs::columns(&CARD, outputs)?;
        let labels = inputs::scores(&CARD, labels, columns[0].dim(0)?)?;
        let distances = self.distance_metric.pairwise(&columns[0], &columns[1])?; // [n]
        let near = inputs::vector(labels, distances.dtype(), distances.device())?;
        let far = near.affine(-1.0, 1.0)?;
        let short = stable::relu(&distances.affine(-1.0, self.margin)?)?;
        let losses = near.mul(&distances.sqr()?)?.add(&far.mul(&short.sqr()?)?)?.affine(0.5, 0.0)?;
        Ok(if self.size_average { losses.mean_all()? } else { losses.sum_all()? })
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
        let a = Tensor::new(&[[2.0f64, 0.0], [3.0, 4.0], [1.0, 0.0]], &device).unwrap();
        let b = Tensor::new(&[[0.0f64, 7.0], [4.0, 3.0], [0.0, 1.0]], &device).unwrap();
        let outputs = Outputs::new(vec![a, b]);
        // Distances 1, 0.04 and 1: a positive, a negative that is too near, one that is far enough.
        let labels = Labels::Int(vec![1, 0, 0]);
        let expected = 0.5 * (1.0 + 0.46 * 0.46);
        for (size_average, expected) in [(false, expected), (true, expected / 3.0)] {
            let loss = ContrastiveLoss { size_average, ..Default::default() };
            let value = loss.compute(&outputs, Some(&labels)).unwrap().to_scalar::<f64>().unwrap();
            assert!((value - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn gradient() {
        let labels = Labels::Float(vec![1.0, 0.0, 0.0, 0.25]);
        for distance_metric in [SiameseDistance::Euclidean, SiameseDistance::Manhattan, SiameseDistance::CosineDistance]
        {
            for margin in [0.5, 4.0] {
                let loss = ContrastiveLoss { distance_metric, margin, ..Default::default() };
                check_gradient(&loss, &random_columns(2, 4, 5, 3), Some(&labels));
            }
        }
    }

    #[test]
    fn a_margin_is_not_negative() {
        assert!(ContrastiveLoss { margin: -0.1, ..Default::default() }.validate().is_err());
    }
}
