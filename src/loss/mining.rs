//! Which rows of a batch form triplets, where labels say who belongs together?
//!
//! Which distances count is chosen on the host, without a gradient; what is chosen is a matrix of weights, and the loss
//! a function of the weighted distances of each row. That is what the reference's masks, maxima and minima come to, in
//! memory of the order of the matrix of distances, however many triplets there are.

use candle_core::Tensor;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use crate::error::Result;
use crate::flow::{Card, Labels, Outputs};
use crate::ops::dot_products;
use crate::scoring::{Similarity, stable};

/// How far apart the rows of a batch are (`BatchHardTripletLossDistanceFunction`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchDistance {
    /// 1 - cosine.
    #[serde(alias = "cosine", alias = "BatchHardTripletLossDistanceFunction.cosine_distance")]
    CosineDistance,
    /// The L2 norm of the difference; its gradient is 0 where two rows are equal.
    #[default]
    #[serde(
        alias = "euclidean",
        alias = "eucledian_distance",
        alias = "BatchHardTripletLossDistanceFunction.euclidean_distance",
        alias = "BatchHardTripletLossDistanceFunction.eucledian_distance"
    )]
    EuclideanDistance,
}

impl BatchDistance {
    /// The distances of all rows: `[n, dim]` to `[n, n]`.
    fn matrix(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::CosineDistance => Similarity::Cosine.matrix(x, x)?.affine(-1.0, 1.0),
            Self::EuclideanDistance => {
                let products = dot_products(x, x)?;
                let rows = x.dim(0)? as u32;
                let own = Tensor::arange(0, rows, x.device())?.unsqueeze(1)?;
                // The squares from the same products, so that equal rows are exactly 0 apart.
                let squares = products.gather(&own, 1)?; // [n, 1]
                let square = products.affine(-2.0, 0.0)?.broadcast_add(&squares)?.broadcast_add(&squares.t()?)?;
                stable::sqrt(&square)
            }
        }
    }

    /// What is wrong with a margin for this metric, if it can't be reached.
    pub(super) fn out_of_reach(self, name: &str, margin: f64) -> Vec<String> {
        if self == Self::CosineDistance && margin >= 2.0 {
            return vec![format!(
                "`{name}`: cosine distances lie in [0, 2], so no triplet ever reaches `margin` {margin}; use about 0.3"
            )];
        }
        Vec::new()
    }
}

/// The distances of a batch's rows, and their classes.
pub(super) struct Mining {
    distances: Tensor,
    on_host: Vec<f64>,
    classes: Vec<i64>,
}

impl Mining {
    /// # Errors
    /// When the batch is not one column of embeddings with a class a row.
    pub(super) fn new(card: &Card, metric: BatchDistance, outputs: &Outputs, labels: Option<&Labels>) -> Result<Self> {
        let columns = inputs::columns(card, outputs)?;
        let classes = inputs::classes(card, labels, columns[0].dim(0)?)?;
        let distances = metric.matrix(&columns[0])?;
        Ok(Self { on_host: inputs::host(&distances)?, distances, classes })
    }

    /// For every row what `choose` weighs of its distances, `[rows]`, and the sum of what it returns.
    ///
    /// `choose` is given the row as an anchor and weights of 0 to change.
    pub(super) fn weighted(
        &self,
        choose: impl Fn(&Anchor<'_>, &mut [f64]) -> usize + Sync,
    ) -> candle_core::Result<(Tensor, usize)> {
        let rows = self.classes.len();
        let mut weights = vec![0.0; rows * rows];
        let each = weights.par_chunks_mut(rows).zip(self.on_host.par_chunks(rows)).enumerate();
        let counts =
            each.map(|(row, (weights, distances))| choose(&Anchor { row, distances, classes: &self.classes }, weights));
        let count = counts.sum();
        let (dtype, device) = (self.distances.dtype(), self.distances.device());
        let weights = Tensor::from_vec(weights, (rows, rows), &candle_core::Device::Cpu)?;
        let weights = weights.to_dtype(dtype)?.to_device(device)?;
        Ok((self.distances.mul(&weights)?.sum(1)?, count))
    }

    /// For every row `d(anchor, hardest positive) - d(anchor, hardest negative)`, `[rows]`.
    ///
    /// Without a positive the first is 0. Without a negative the reference takes the row's largest distance, which is
    /// that of the positive, for the second, so that the difference is 0.
    pub(super) fn hardest(&self) -> candle_core::Result<Tensor> {
        let (differences, _) = self.weighted(|anchor, weights| {
            let Some(negative) = anchor.first_by(anchor.negatives(), |a, b| a < b) else {
                return 0;
            };
            weights[negative] = -1.0;
            if let Some(positive) = anchor.first_by(anchor.positives(), |a, b| a > b) {
                weights[positive] = 1.0;
            }
            1
        })?;
        Ok(differences)
    }

    /// Pairs of different rows of one class, each way round.
    pub(super) fn positive_pairs(&self) -> usize {
        let mut sorted = self.classes.clone();
        sorted.sort_unstable();
        sorted.chunk_by(|a, b| a == b).map(|class| class.len() * (class.len() - 1)).sum()
    }
}

/// A row and how far away the others are.
pub(super) struct Anchor<'a> {
    row: usize,
    pub distances: &'a [f64],
    classes: &'a [i64],
}

