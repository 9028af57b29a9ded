//! Which rows of a batch form triplets, where labels say who belongs together?
//!
//! Which distances count is chosen on the host, without a gradient; what is chosen is a matrix of weights, and the loss
//! a sum over rows of a function of each row's weighted distances. That is what the reference's masks, maxima and minima
//! come to, however many triplets there are. A large batch is taken in blocks of rows, each with its gradient, so that
//! memory is that of a block's distances.

use std::ops::Range;

use candle_core::{Device, Tensor, Var};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use crate::error::Result;
use crate::flow::{Card, Labels, Outputs};
use crate::ops::{self, dot_products, with_gradient};
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

/// Rows whose distances to all others are held at a time.
const BLOCK: usize = 512;

/// What distances are made of, in the graph.
struct Points {
    /// `[n, dim]`, for cosines divided by their lengths.
    rows: Tensor,
    /// `[n, 1]`: each row's product with itself, for Euclidean distances.
    squares: Option<Tensor>,
}

impl Points {
    fn new(metric: BatchDistance, x: &Tensor, block: usize) -> candle_core::Result<Self> {
        if metric == BatchDistance::CosineDistance {
            return Ok(Self { rows: Similarity::Cosine.prepare(x)?, squares: None });
        }
        // From products like those of other rows, so that equal rows are exactly 0 apart.
        let own = |range: Range<usize>| {
            let part = x.narrow(0, range.start, range.len())?;
            let diagonal = Tensor::arange(0, range.len() as u32, x.device())?.unsqueeze(1)?;
            dot_products(&part, &part)?.gather(&diagonal, 1)
        };
        let squares = blocks(x.dim(0)?, block).map(own).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Self { rows: x.clone(), squares: Some(Tensor::cat(&squares, 0)?) })
    }

    /// The distances of some rows to all: `[range, n]`.
    fn distances(&self, range: &Range<usize>) -> candle_core::Result<Tensor> {
        let part = |x: &Tensor| x.narrow(0, range.start, range.len());
        let products = dot_products(&part(&self.rows)?, &self.rows)?;
        match &self.squares {
            None => products.affine(-1.0, 1.0),
            Some(squares) => {
                let square =
                    products.affine(-2.0, 0.0)?.broadcast_add(&part(squares)?)?.broadcast_add(&squares.t()?)?;
                stable::sqrt(&square)
            }
        }
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.rows).chain(&self.squares)
    }
}

/// `0..rows` in parts of `block`.
fn blocks(rows: usize, block: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(block).map(move |start| start..rows.min(start + block))
}

/// The rows of a batch, and their classes.
pub(super) struct Mining {
    points: Points,
    classes: Vec<i64>,
    block: usize,
}

impl Mining {
    /// # Errors
    /// When the batch is not one column of embeddings with a class a row.
    pub(super) fn new(card: &Card, metric: BatchDistance, outputs: &Outputs, labels: Option<&Labels>) -> Result<Self> {
        Self::in_blocks(card, metric, outputs, labels, BLOCK)
    }

    fn in_blocks(
        card: &Card,
        metric: BatchDistance,
        outputs: &Outputs,
        labels: Option<&Labels>,
        block: usize,
    ) -> Result<Self> {
        let columns = inputs::columns(card, outputs)?;
        let classes = inputs::classes(card, labels, columns[0].dim(0)?)?;
        Ok(Self { points: Points::new(metric, &columns[0], block)?, classes, block })
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.classes.len()
    }

