//! Lists of scored texts, a list a row, for the listwise losses.
//!
//! A batch has some hundreds of scores and its lists have no common length, so these losses are computed on the host,
//! list by list and in f64, together with the gradient for every score.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use super::logits;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Card, LabelKind, Labels, MicroBatch, ModelType, Outputs};
use crate::loss::inputs;

/// What the cards of these losses have in common.
pub const CARD: Card = Card {
    model_types: &[ModelType::CrossEncoder],
    inputs: &["(query, [passage_1, ..., passage_n]) with a list of texts a row"],
    columns: (2, 2),
    labels: LabelKind::Lists,
    ..Card::new("", "")
};

/// The scores of a batch's lists with their labels.
pub struct Lists {
    /// `[texts]`, after the activation.
    scores: Tensor,
    on_host: Vec<f64>,
    labels: Vec<f64>,
    ranges: Vec<Range<usize>>,
}

/// What a list adds to the loss, and how many terms that is.
pub struct Share {
    pub value: f64,
    pub terms: usize,
}

impl Lists {
    /// The highest label, 0 where none is above it.
    #[must_use]
    pub fn highest_label(&self) -> f64 {
        self.labels.iter().copied().fold(0.0, f64::max)
    }

    /// # Errors
    /// [`Error::Data`] when the batch has no lists, or not a label for each text; [`Error::Usage`] when the model gives a
    /// pair several logits.
    pub fn new(card: &Card, outputs: &Outputs, labels: Option<&Labels>, activation: ActivationFn) -> Result<Self> {
        let lengths = outputs.lists.as_slice();
        let [logits] = outputs.embeddings.as_slice() else {
            return Err(takes(card, &format!("the batch has {} input columns", outputs.embeddings.len() + 1)));
        };
        if lengths.is_empty() {
            return Err(takes(card, "the last column of the batch has one text a row"));
        }
        let (found, labels): (Vec<usize>, &[f32]) = match labels {
            Some(Labels::Lists { lengths, data }) => (lengths.clone(), data),
            Some(Labels::Matrix { width, data }) => (vec![*width; data.len() / (*width).max(1)], data),
            Some(Labels::Float(data)) => (vec![1; data.len()], data),
            Some(Labels::Int(_)) => return Err(takes(card, "the labels are classes")),
            None => return Err(takes(card, "the batch has no labels")),
        };
        if found.len() != lengths.len() {
            return Err(takes(card, &format!("the batch has {} lists and {} labels", lengths.len(), found.len())));
        }
        if let Some(row) = (0..found.len()).find(|row| found[*row] != lengths[*row]) {
            let (texts, labels) = (lengths[row], found[row]);
            return Err(takes(card, &format!("row {row} of the batch has {texts} texts and {labels} labels")));
        }
        let scores = logits::flat(card, logits, activation)?;
        if labels.len() != scores.dim(0)? || lengths.iter().sum::<usize>() != labels.len() {
            return Err(takes(card, &format!("there are {} scores and {} labels", scores.dim(0)?, labels.len())));
        }
        if labels.is_empty() {
            return Err(Error::data(format!("`{}`: the batch is empty", card.name)));
        }
        if labels.iter().any(|label| !label.is_finite()) {
            return Err(Error::data(format!("`{}`: a label is not finite", card.name)));
        }
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end - length..*end)
        });
        Ok(Self {
            on_host: inputs::host(&scores)?,
            scores,
            labels: labels.iter().map(|label| f64::from(*label)).collect(),
            ranges: ends.collect(),
        })
    }

    /// How many lists.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// How many texts.
    pub fn texts(&self) -> usize {
        self.labels.len()
    }

    /// The sum over the lists of `share(scores, labels, gradient)`, divided by what `divisor` makes of the number of all
    /// terms. `gradient` comes as zeros and is to hold the derivatives of the list's value.
    pub fn mean(
        &self,
        divisor: impl Fn(usize) -> usize,
        share: impl Fn(&[f64], &[f64], &mut [f64]) -> Share + Sync,
    ) -> Result<Tensor> {
        let shares = self.ranges.par_iter().map(|range| {
            let mut gradient = vec![0.0; range.len()];
            let share = share(&self.on_host[range.clone()], &self.labels[range.clone()], &mut gradient);
            (share, gradient)
        });
        let shares: Vec<(Share, Vec<f64>)> = shares.collect();
        let divisor = divisor(shares.iter().map(|(share, _)| share.terms).sum()).max(1) as f64;
        let value = shares.iter().map(|(share, _)| share.value).sum::<f64>() / divisor;
        let gradient: Vec<f64> = shares.into_iter().flat_map(|(_, gradient)| gradient).map(|x| x / divisor).collect();
        let gradient = Tensor::from_vec(gradient, self.texts(), &candle_core::Device::Cpu)?;
        let gradient = gradient.to_dtype(self.scores.dtype())?.to_device(self.scores.device())?;
        // No more than the value, with that gradient.
        let nothing = self.scores.sub(&self.scores.detach())?;
        Ok(nothing.mul(&gradient)?.sum_all()?.affine(1.0, value)?)
    }
}

