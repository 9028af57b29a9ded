//! What losses ask of their inputs, with one way of saying what is wrong.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::flow::{Card, Labels, Outputs};

/// Checks that there are as many columns as `card` says and that all are `[rows, dim]` alike.
///
/// # Errors
/// [`Error::Data`] naming the loss, what it takes and what it got.
pub fn columns<'a>(card: &Card, outputs: &'a Outputs) -> Result<&'a [Tensor]> {
    let columns = outputs.embeddings.as_slice();
    let (least, most) = card.columns;
    if columns.len() < least || columns.len() > most {
        let wanted = match (least, most) {
            (least, usize::MAX) => format!("{least} or more input columns"),
            (least, most) if least == most => format!("{least} input columns"),
            (least, most) => format!("{least} to {most} input columns"),
        };
        let text = format!("`{}` takes {wanted}, the batch has {}", card.name, columns.len());
        return Err(Error::data(text).with_hint(format!("name them with `columns`: {}", card.inputs.join(", or "))));
    }
    if let Some(first) = columns.first() {
        if first.rank() != 2 {
            let text = format!("`{}` takes embeddings of [rows, dim], got {:?}", card.name, first.dims());
            return Err(Error::data(text));
        }
        if let Some((i, other)) = columns.iter().enumerate().find(|(_, column)| column.dims() != first.dims()) {
            return Err(Error::data(format!(
                "`{}`: the embeddings of column {i} are {:?}, those of column 0 {:?}",
                card.name,
                other.dims(),
                first.dims()
            )));
        }
        if first.dims().contains(&0) {
            return Err(Error::data(format!("`{}`: the batch is empty", card.name)));
        }
    }
    Ok(columns)
}

/// The labels as one score a row, checked for their number.
///
/// Classes count as scores, and so do matrices of one column.
///
/// # Errors
/// [`Error::Data`] when there are none, of another kind, too many or too few.
pub fn scores(card: &Card, labels: Option<&Labels>, rows: usize) -> Result<Vec<f32>> {
    let takes = format!("`{}` takes a score a row", card.name);
    let hint = "name the column that holds it with `label`; `score`, `scores`, `label` and `labels` are found alone";
    let scores = match labels {
        None => return Err(Error::data(format!("{takes}, the batch has no labels")).with_hint(hint)),
        Some(Labels::Matrix { width: 1, data }) => data.clone(),
        Some(Labels::Matrix { width, .. }) => {
            return Err(Error::data(format!("{takes}, the labels are lists of {width}")).with_hint(hint));
        }
        Some(Labels::Float(scores)) => scores.clone(),
        Some(Labels::Int(classes)) => classes.iter().map(|class| *class as f32).collect(),
    };
    if scores.len() != rows {
        return Err(Error::data(format!("{takes}, the batch has {rows} rows and {} labels", scores.len())));
    }
    Ok(scores)
}

/// The labels as one class a row, each below `count`, checked for their number.
///
/// Scores that are whole numbers count as classes.
///
/// # Errors
/// [`Error::Data`] when there are none, of another kind, too many or too few, or one is no class.
pub fn classes(card: &Card, labels: Option<&Labels>, rows: usize, count: usize) -> Result<Vec<u32>> {
    let takes = format!("`{}` takes a class a row", card.name);
    let hint = "name the column that holds it with `label`";
    let classes: Vec<i64> = match labels {
        None => return Err(Error::data(format!("{takes}, the batch has no labels")).with_hint(hint)),
        Some(Labels::Matrix { width: 1, data } | Labels::Float(data)) => {
            if let Some(score) = data.iter().find(|score| score.fract() != 0.0) {
                return Err(Error::data(format!("{takes}, found {score}")).with_hint(hint));
            }
            data.iter().map(|score| *score as i64).collect()
        }
        Some(Labels::Matrix { width, .. }) => {
            return Err(Error::data(format!("{takes}, the labels are lists of {width}")).with_hint(hint));
        }
        Some(Labels::Int(classes)) => classes.clone(),
    };
    if classes.len() != rows {
        return Err(Error::data(format!("{takes}, the batch has {rows} rows and {} labels", classes.len())));
    }
    let known = |class: &i64| u32::try_from(*class).ok().filter(|class| (*class as usize) < count);
    classes
        .iter()
        .map(|class| {
            known(class).ok_or_else(|| {
                Error::data(format!("{takes} from 0 to {}, a class is {class}", count.saturating_sub(1)))
                    .with_hint("set `num_labels` to the number of classes; they are counted from 0")
            })
        })
        .collect()
}

/// A mask for [`masked_fill`](crate::scoring::stable::masked_fill) of `[rows, columns]`: 1 where `at(row, column)`.
pub fn mask(
    rows: usize,
    columns: usize,
    device: &Device,
    at: impl Fn(usize, usize) -> bool,
) -> candle_core::Result<Tensor> {
    let flat: Vec<u8> =
        (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| u8::from(at(i, j))).collect();
    Tensor::from_vec(flat, (rows, columns), device)
}

/// Host numbers as a tensor of `[len]` of the given type.
pub fn vector(values: Vec<f32>, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
    let len = values.len();
    Tensor::from_vec(values, len, device)?.to_dtype(dtype)
}

/// Refuses a setting that is not a positive number.
///
/// # Errors
/// [`Error::Usage`] naming the key.
pub fn positive(key: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::usage(format!("`{key}` must be a positive number, got {value}")))
}