impl Anchor<'_> {
    /// The other rows of its class.
    pub(super) fn positives(&self) -> impl Iterator<Item = usize> + '_ {
        let class = self.classes[self.row];
        (0..self.classes.len()).filter(move |j| *j != self.row && self.classes[*j] == class)
    }

    /// The rows of other classes.
    pub(super) fn negatives(&self) -> impl Iterator<Item = usize> + '_ {
        let class = self.classes[self.row];
        (0..self.classes.len()).filter(move |j| self.classes[*j] != class)
    }

    /// The rows of other classes, the nearest first.
    pub(super) fn sorted_negatives(&self) -> Vec<usize> {
        let mut negatives: Vec<usize> = self.negatives().collect();
        negatives.sort_by(|a, b| self.distances[*a].total_cmp(&self.distances[*b]));
        negatives
    }

    /// The first of `rows` whose distance is `better` than those of all others.
    fn first_by(&self, rows: impl Iterator<Item = usize>, better: impl Fn(f64, f64) -> bool) -> Option<usize> {
        rows.fold(None, |best, j| match best {
            Some(best) if !better(self.distances[j], self.distances[best]) => Some(best),
            _ => Some(j),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flow::LabelKind;

    const CARD: Card = Card { columns: (1, 1), labels: LabelKind::Int, ..Card::new("Mining", "") };

    /// Points on a line with classes: the distances are those of the numbers.
    pub fn line(points: &[f64]) -> Outputs {
        let column = Tensor::from_vec(points.to_vec(), (points.len(), 1), &candle_core::Device::Cpu).unwrap();
        Outputs::new(vec![column])
    }

    /// Row 0 as an anchor.
    pub fn anchor<'a>(distances: &'a [f64], classes: &'a [i64]) -> Anchor<'a> {
        Anchor { row: 0, distances, classes }
    }

    fn mining(points: &[f64], classes: &[i64]) -> Mining {
        let labels = Labels::Int(classes.to_vec());
        Mining::new(&CARD, BatchDistance::EuclideanDistance, &line(points), Some(&labels)).unwrap()
    }

    #[test]
    fn the_hardest_are_found() {
        let hardest = |points: &[f64], classes: &[i64]| mining(points, classes).hardest().unwrap().to_vec1().unwrap();
        let found: Vec<f64> = hardest(&[0.0, 1.0, 4.0, 6.0], &[7, 7, 7, -1]);
        assert_eq!(found, [4.0 - 6.0, 3.0 - 5.0, 4.0 - 2.0, -2.0]);
        assert_eq!(hardest(&[0.0, 1.0, 4.0], &[1, 1, 1]), [0.0; 3], "no negatives");
        assert_eq!(hardest(&[0.0, 1.0, 4.0], &[1, 2, 3]), [-1.0, -1.0, -3.0], "no positives");
        assert_eq!(hardest(&[3.0], &[1]), [0.0]);
    }

    #[test]
    fn equal_rows_are_0_apart_and_pairs_are_counted() {
        let mining = mining(&[0.3, 0.7, 0.3, 0.1], &[1, 2, 1, 1]);
        assert_eq!((mining.on_host[2], mining.on_host[0], mining.on_host[5]), (0.0, 0.0, 0.0));
        assert_eq!(mining.positive_pairs(), 6);
        let labels = Labels::Float(vec![1.0; 2]);
        let error = Mining::new(&CARD, BatchDistance::default(), &line(&[1.0, 2.0]), Some(&labels)).err().unwrap();
        assert_eq!(error.to_string(), "`Mining` takes a class a row, the labels are scores");
    }
}
