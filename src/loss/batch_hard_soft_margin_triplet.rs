//! BatchHardSoftMarginTripletLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mining::{BatchDistance, Mining};
use crate::error::Result;
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::ops::logsumexp;
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
        "It never gets to 0: rows that are well apart go on being pushed, ever more weakly.",
    ],
    paper: "https://arxiv.org/abs/1703.07737",
    ..Card::new("BatchHardSoftMarginTripletLoss", "BatchHardTripletLoss with a smooth function instead of a margin.")
};

/// Wants the nearest row of another class further away than the furthest row of the own class, without a margin.
///
/// `loss = mean over rows a of log(1 + exp(max over p of d(a, p) - min over n of d(a, n)))`.
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
/// `distance_metric = "euclidean_distance"`, the reference's. There is no margin to choose.
///
/// # Related
/// `BatchHardTripletLoss` is the same with a margin; `BatchAllTripletLoss` counts every triplet.
///
/// # Source
/// [Hermans et al. 2017](https://arxiv.org/abs/1703.07737); `losses/batch_hard_soft_margin_triplet.py` of sentence-transformers.
/// As there, a row without another of its class has 0 for `d(a, p)`, and one without a row of another class counts
/// `log 2`, with no gradient.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "BatchHardSoftMarginTripletLoss"
/// distance_metric = "cosine_distance"
///
/// [args]
/// batch_sampler = "group_by_label"
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchHardSoftMarginTripletLoss {
    /// How distance is measured: `euclidean_distance` or `cosine_distance`.
    pub distance_metric: BatchDistance,
}

impl Settings for BatchHardSoftMarginTripletLoss {}

impl Loss for BatchHardSoftMarginTripletLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let mining = Mining::new(&CARD, self.distance_metric, outputs, labels)?;
        let softplus = |x: &Tensor| logsumexp(&Tensor::stack(&[x, &x.zeros_like()?], 1)?);
        let sum = mining.hardest(|differences| softplus(differences)?.sum_all())?;
        Ok(sum.affine(1.0 / mining.rows() as f64, 0.0)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::mining::tests::line;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn by_hand() {
        let value = |points: &[f64], classes: &[i64]| -> f64 {
            let loss = BatchHardSoftMarginTripletLoss::default();
            loss.compute(&line(points), Some(&Labels::Int(classes.to_vec()))).unwrap().to_scalar().unwrap()
        };
        let softplus = |x: f64| (1.0 + x.exp()).ln();
        // Differences -2, -2, 2 and -2.
        let expected = (3.0 * softplus(-2.0) + softplus(2.0)) / 4.0;
        assert!((value(&[0.0, 1.0, 4.0, 6.0], &[7, 7, 7, 1]) - expected).abs() < 1e-12);
        assert!((value(&[0.0, 1.0, 4.0], &[1, 1, 1]) - 2f64.ln()).abs() < 1e-12, "one class");
        let far = (8999.0 + softplus(1.0) + softplus(-1.0)) / 3.0;
        assert!((value(&[0.0, 9000.0, 1.0], &[1, 1, 2]) - far).abs() < 1e-9, "no overflow");
    }

    #[test]
    fn gradient() {
        let labels = Labels::Int(vec![3, 1, 3, 1, 1, 2]);
        for distance_metric in [BatchDistance::CosineDistance, BatchDistance::EuclideanDistance] {
            let loss = BatchHardSoftMarginTripletLoss { distance_metric };
            check_gradient(&loss, &random_columns(1, 6, 5, 3), Some(&labels));
        }
    }
}
