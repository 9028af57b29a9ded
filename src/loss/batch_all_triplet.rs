//! BatchAllTripletLoss.

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
        "Triplets are counted, not made: time grows with the square of the batch size, memory with the batch size.",
    ],
    paper: "https://arxiv.org/abs/1703.07737",
    ..Card::new(
        "BatchAllTripletLoss",
        "Every triplet of a batch that breaks the margin, the classes saying which there are.",
    )
};

/// The mean over all triplets of the batch that break the margin.
///
/// `loss = mean over triplets with d(a, p) - d(a, n) + margin > 0 of that sum`, where `a` and `p` are different rows of
/// one class and `n` is a row of another.
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
/// `BatchHardTripletLoss` takes the hardest triplet of each row, `BatchSemiHardTripletLoss` the semi-hard negatives.
///
/// # Source
/// [Hermans et al. 2017](https://arxiv.org/abs/1703.07737); `losses/batch_all_triplet.py` of sentence-transformers.
/// Without such a triplet the loss is 0. Where two embeddings are equal the gradient of their distance is 0.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "BatchAllTripletLoss"
/// distance_metric = "cosine_distance"
/// margin = 0.3
///
/// [args]
/// batch_sampler = "group_by_label"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchAllTripletLoss {
    /// How distance is measured: `euclidean_distance` or `cosine_distance`.
    pub distance_metric: BatchDistance,
    /// How much further away than a positive a negative has to be, in units of the metric.
    pub margin: f64,
}

impl Default for BatchAllTripletLoss {
    fn default() -> Self {
        Self { distance_metric: BatchDistance::EuclideanDistance, margin: 5.0 }
    }
}

impl Settings for BatchAllTripletLoss {
    fn validate(&self) -> Result<()> {
        inputs::not_negative("margin", self.margin)
    }
}

impl Loss for BatchAllTripletLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let mining = Mining::new(&CARD, self.distance_metric, outputs, labels)?;
        let (sum, active) = mining.sum(|anchor, weights| weigh(anchor, self.margin, weights), |sums| sums.sum_all())?;
        if active == 0 {
            return Ok(sum); // no weights: 0
        }
        Ok(sum.affine(1.0 / active as f64, self.margin)?)
    }

    fn check_dim(&self, _dim: usize) -> Result<Vec<String>> {
        Ok(self.distance_metric.out_of_reach(CARD.name, self.margin))
    }
}

/// Adds 1 for the positive and takes 1 from the negative of every triplet that breaks the margin; returns how many.
///
/// With the negatives in order of distance, those that break it with a positive are the first so many.
fn weigh(anchor: &Anchor<'_>, margin: f64, weights: &mut [f64]) -> usize {
    /// From here on the reference counts a triplet.
    const LEAST: f64 = 1e-16;
    let negatives = anchor.sorted_negatives();
    // How many positives reach exactly the first `k` negatives.
    let mut reach = vec![0u32; negatives.len() + 1];
    let mut count = 0;
    for p in anchor.positives() {
        let near = anchor.distances[p];
        let broken = negatives.partition_point(|n| near - anchor.distances[*n] + margin > LEAST);
        weights[p] = broken as f64;
        reach[broken] += 1;
        count += broken;
    }
    let mut positives = 0;
    for (k, n) in negatives.iter().enumerate().rev() {
        positives += reach[k + 1];
        weights[*n] = -f64::from(positives);
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
        let loss = BatchAllTripletLoss { margin, ..Default::default() };
        loss.compute(&line(points), Some(&Labels::Int(classes.to_vec()))).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn by_hand() {
        let points = [0.0, 1.0, 1.5, 4.0];
        let mut active = Vec::new();
        for (a, p, n) in [(0, 1, 2), (0, 1, 3), (1, 0, 2), (1, 0, 3), (2, 3, 0), (2, 3, 1), (3, 2, 0), (3, 2, 1)] {
            let d = |i: usize, j: usize| -> f64 { f64::abs(points[i] - points[j]) };
            active.push(d(a, p) - d(a, n) + 1.0);
        }
        active.retain(|v| *v > 0.0);
        let expected = active.iter().sum::<f64>() / active.len() as f64;
        assert!((value(&points, &[0, 0, 1, 1], 1.0) - expected).abs() < 1e-12);
    }

    #[test]
    fn without_triplets_it_is_0() {
        for classes in [[1, 2, 3], [1, 1, 1]] {
            assert_eq!(value(&[0.0, 1.0, 4.0], &classes, 5.0), 0.0);
        }
        assert_eq!(value(&[0.0, 0.1, 4.0], &[1, 1, 2], 1.0), 0.0, "all are easy");
    }

    #[test]
    fn counting_equals_the_definition() {
        let distances = [0.0, 0.4, 0.9, 0.4, 0.7, 0.2, 1.3];
        let classes = [1, 1, 1, 2, 2, 1, 3];
        let anchor = crate::loss::mining::tests::anchor(&distances, &classes);
        for margin in [0.0, 0.25, 5.0] {
            let mut weights = vec![0.0; 7];
            let active = weigh(&anchor, margin, &mut weights);
            let mut expected = vec![0.0; 7];
            let mut count = 0;
            for p in [1, 2, 5] {
                for n in [3, 4, 6] {
                    if distances[p] - distances[n] + margin > 0.0 {
                        (expected[p], expected[n], count) = (expected[p] + 1.0, expected[n] - 1.0, count + 1);
                    }
                }
            }
            assert_eq!((weights, active), (expected, count));
        }
    }

    #[test]
    fn gradient() {
        let labels = Labels::Int(vec![3, 1, 3, 1, 1, 2]);
        for distance_metric in [BatchDistance::CosineDistance, BatchDistance::EuclideanDistance] {
            for margin in [0.3, 5.0] {
                check_gradient(
                    &BatchAllTripletLoss { distance_metric, margin },
                    &random_columns(1, 6, 5, 3),
                    Some(&labels),
                );
            }
        }
    }
}
