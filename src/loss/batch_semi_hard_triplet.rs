//! BatchSemiHardTripletLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use super::mining::{Anchor, BatchDistance, Mining};
use crate::error::Result;
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
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
        "While all classes lie on top of each other there is no semi-hard negative, and the furthest one serves.",
    ],
    paper: "https://arxiv.org/abs/1503.03832",
    ..Card::new(
        "BatchSemiHardTripletLoss",
        "For each positive the nearest negative that is further away, the classes saying which.",
    )
};

/// Keeps the nearest negative that is further away than the positive a margin further away.
///
/// `loss = sum over pairs (a, p) of max(d(a, p) - d(a, n) + margin, 0) / number of pairs`, where `n` is the nearest row
/// of another class with `d(a, n) > d(a, p)`, or, if there is none, the furthest row of another class.
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
/// `BatchHardTripletLoss` takes the hardest negatives, which noisy labels spoil more easily; `BatchAllTripletLoss` all.
///
/// # Source
/// [Schroff et al. 2015](https://arxiv.org/abs/1503.03832); `losses/batch_semi_hard_triplet.py` of
/// sentence-transformers. A batch without pairs has loss 0; a row without a row of another class counts `d(a, p) +
/// margin`, as there.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "BatchSemiHardTripletLoss"
/// distance_metric = "cosine_distance"
/// margin = 0.3
///
/// [args]
/// batch_sampler = "group_by_label"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSemiHardTripletLoss {
    /// How distance is measured: `euclidean_distance` or `cosine_distance`.
    pub distance_metric: BatchDistance,
    /// How much further away than a positive a negative has to be, in units of the metric.
    pub margin: f64,
}

impl Default for BatchSemiHardTripletLoss {
    fn default() -> Self {
        Self { distance_metric: BatchDistance::EuclideanDistance, margin: 5.0 }
    }
}

impl Settings for BatchSemiHardTripletLoss {
    fn validate(&self) -> Result<()> {
        inputs::not_negative("margin", self.margin)
    }
}

impl Loss for BatchSemiHardTripletLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let mining = Mining::new(&CARD, self.distance_metric, outputs, labels)?;
        let pairs = mining.positive_pairs().max(1) as f64;
        let (sum, active) = mining.sum(|anchor, weights| weigh(anchor, self.margin, weights), |sums| sums.sum_all())?;
        Ok(sum.affine(1.0 / pairs, self.margin * active as f64 / pairs)?)
    }

    fn check_dim(&self, _dim: usize) -> Result<Vec<String>> {
        Ok(self.distance_metric.out_of_reach(CARD.name, self.margin))
    }
}

/// Adds 1 for the positive and takes 1 from the negative of each pair that breaks the margin; returns how many.
fn weigh(anchor: &Anchor<'_>, margin: f64, weights: &mut [f64]) -> usize {
    let negatives = anchor.sorted_negatives();
    // Of equally far ones the first row, so that the furthest is the first of the last run.
    let furthest = negatives.last().map(|last| anchor.distances[*last]);
    let furthest = furthest.map(|far| negatives.partition_point(|n| anchor.distances[*n] < far));
    let mut count = 0;
    for p in anchor.positives() {
        let near = anchor.distances[p];
        let outside = negatives.partition_point(|n| anchor.distances[*n] <= near);
        let negative = negatives.get(outside).or_else(|| negatives.get(furthest?)).copied();
        let far = negative.map_or(0.0, |n| anchor.distances[n]);
        if near - far + margin > 0.0 {
            weights[p] += 1.0;
            if let Some(n) = negative {
                weights[n] -= 1.0;
            }
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::mining::tests::line;
    use crate::loss::tests::{check_gradient, random_columns};

    fn value(points: &[f64], classes: &[i64], margin: f64) -> f64 {
        let loss = BatchSemiHardTripletLoss { margin, ..Default::default() };
        loss.compute(&line(points), Some(&Labels::Int(classes.to_vec()))).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn by_hand() {
        // Anchors 0, 1, 2 of one class, with negatives at distances (2.5, 6), (1.5, 5) and (1.5, 2).
        let triplets = [1.0 - 2.5, 4.0 - 6.0, 1.0 - 1.5, 3.0 - 5.0, 4.0 - 2.0, 3.0 - 2.0];
        let expected = triplets.iter().map(|d: &f64| (d + 1.0).max(0.0)).sum::<f64>() / 8.0;
        // Those of the other class: 3.5 apart, both with a negative at 3.5 or beyond, or the furthest one.
        let others = [(3.5 - 2.5 + 1.0), (3.5 - 5.0f64 + 1.0).max(0.0)];
        let expected = expected + others.iter().sum::<f64>() / 8.0;
        let got = value(&[0.0, 1.0, 4.0, 2.5, 6.0], &[7, 7, 7, 1, 1], 1.0);
        assert!((got - expected).abs() < 1e-12, "{got} {expected}");
    }

    #[test]
    fn without_pairs_or_negatives() {
        assert_eq!(value(&[0.0, 1.0, 4.0], &[1, 2, 3], 5.0), 0.0);
        assert_eq!(value(&[0.0, 1.0], &[1, 1], 5.0), 6.0, "the margin and the distance");
    }

    #[test]
    fn gradient() {
        let labels = Labels::Int(vec![3, 1, 3, 1, 1, 2]);
        for distance_metric in [BatchDistance::CosineDistance, BatchDistance::EuclideanDistance] {
            for margin in [0.3, 5.0] {
                check_gradient(
                    &BatchSemiHardTripletLoss { distance_metric, margin },
                    &random_columns(1, 6, 5, 3),
                    Some(&labels),
                );
            }
        }
    }
}
