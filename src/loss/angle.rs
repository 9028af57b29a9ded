//! AnglELoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{cosent, inputs};
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::scoring::{cosine, stable};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &[
        "(sentence_A, sentence_B) pairs",
        "(anchor, positive, negative) triplets",
        "(anchor, positive, negative_1, ..., negative_n)",
    ],
    columns: (2, usize::MAX),
    // Pairs need a score, triplets do without.
    labels: LabelKind::Any,
    unlabelled_from: 3,
    compares_rows: true,
    gotchas: &[
        "Pairs need a score a row; triplets and longer rows count as 1 for the positive and 0 for each negative, or as \
         their label and 1 less their label.",
        "Larger batches compare more pairs: the value grows with the batch size and is not comparable across sizes.",
    ],
    paper: "https://arxiv.org/abs/2309.12871",
    ..Card::new("AnglELoss", "CoSENTLoss on the angle of the embeddings in complex space instead of the cosine.")
};

/// [`CoSENTLoss`](super::cosent::CoSENTLoss) with another similarity, whose gradient does not vanish where the cosine
/// is near 1 or -1.
///
/// `loss = log(1 + sum over (i, j) with label_i < label_j of exp(scale * (s_i - s_j)))` with `s = |cos(x, y) + sum over k
/// < dim / 2 of (x_{k + dim / 2} y_k - x_k y_{k + dim / 2})|` of the normalised embeddings: their halves are the real
/// and the imaginary parts of complex numbers. An odd dimension is filled up with a 0.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (sentence_A, sentence_B) pairs | a float score; only the order matters |
/// | (anchor, positive, negative) triplets | none |
/// | (anchor, positive, negative_1, ..., negative_n) | none |
///
/// Rows of more than two texts are taken apart into pairs, each with its anchor.
///
/// # Shapes
/// Two or more embeddings of `[batch, dim]`, labels `[batch]`; the result is a scalar.
///
/// # Defaults
/// `scale = 20`, an inverse temperature, as `CoSENTLoss`.
///
/// # Related
/// `CoSENTLoss` ranks by cosines; `CosineSimilarityLoss` regresses the scores and usually trains more weakly.
///
/// # Source
/// [Li & Li 2024](https://arxiv.org/abs/2309.12871); `losses/angle.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "AnglELoss"
/// scale = 20.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnglELoss {
    /// Inverse temperature: similarities are multiplied by it.
    pub scale: f64,
}

impl Default for AnglELoss {
    fn default() -> Self {
        Self { scale: 20.0 }
    }
}

impl Settings for AnglELoss {
    fn validate(&self) -> Result<()> {
        inputs::positive("scale", self.scale)
    }
}

impl Loss for AnglELoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let columns = inputs::columns(&CARD, outputs)?;
        let rows = columns[0].dim(0)?;
        let [anchors, others @ ..] = columns else {
            return Err(Error::Internal(format!("`{}` without columns", CARD.name)));
        };
        let mut scores =
            if others.len() > 1 && labels.is_none() { vec![1.0; rows] } else { inputs::scores(&CARD, labels, rows)? };
        let negatives: Vec<f32> = scores.iter().map(|score| 1.0 - score).collect();
        for _ in 1..others.len() {
            scores.extend(&negatives);
        }
        let anchors = halves(anchors)?;
        let similarities = others.iter().map(|other| similarity(&anchors, &halves(other)?));
        let similarities = Tensor::cat(&similarities.collect::<candle_core::Result<Vec<_>>>()?, 0)?; // [n * k]
        cosent::rank(&similarities.affine(self.scale, 0.0)?, &scores)
    }
}

/// The two halves of the normalised rows: `[n, dim]` to twice `[n, dim / 2]`.
fn halves(x: &Tensor) -> candle_core::Result<[Tensor; 2]> {
    let dim = x.dim(1)?;
    let half = dim.div_ceil(2);
    let x = cosine::normalize(x, cosine::NORMALIZE_EPS)?.pad_with_zeros(1, 0, 2 * half - dim)?;
    Ok([x.narrow(1, 0, half)?, x.narrow(1, half, half)?])
}

/// The similarity of each pair of rows, `[n]`.
fn similarity(x: &[Tensor; 2], y: &[Tensor; 2]) -> candle_core::Result<Tensor> {
    let ([x_first, x_last], [y_first, y_last]) = (x, y);
    let cosines = x_first.mul(y_first)?.add(&x_last.mul(y_last)?)?;
    let sines = x_last.mul(y_first)?.sub(&x_first.mul(y_last)?)?;
    stable::abs(&cosines.add(&sines)?.sum(1)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn similarities_by_hand() {
        let row =
            |x: &[f64]| halves(&Tensor::new(x, &candle_core::Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap();
        let of = |x: &[f64], y: &[f64]| similarity(&row(x), &row(y)).unwrap().to_vec1::<f64>().unwrap()[0];
        // 1 and i: the cosine is 0, the sine -1 one way round and 1 the other.
        assert_eq!(of(&[2.0, 0.0], &[0.0, 3.0]), 1.0);
        assert_eq!(of(&[0.0, 3.0], &[2.0, 0.0]), 1.0);
        assert!((of(&[3.0, 4.0], &[4.0, 3.0]) - (0.96 + 0.28)).abs() < 1e-12);
        assert!((of(&[3.0, 0.0, 4.0], &[3.0, 0.0, 4.0]) - 1.0).abs() < 1e-12, "odd");
    }

    #[test]
    fn rows_of_more_than_two_are_pairs() {
        let columns = random_columns(3, 4, 6, 5);
        let value = |columns: Vec<Tensor>, labels: Option<Vec<f32>>| -> f64 {
            let labels = labels.map(Labels::Float);
            let loss = AnglELoss::default().compute(&Outputs::new(columns), labels.as_ref());
            loss.unwrap().to_scalar().unwrap()
        };
        let anchors = Tensor::cat(&[&columns[0], &columns[0]], 0).unwrap();
        let others = Tensor::cat(&columns[1..], 0).unwrap();
        let pairs = value(vec![anchors, others], Some([[1.0; 4], [0.0; 4]].concat()));
        assert!((value(columns.clone(), None) - pairs).abs() < 1e-12);
        assert!((value(columns.clone(), Some(vec![1.0; 4])) - pairs).abs() < 1e-12);
        let error = AnglELoss::default().compute(&Outputs::new(columns[..2].to_vec()), None).unwrap_err();
        assert_eq!(error.to_string(), "`AnglELoss` takes a score a row, the batch has no labels");
    }

    #[test]
    fn gradient() {
        let labels = Labels::Float(vec![0.1, 0.9, 0.4, 0.4]);
        let loss = AnglELoss { scale: 3.0 };
        for dim in [4, 5] {
            check_gradient(&loss, &random_columns(2, 4, dim, 1), Some(&labels));
            check_gradient(&loss, &random_columns(4, 3, dim, 2), None);
        }
    }
}