fn takes(card: &Card, found: &str) -> Error {
    Error::data(format!("`{}` takes a list of texts and a list of labels a row, {found}", card.name)).with_hint(
        "give each query one row, with its texts as a list in the second column and a label for each in `label`",
    )
}

/// The numbers `0..values.len()`, that of the largest value first; equal values keep their order.
pub fn falling(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    // `partial_cmp`, so that 0 and -0 are equal
    order.sort_by(|a, b| values[*b].partial_cmp(&values[*a]).unwrap_or(std::cmp::Ordering::Equal));
    order
}

/// The parts that `mini_batch_size` asks for; 0 and less, as nothing, mean the whole batch.
#[must_use]
pub fn micro_batch(mini_batch_size: Option<i64>) -> Option<MicroBatch> {
    usize::try_from(mini_batch_size?).ok().filter(|size| *size > 0).map(MicroBatch::Sequences)
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::Loss;
    use crate::loss::tests::{check_gradient_of_lists, random_columns};

    /// Checks the gradient on lists of different lengths, and that what does not fit is refused.
    pub fn check(loss: &dyn Loss) {
        let lengths = vec![3, 1, 5];
        let data: Vec<f32> = vec![0.0, 2.0, 1.0, 1.0, 0.0, 0.0, 3.0, 1.0, 0.5];
        let labels = Labels::Lists { lengths: lengths.clone(), data: data.clone() };
        let logits = random_columns(1, 9, 1, 5);
        check_gradient_of_lists(loss, &logits, &lengths, Some(&labels));

        let equal = Outputs { lists: vec![3; 3], ..Outputs::new(logits.clone()) };
        let value = |labels: &Labels| loss.compute(&equal, Some(labels)).unwrap().to_scalar::<f64>().unwrap();
        let as_lists = value(&Labels::Lists { lengths: vec![3; 3], data: data.clone() });
        assert_eq!(as_lists, value(&Labels::Matrix { width: 3, data: data.clone() }));

        let told = |outputs: &Outputs, labels: Option<&Labels>| loss.compute(outputs, labels).unwrap_err().to_string();
        assert!(told(&equal, Some(&labels)).contains("row 1 of the batch has 3 texts and 1 labels"));
        assert!(told(&equal, None).contains("no labels"));
        assert!(told(&Outputs::new(logits), Some(&labels)).contains("one text a row"));
        assert!(loss.check_dim(1).is_ok() && loss.check_dim(2).is_err());
    }

    #[test]
    fn parts() {
        assert_eq!(micro_batch(Some(8)), Some(MicroBatch::Sequences(8)));
        assert!([None, Some(0), Some(-1)].into_iter().all(|size| micro_batch(size).is_none()));
        assert_eq!(falling(&[0.0, 2.0, -0.0, 3.0]), [3, 1, 0, 2]);
    }
}
