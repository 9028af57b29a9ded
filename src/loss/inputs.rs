//! What losses ask of their inputs, with one way of saying what is wrong.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::flow::{Card, Labels, MicroBatch, Outputs};

/// What to do about a label that is no class.
pub const CLASSES_HINT: &str =
    "classes are numbered from 0, and there are `num_labels` of them: raise it, or correct the label";

/// Checks that there are as many columns as `card` says and that all are `[rows, dim]` alike.
///
/// # Errors
/// [`Error::Data`] naming the loss, what it takes and what it got.
pub fn columns<'a>(card: &Card, outputs: &'a Outputs) -> Result<&'a [Tensor]> {
    let columns = count(card, outputs)?;
    alike(card, columns)?;
    Ok(columns)
}

/// Checks that there are as many columns as `card` says.
///
/// # Errors
/// [`Error::Data`] naming the loss, what it takes and what it got.
pub fn count<'a>(card: &Card, outputs: &'a Outputs) -> Result<&'a [Tensor]> {
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
    Ok(columns)
}

/// Checks that all columns are `[rows, dim]` alike.
///
/// # Errors
/// [`Error::Data`] naming the loss and the shapes.
pub fn alike(card: &Card, columns: &[Tensor]) -> Result<()> {
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
    Ok(())
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
        Some(Labels::Lists { .. }) => return Err(Error::data(format!("{takes}, the labels are lists")).with_hint(hint)),
        Some(Labels::Float(scores)) => scores.clone(),
        Some(Labels::Int(classes)) => classes.iter().map(|class| *class as f32).collect(),
    };
    if scores.len() != rows {
        return Err(Error::data(format!("{takes}, the batch has {rows} rows and {} labels", scores.len())));
    }
    Ok(scores)
}

/// The labels as one class a row, checked for their number.
///
/// # Errors
/// [`Error::Data`] when there are none, of another kind, too many or too few.
pub fn classes(card: &Card, labels: Option<&Labels>, rows: usize) -> Result<Vec<i64>> {
    let takes = format!("`{}` takes a class a row", card.name);
    let found = match labels {
        Some(Labels::Int(classes)) if classes.len() == rows => return Ok(classes.clone()),
        Some(Labels::Int(classes)) => format!("the batch has {rows} rows and {} labels", classes.len()),
        Some(Labels::Float(_)) => "the labels are scores".to_owned(),
        Some(Labels::Matrix { width, .. }) => format!("the labels are lists of {width}"),
        Some(Labels::Lists { .. }) => "the labels are lists".to_owned(),
        None => "the batch has no labels".to_owned(),
    };
    Err(Error::data(format!("{takes}, {found}"))
        .with_hint("name the column that holds it with `label`; whole numbers and names both are classes"))
}

/// The labels as one list a row and the length of the lists, checked for their number. A number is a list of one.
///
/// # Errors
/// [`Error::Data`] when there are none, too many or too few.
pub fn lists(card: &Card, labels: Option<&Labels>, rows: usize) -> Result<(usize, Vec<f32>)> {
    let takes = format!("`{}` takes a list of numbers a row", card.name);
    let Some(labels) = labels else {
        return Err(Error::data(format!("{takes}, the batch has no labels"))
            .with_hint("name the column that holds it with `label`"));
    };
    let (width, data) = match labels {
        Labels::Matrix { width, data } => (*width, data.clone()),
        other => (1, other.floats().unwrap_or_default()),
    };
    if data.len() != rows * width {
        return Err(Error::data(format!("{takes}, the batch has {rows} rows and {} labels", labels.len())));
    }
    Ok((width, data))
}

/// The numbers of a tensor, row after row, without a gradient.
pub fn host(x: &Tensor) -> candle_core::Result<Vec<f64>> {
    // widened on the host: not every device knows f64
    x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// The labels as one class a row, each of them below `count`. Scores that are whole numbers count as classes.
///
/// # Errors
/// As [`classes`], and when one is no class.
pub fn classes_below(card: &Card, labels: Option<&Labels>, rows: usize, count: usize) -> Result<Vec<u32>> {
    let whole = match labels {
        Some(Labels::Matrix { width: 1, data } | Labels::Float(data)) if data.iter().all(|x| x.fract() == 0.0) => {
            Some(Labels::Int(data.iter().map(|x| *x as i64).collect()))
        }
        _ => None,
    };
    let known = |class: &i64| u32::try_from(*class).ok().filter(|class| (*class as usize) < count);
    let classes = classes(card, whole.as_ref().or(labels), rows)?;
    let checked = classes.iter().map(|class| {
        known(class).ok_or_else(|| {
            let most = count.saturating_sub(1);
            Error::data(format!("`{}` takes a class a row from 0 to {most}, a class is {class}", card.name))
                .with_hint("set `num_labels` to the number of classes; they are counted from 0")
        })
    });
    checked.collect()
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

/// Refuses a setting that is negative or no number.
///
/// # Errors
/// [`Error::Usage`] naming the key.
pub fn not_negative(key: &str, value: f64) -> Result<()> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::usage(format!("`{key}` must not be negative, got {value}")))
}

/// Refuses the reference's setting for training on several devices.
///
/// # Errors
/// [`Error::Usage`] naming the key.
pub fn one_device(gather_across_devices: bool) -> Result<()> {
    if gather_across_devices {
        return Err(Error::usage("`gather_across_devices` must be `false`: a run uses one device")
            .with_hint("leave it out; a larger `per_device_train_batch_size` gives more negatives"));
    }
    Ok(())
}

/// What the settings of a cached loss ask for.
///
/// # Errors
/// [`Error::Usage`] naming the key that is out of range.
pub fn micro_batch(sequences: usize, tokens: Option<usize>, show_progress_bar: bool) -> Result<MicroBatch> {
    if show_progress_bar {
        return Err(Error::usage("`show_progress_bar` must be `false`: parts of a batch have no progress bar")
            .with_hint("leave it out; the run has one"));
    }
    match tokens {
        Some(0) => Err(Error::usage("`mini_batch_num_tokens` must be 1 or more, got 0")),
        Some(tokens) => Ok(MicroBatch::Tokens(tokens)),
        None if sequences == 0 => Err(Error::usage("`mini_batch_size` must be 1 or more, got 0")),
        None => Ok(MicroBatch::Sequences(sequences)),
    }
}