    /// The sum over rows of `value`, which is given the rows' weighted distances (`[rows]`, some at a time) and gives a
    /// scalar; and the sum of what `choose` returns.
    ///
    /// `choose` is given a row as an anchor and weights of 0 to change, one for each distance.
    pub(super) fn sum(
        &self,
        choose: impl Fn(&Anchor<'_>, &mut [f64]) -> usize + Sync,
        value: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<(Tensor, usize)> {
        let all = 0..self.rows();
        if self.rows() <= self.block {
            let (sums, count) = self.weighted(&self.points, &all, &choose)?;
            return Ok((value(&sums)?, count));
        }
        // A block's graph begins here and is gone after it.
        let leaves = self.points.tensors().map(|x| Var::from_tensor(&x.detach()));
        let leaves = leaves.collect::<candle_core::Result<Vec<_>>>()?;
        let leaf = |i: usize| leaves.get(i).map(|leaf| leaf.as_tensor().clone());
        let Some(rows) = leaf(0) else { candle_core::bail!("mining: no rows") };
        let points = Points { rows, squares: leaf(1) };
        let mut gradients: Vec<Option<Tensor>> = vec![None; leaves.len()];
        let (mut total, mut count) = (0.0, 0);
        for range in blocks(self.rows(), self.block) {
            let (sums, chosen) = self.weighted(&points, &range, &choose)?;
            let part = value(&sums)?;
            (total, count) = (total + ops::number(&part)?, count + chosen);
            if !self.points.rows.track_op() {
                continue;
            }
            let found = part.backward()?;
            for (leaf, gradient) in leaves.iter().zip(&mut gradients) {
                if let Some(new) = found.get(leaf) {
                    *gradient = Some(match gradient.take() {
                        Some(sum) => (sum + new)?,
                        None => new.clone(),
                    });
                }
            }
        }
        let (dtype, device) = (self.points.rows.dtype(), self.points.rows.device());
        let mut sum = Tensor::new(total, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
        for (x, gradient) in self.points.tensors().zip(&gradients) {
            if let Some(gradient) = gradient {
                let seam = with_gradient(x, gradient)?;
                // its value means nothing
                sum = (sum + (&seam - seam.detach())?)?;
            }
        }
        Ok((sum, count))
    }

    /// The weighted distances of some rows, `[range]`, and the sum of what `choose` returns.
    fn weighted(
        &self,
        points: &Points,
        range: &Range<usize>,
        choose: &(impl Fn(&Anchor<'_>, &mut [f64]) -> usize + Sync),
    ) -> candle_core::Result<(Tensor, usize)> {
        let rows = self.rows();
        let distances = points.distances(range)?;
        let on_host = inputs::host(&distances)?;
        let mut weights = vec![0.0; on_host.len()];
        let each = weights.par_chunks_mut(rows).zip(on_host.par_chunks(rows)).enumerate();
        let counts = each.map(|(i, (weights, distances))| {
            choose(&Anchor { row: range.start + i, distances, classes: &self.classes }, weights)
        });
        let count = counts.sum();
        let (dtype, device) = (distances.dtype(), distances.device());
        let weights = Tensor::from_vec(weights, (range.len(), rows), &Device::Cpu)?;
        let weights = weights.to_dtype(dtype)?.to_device(device)?;
        Ok((distances.mul(&weights)?.sum(1)?, count))
    }

    /// The sum over rows of `value` of `d(anchor, hardest positive) - d(anchor, hardest negative)`.
    ///
    /// Without a positive the first is 0. Without a negative the reference takes the row's largest distance, which is
    /// that of the positive, for the second, so that the difference is 0.
    pub(super) fn hardest(
        &self,
        value: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<Tensor> {
        let choose = |anchor: &Anchor<'_>, weights: &mut [f64]| {
            let Some(negative) = anchor.first_by(anchor.negatives(), |a, b| a < b) else {
                return 0;
            };
            weights[negative] = -1.0;
            if let Some(positive) = anchor.first_by(anchor.positives(), |a, b| a > b) {
                weights[positive] = 1.0;
            }
            1
        };
        Ok(self.sum(choose, value)?.0)
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
        let hardest = |points: &[f64], classes: &[i64]| -> Vec<f64> {
            // as they are: one row after the other
            mining(points, classes).hardest(|differences| Ok(differences.clone())).unwrap().to_vec1().unwrap()
        };
        let found = hardest(&[0.0, 1.0, 4.0, 6.0], &[7, 7, 7, -1]);
        assert_eq!(found, [4.0 - 6.0, 3.0 - 5.0, 4.0 - 2.0, -2.0]);
        assert_eq!(hardest(&[0.0, 1.0, 4.0], &[1, 1, 1]), [0.0; 3], "no negatives");
        assert_eq!(hardest(&[0.0, 1.0, 4.0], &[1, 2, 3]), [-1.0, -1.0, -3.0], "no positives");
        assert_eq!(hardest(&[3.0], &[1]), [0.0]);
    }

    #[test]
    fn equal_rows_are_0_apart_and_pairs_are_counted() {
        let mining = mining(&[0.3, 0.7, 0.3, 0.1], &[1, 2, 1, 1]);
        let distances: Vec<Vec<f64>> = mining.points.distances(&(0..4)).unwrap().to_vec2().unwrap();
        assert_eq!((distances[0][2], distances[0][0], distances[1][1]), (0.0, 0.0, 0.0));
        assert_eq!(mining.positive_pairs(), 6);
        let labels = Labels::Float(vec![1.0; 2]);
        let error = Mining::new(&CARD, BatchDistance::default(), &line(&[1.0, 2.0]), Some(&labels)).err().unwrap();
        assert_eq!(error.to_string(), "`Mining` takes a class a row, the labels are scores");
    }

    #[test]
    fn blocks_give_the_same_value_and_gradient() {
        let data = crate::loss::tests::random_columns(1, 11, 5, 4).remove(0);
        let labels = Labels::Int(vec![3, 1, 3, 1, 1, 2, 2, 3, 1, 2, 4]);
        for metric in [BatchDistance::CosineDistance, BatchDistance::EuclideanDistance] {
            let at = |block: usize| {
                let x = Var::from_tensor(&data).unwrap();
                let outputs = Outputs::new(vec![x.as_tensor().clone()]);
                let mining = Mining::in_blocks(&CARD, metric, &outputs, Some(&labels), block).unwrap();
                let weigh = |anchor: &Anchor<'_>, weights: &mut [f64]| {
                    let near = anchor.sorted_negatives();
                    weights[near[0]] = -2.0;
                    anchor.positives().for_each(|p| weights[p] = 0.5);
                    near.len()
                };
                let (sum, count) = mining.sum(weigh, |sums| sums.sqr()?.sum_all()).unwrap();
                // a factor from further up goes through
                let grads = sum.affine(3.0, 1.0).unwrap().backward().unwrap();
                let gradient = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
                (sum.to_scalar::<f64>().unwrap(), count, gradient)
            };
            let (whole, count, gradient) = at(11);
            for block in [1, 4, 10] {
                let (sum, chosen, other) = at(block);
                assert_eq!(chosen, count);
                assert!((sum - whole).abs() < 1e-12 * whole.abs(), "{metric:?}, {block}: {sum} and {whole}");
                let worst = gradient.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-12 && gradient.iter().any(|g| g.abs() > 1e-3), "{metric:?}, {block}: {worst:e}");
            }
        }
    }

    #[test]
    fn equal_rows_of_other_blocks_are_0_apart() {
        let (rows, dim) = (BLOCK + 9, 40);
        let half: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut data: Vec<f32> = (0..rows * dim).map(|i| (i as f32 * 0.11).cos()).collect();
        for row in [3, BLOCK - 1, BLOCK, rows - 1] {
            data[row * dim..(row + 1) * dim].copy_from_slice(&half);
        }
        let outputs = Outputs::new(vec![Tensor::from_vec(data, (rows, dim), &Device::Cpu).unwrap()]);
        let labels = Labels::Int((0..rows as i64).map(|i| i % 7).collect());
        let mining = Mining::new(&CARD, BatchDistance::EuclideanDistance, &outputs, Some(&labels)).unwrap();
        for range in blocks(rows, BLOCK) {
            let distances: Vec<Vec<f32>> = mining.points.distances(&range).unwrap().to_vec2().unwrap();
            for i in [3, BLOCK - 1, BLOCK, rows - 1].into_iter().filter(|i| range.contains(i)) {
                for j in [3, BLOCK - 1, BLOCK, rows - 1] {
                    assert_eq!(distances[i - range.start][j], 0.0, "{i}, {j}");
                }
            }
        }
    }
}
