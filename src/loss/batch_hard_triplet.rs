//! BatchHardTripletLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use super::mining::{BatchDistance, Mining};
use crate::error::Result;
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::scoring::stable;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["single texts with classes"],
    columns: (1, 1),
    labels: LabelKind::Int,
    compares_rows: true,
    compares_labels: true,
    gotchas: &[
        "A batch needs rows of at least two classes and two rows of each: use `batch_sampler = \"group_by_label\"`.",
        "The margin belongs to the metric: normalised embeddings are at most 2 apart, so the default margin of 5 is never \
         reached; use about 0.3.",
        "Outliers and wrong labels are the hardest: with noisy classes take BatchSemiHardTripletLoss.",
    ],
    paper: "https://arxiv.org/abs/1703.07737",
    ..Card::new(
        "BatchHardTripletLoss",
        "The furthest positive and the nearest negative of each row, the classes saying which.",
    )
};

/// Keeps the nearest row of another class a margin further away than the furthest row of the own class.
///
/// `loss = mean over rows a of max(max over p of d(a, p) - min over n of d(a, n) + margin, 0)`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | single texts | the class of each |
///
/// # Shapes
/// One embedding of `[batch, dim]`, classes `[batch]`; the result is a scalar. Distances are `[batch, batch]`.
///
/// # Defaults
/// `distance_metric = "euclidean_distance"` and `margin = 5`, the reference's, made for embeddings that are not
/// normalised; normalised ones are at most 2 apart and want a margin well below that.
///
/// # Related
/// `BatchHardSoftMarginTripletLoss` has no margin to choose, `BatchAllTripletLoss` counts every triplet.
///
/// # Source
/// [Hermans et al. 2017](https://arxiv.org/abs/1703.07737); `losses/batch_hard_triplet.py` of sentence-transformers.
/// As there, a row without another of its class has 0 for `d(a, p)`, and one without a row of another class counts
/// `margin`, with no gradient. Where two embeddings are equal the gradient of their distance is 0.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "BatchHardTripletLoss"
/// distance_metric = "cosine_distance"
/// margin = 0.3
///
/// [args]
/// batch_sampler = "group_by_label"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchHardTripletLoss {
    /// How distance is measured: `euclidean_distance` or `cosine_distance`.
    pub distance_metric: BatchDistance,
    /// How much further away than a positive a negative has to be, in units of the metric.
    pub margin: f64,
}

impl Default for BatchHardTripletLoss {
    fn default() -> Self {
        Self { distance_metric: BatchDistance::EuclideanDistance, margin: 5.0 }
    }
}

impl Settings for BatchHardTripletLoss {
    fn validate(&self) -> Result<()> {
        inputs::not_negative("margin", self.margin)
    }
}

impl Loss for BatchHardTripletLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let mining = Mining::new(&CARD, self.distance_metric, outputs, labels)?;
        let sum = mining.hardest(|differences| stable::relu(&differences.affine(1.0, self.margin)?)?.sum_all())?;
        Ok(sum.affine(1.0 / mining.rows() as f64, 0.0)?)
    }

    fn check_dim(&self, _dim: usize) -> Result<Vec<String>> {
        Ok(self.distance_metric.out_of_reach(CARD.name, self.margin))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::mining::tests::line;
    use crate::loss::tests::{check_gradient, random_columns};

    fn value(points: &[f64], classes: &[i64], margin: f64) -> f64 {
        let loss = BatchHardTripletLoss { margin, ..Default::default() };
        loss.compute(&line(points), Some(&Labels::Int(classes.to_vec()))).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn by_hand() {
        // Differences -2, -2, 2 and -2.
        assert_eq!(value(&[0.0, 1.0, 4.0, 6.0], &[7, 7, 7, 1], 1.0), 3.0 / 4.0);
        assert_eq!(value(&[0.0, 1.0, 4.0], &[1, 1, 1], 5.0), 5.0, "one class");
        let each = value(&[0.0, 1.0, 4.0], &[1, 2, 3], 5.0);
        assert!((each - (4.0 + 4.0 + 2.0) / 3.0).abs() < 1e-12, "a class each: {each}");
    }

    #[test]
    fn gradient() {
        let labels = Labels::Int(vec![3, 1, 3, 1, 1, 2]);
        for distance_metric in [BatchDistance::CosineDistance, BatchDistance::EuclideanDistance] {
            for margin in [0.3, 5.0] {
                check_gradient(
                    &BatchHardTripletLoss { distance_metric, margin },
                    &random_columns(1, 6, 5, 3),
                    Some(&labels),
                );
            }
        }
    }

    #[test]
    fn a_margin_out_of_reach_is_told() {
        let loss = BatchHardTripletLoss { distance_metric: BatchDistance::CosineDistance, ..Default::default() };
        assert_eq!(loss.check_dim(8).unwrap().len(), 1);
        assert!(BatchHardTripletLoss::default().check_dim(8).unwrap().is_empty());
        assert!(BatchHardTripletLoss { margin: -1.0, ..Default::default() }.validate().is_err());
        let outputs = line(&[1.0, 2.0]);
        let error = loss.compute(&outputs, None).unwrap_err();
        assert_eq!(error.to_string(), "`BatchHardTripletLoss` takes a class a row, the batch has no labels");
    }
}
