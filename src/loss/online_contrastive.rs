//! OnlineContrastiveLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrastive::SiameseDistance;
use super::inputs;
use crate::error::Result;
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::scoring::stable;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["(anchor, positive or negative) pairs"],
    columns: (2, 2),
    labels: LabelKind::Float,
    compares_rows: true,
    gotchas: &[
        "Labels are 1 and 0; pairs with any other label are passed over.",
        "The sum over the hard pairs of a batch, not a mean: the value and its gradient grow with the batch size.",
        "Once every positive of a batch is nearer than every negative, the batch has loss 0 and teaches nothing.",
    ],
    paper: "https://doi.org/10.1109/CVPR.2006.100",
    ..Card::new("OnlineContrastiveLoss", "ContrastiveLoss on the hard pairs of the batch only.")
};

/// [`ContrastiveLoss`](super::contrastive::ContrastiveLoss) on the hard pairs of the batch.
///
/// `loss = sum over hard positives of d^2 + sum over hard negatives of max(margin - d, 0)^2`. A positive is hard when
/// it is further apart than the nearest negative, a negative when it is nearer than the furthest positive. A batch
/// without negatives (or positives) has the mean distance instead.
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
/// `distance_metric = "cosine_distance"` and `margin = 0.5`, as `ContrastiveLoss`.
///
/// # Related
/// `ContrastiveLoss` counts all pairs. `MultipleNegativesRankingLoss` on the positives alone is usually stronger.
///
/// # Source
/// `losses/online_contrastive.py` of sentence-transformers. Without a hard pair the loss is 0.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "OnlineContrastiveLoss"
/// margin = 0.5
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnlineContrastiveLoss {
    /// How distance is measured: `cosine_distance`, `euclidean` or `manhattan`.
    pub distance_metric: SiameseDistance,
    /// From which distance on a negative pair is left alone.
    pub margin: f64,
}

impl Default for OnlineContrastiveLoss {
    fn default() -> Self {
        Self { distance_metric: SiameseDistance::default(), margin: 0.5 }
    }
}

impl Settings for OnlineContrastiveLoss {
    fn validate(&self) -> Result<()> {
        inputs::not_negative("margin", self.margin)
    }
}

impl Loss for OnlineContrastiveLoss {
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
        let (positives, negatives) = hard(&inputs::host(&distances)?, &labels);
        let weights = |chosen| inputs::vector(chosen, distances.dtype(), distances.device());
        let short = stable::relu(&distances.affine(-1.0, self.margin)?)?;
        let near = distances.sqr()?.mul(&weights(positives)?)?;
        Ok(near.add(&short.sqr()?.mul(&weights(negatives)?)?)?.sum_all()?)
    }
}

/// 1 for each hard positive, and 1 for each hard negative.
fn hard(distances: &[f64], labels: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let of = |label: f32| distances.iter().zip(labels).filter(move |(_, l)| **l == label).map(|(d, _)| *d);
    // Of no pairs a mean is NaN, with which nothing compares.
    let mean = |label: f32| of(label).sum::<f64>() / of(label).count() as f64;
    let furthest = of(1.0).reduce(f64::max).unwrap_or_else(|| mean(0.0));
    let nearest = of(0.0).reduce(f64::min).unwrap_or_else(|| mean(1.0));
    let pick = |label: f32, is_hard: &dyn Fn(f64) -> bool| {
        let chosen = distances.iter().zip(labels).map(|(d, l)| *l == label && is_hard(*d));
        chosen.map(|chosen| f32::from(u8::from(chosen))).collect()
    };
    (pick(1.0, &|d| d > nearest), pick(0.0, &|d| d < furthest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn hard_pairs() {
        let chosen = |labels: &[f32]| hard(&[0.1, 0.5, 0.3, 0.7], labels);
        let none = vec![0.0; 4];
        assert_eq!(chosen(&[1.0, 1.0, 0.0, 0.0]), (vec![0.0, 1.0, 0.0, 0.0], vec![0.0, 0.0, 1.0, 0.0]));
        assert_eq!(chosen(&[1.0, 0.0, 0.0, 0.0]), (none.clone(), none.clone()), "well apart");
        // The mean is 0.4.
        assert_eq!(chosen(&[1.0; 4]), (vec![0.0, 1.0, 0.0, 1.0], none.clone()));
        assert_eq!(chosen(&[0.0; 4]), (none.clone(), vec![1.0, 0.0, 1.0, 0.0]));
        assert_eq!(chosen(&[0.5; 4]), (none.clone(), none.clone()), "neither");
        assert_eq!(hard(&[0.2; 4], &[1.0, 1.0, 0.0, 0.0]), (none.clone(), none), "ties are not hard");
        assert_eq!(hard(&[0.9, 0.9, 0.1, 0.1], &[1.0, 1.0, 0.0, 0.0]).0, [1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn gradient() {
        let labels = Labels::Float(vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
        for distance_metric in [SiameseDistance::Euclidean, SiameseDistance::Manhattan, SiameseDistance::CosineDistance]
        {
            let loss = OnlineContrastiveLoss { distance_metric, margin: 6.0 };
            check_gradient(&loss, &random_columns(2, 6, 5, 3), Some(&labels));
        }
    }

    #[test]
    fn no_hard_pair_is_0() {
        let outputs = Outputs::new(random_columns(2, 1, 4, 2));
        let value = OnlineContrastiveLoss::default().compute(&outputs, Some(&Labels::Int(vec![1]))).unwrap();
        assert_eq!(value.to_scalar::<f64>().unwrap(), 0.0);
        let refused = OnlineContrastiveLoss::default().compute(&outputs, None).unwrap_err();
        assert!(refused.to_string().contains("the batch has no labels"));
    }
}
