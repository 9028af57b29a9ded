//! What several losses are made of.

use candle_core::{D, Tensor};

use super::inputs;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Card, Labels};
use crate::ops::{self, Activation};

/// `x` after an activation.
///
/// # Errors
/// When the element type has no kernel.
pub fn activate(x: &Tensor, activation: ActivationFn) -> candle_core::Result<Tensor> {
    let activation = match activation {
        ActivationFn::Identity => Activation::Identity,
        ActivationFn::Sigmoid => Activation::Sigmoid,
        ActivationFn::Tanh => Activation::Tanh,
        ActivationFn::ReLU => Activation::Relu,
    };
    ops::activation(x, activation)
}

/// The squared differences of two tensors of the same shape.
pub fn squared_errors(x: &Tensor, target: &Tensor) -> candle_core::Result<Tensor> {
    x.sub(target)?.sqr()
}

/// The mean squared error of the margins between `near` and each of `far`, all `[rows]`, against those of a teacher:
/// the labels, one margin for each of `far`, or its scores, the first of them that of `near`.
///
/// # Errors
/// [`Error::Data`] when the labels are of another number.
pub fn margin_errors(card: &Card, near: &Tensor, far: &[Tensor], labels: Option<&Labels>) -> Result<Tensor> {
    let (rows, n) = (near.dim(0)?, far.len());
    let (width, labels) = inputs::lists(card, labels, rows)?;
    let given = inputs::vector(labels, near.dtype(), near.device())?.reshape((rows, width))?;
    let wanted = if width == n + 1 {
        given.narrow(1, 0, 1)?.broadcast_sub(&given.narrow(1, 1, width - 1)?)?
    } else if width == n {
        given
    } else {
        return Err(Error::data(format!(
            "`{}`: the labels are lists of {width}, and with {n} negatives they have to be {n} margins or {} scores",
            card.name,
            n + 1
        )));
    };
    let margins = far.iter().map(|far| near.sub(far));
    let margins = Tensor::stack(&margins.collect::<candle_core::Result<Vec<_>>>()?, 1)?; // [rows, negatives]
    Ok(squared_errors(&margins, &wanted)?.mean_all()?)
}

/// The cross-entropy of logits `[rows, classes]` with the labels: a class a row, or a list of probabilities.
///
/// # Errors
/// [`Error::Data`] when the labels are of another kind or number, or one is no class.
pub fn classification(card: &Card, logits: &Tensor, labels: Option<&Labels>) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    if let Some(Labels::Matrix { width, data }) = labels
        && *width > 1
    {
        if *width != classes || data.len() != rows * classes {
            return Err(Error::data(format!(
                "`{}`: the labels are lists of {width} probabilities, `num_labels` is {classes}",
                card.name
            )));
        }
        let target = inputs::vector(data.clone(), logits.dtype(), logits.device())?.reshape((rows, classes))?;
        // -sum p (x - total) = sum p * total - sum p x
        let total = ops::logsumexp(logits)?.reshape(rows)?.mul(&target.sum(D::Minus1)?)?;
        return Ok(total.sub(&target.mul(logits)?.sum(D::Minus1)?)?.mean_all()?);
    }
    Ok(ops::cross_entropy(logits, &inputs::classes_below(card, labels, rows, classes)?)?)
}

/// The softmax of numbers on the host.
#[must_use]
pub fn softmax(scores: &[f64]) -> Vec<f64> {
    let logs = log_softmax(scores);
    logs.into_iter().map(f64::exp).collect()
}

/// Its logarithm.
#[must_use]
pub fn log_softmax(scores: &[f64]) -> Vec<f64> {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = scores.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
    scores.iter().map(|x| x - top - total).collect()
}

/// `ln σ(x)` of a number on the host, and its derivative `σ(-x)`.
#[must_use]
pub fn log_sigmoid(x: f64) -> (f64, f64) {
    let small = (-x.abs()).exp();
    let slope = if x > 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
    (x.min(0.0) - small.ln_1p(), slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size() {
        let halves = softmax(&[1000.0, 1000.0, -1000.0]);
        assert!((halves[0] - 0.5).abs() < 1e-15 && halves[0] == halves[1] && halves[2] == 0.0);
        assert_eq!(log_softmax(&[7.0]), [0.0]);
        assert_eq!(log_sigmoid(-1000.0), (-1000.0, 1.0));
        assert_eq!(log_sigmoid(1000.0), (0.0, 0.0));
        assert_eq!(log_sigmoid(0.0), (-std::f64::consts::LN_2, 0.5));
    }
}
