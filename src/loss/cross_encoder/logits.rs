//! What losses of pairs ask of logits and labels, with one way of saying what is wrong.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Card, Labels, Outputs};
use crate::loss::inputs;
use crate::loss::terms::activate;

/// Refuses a model that gives a pair several logits.
///
/// # Errors
/// [`Error::Usage`] naming the loss and the number.
pub fn check_one(card: &Card, labels: usize) -> Result<Vec<String>> {
    if labels == 1 {
        return Ok(Vec::new());
    }
    Err(Error::usage(format!("`{}` takes a model with one logit a pair, this one has {labels}", card.name))
        .with_hint("set `model.num_labels = 1`, or use CrossEntropyLoss for classes"))
}

/// The columns of logits of a batch whose rows have a query and a text for each column.
///
/// # Errors
/// [`Error::Data`] naming the loss, what it takes and what it got.
pub fn columns<'a>(card: &Card, outputs: &'a Outputs) -> Result<&'a [Tensor]> {
    let (least, most) = card.columns;
    let columns = outputs.embeddings.as_slice();
    let takes = |found: String| {
        let text = format!("`{}` takes {}, {found}", card.name, card.inputs.join(" or "));
        Err(Error::data(text).with_hint("name the input columns with `columns`, the query first"))
    };
    if !outputs.lists.is_empty() {
        return takes("the last column of the batch has lists of texts".to_owned());
    }
    if columns.len() + 1 < least || columns.len() >= most {
        return takes(format!("the batch has {} input columns", columns.len() + 1));
    }
    inputs::alike(card, columns)?;
    Ok(columns)
}

/// As [`columns`], each `[rows]` after the activation, of a model with one logit a pair.
///
/// # Errors
/// As [`columns`] and [`check_one`].
pub fn scores(card: &Card, outputs: &Outputs, activation: ActivationFn) -> Result<Vec<Tensor>> {
    columns(card, outputs)?.iter().map(|logits| flat(card, logits, activation)).collect()
}

/// `[pairs, 1]` logits as `[pairs]` scores.
pub fn flat(card: &Card, logits: &Tensor, activation: ActivationFn) -> Result<Tensor> {
    let (pairs, labels) = logits.dims2()?;
    check_one(card, labels)?;
    Ok(activate(&logits.reshape(pairs)?, activation)?)
}

/// The one column of scores `[rows]` of a batch of (query, text) pairs, and the labels, one a row.
///
/// # Errors
/// As [`scores`] and [`inputs::scores`].
pub fn scored(
    card: &Card,
    outputs: &Outputs,
    labels: Option<&Labels>,
    activation: ActivationFn,
) -> Result<(Tensor, Vec<f32>)> {
    let scores = scores(card, outputs, activation)?;
    let [scores] = <[Tensor; 1]>::try_from(scores)
        .map_err(|all| Error::Internal(format!("`{}` with {} columns of logits", card.name, all.len())))?;
    let labels = inputs::scores(card, labels, scores.dim(0)?)?;
    Ok((scores, labels))
}
