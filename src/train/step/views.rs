//! What does a loss see of a batch? The model's embedding of every column, unless it asks for other views.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::Setting;
use crate::error::{Error, Result};
use crate::flow::{Batch, Outputs};
use crate::ops::Context;
use crate::util::seed::Rng;

/// The sequences of each column of embeddings the loss computes on.
pub fn spans(setting: Setting<'_>, batch: &Batch) -> Vec<Range<usize>> {
    match setting.loss.views() {
        None => batch.spans(),
        Some(views) => (0..views.len()).map(|view| view * batch.rows..(view + 1) * batch.rows).collect(),
    }
}

/// The rows of embeddings that some sequences have: as many, of a model with a vector for each token that token's
/// (`offsets`, as [`SentenceTransformer::vector_offsets`](crate::model::SentenceTransformer::vector_offsets) has them).
pub fn rows(offsets: Option<&[u32]>, sequences: &Range<usize>) -> Range<usize> {
    let at = |i: usize, offsets: &[u32]| offsets.get(i).or(offsets.last()).map_or(0, |offset| *offset as usize);
    offsets.map_or(sequences.clone(), |offsets| at(sequences.start, offsets)..at(sequences.end, offsets))
}

/// The ends of all views' sequences in one stream of tokens, one view after the other: `[sequences + 1]`.
pub(super) fn offsets(setting: Setting<'_>, batch: &Batch) -> Vec<u32> {
    let Some(views) = setting.loss.views() else { return setting.model.token_offsets(batch) };
    let mut offsets = vec![0u32];
    for view in views {
        let ends = batch.packed.offsets.get(view.column * batch.rows..=(view.column + 1) * batch.rows).unwrap_or(&[]);
        let (before, start) = (offsets.last().copied().unwrap_or(0), ends.first().copied().unwrap_or(0));
        offsets.extend(ends.iter().skip(1).map(|end| before + (end - start)));
    }
    offsets
}

/// The embeddings of some of the views' sequences after so many layers each, then after all: `[layers + 1]` of `[part,
/// dim]`.
///
/// # Errors
/// When a sequence does not fit its model, or layers are asked of a loss with views of its own.
pub fn embed(
    setting: Setting<'_>,
    batch: &Batch,
    part: Range<usize>,
    layers: &[usize],
    context: &Context,
) -> Result<Vec<Tensor>> {
    let Some(views) = setting.loss.views() else {
        if setting.loss.autoencodes() {
            // the autoencoder itself is the loss's: what it makes of an embedding depends on nothing else
            return Ok(vec![setting.model.embed_dense(batch, part, context)?]);
        }
        return setting.model.embed_layers(batch, part, layers, context);
    };
    if !layers.is_empty() {
        return Err(Error::Internal("layers are asked for with views".to_owned()));
    }
    let mut pieces = Vec::with_capacity(views.len());
    for (i, view) in views.iter().enumerate() {
        let start = part.start.max(i * batch.rows);
        let end = part.end.min((i + 1) * batch.rows);
        if start >= end {
            continue;
        }
        let missing = || Error::Internal(format!("`{}` has no second model", setting.loss.card().name));
        let model = if view.twin { setting.twin.ok_or_else(missing)? } else { setting.model };
        let first = view.column * batch.rows;
        let sequences = first + start - i * batch.rows..first + end - i * batch.rows;
        pieces.push(model.embed_part_as(batch, sequences, setting.model.column_tasks(), context)?);
    }
    Ok(vec![Tensor::cat(&pieces, 0)?])
}

/// What the loss computes on: these embeddings, and what else it asks for.
///
/// # Errors
/// When a text does not fit the guide or the decoder.
pub fn outputs(
    setting: Setting<'_>,
    batch: &Batch,
    embeddings: Vec<Tensor>,
    layers: Vec<(usize, Vec<Tensor>)>,
    rng: Rng,
    context: &Context,
) -> Result<Outputs> {
    let decoded = match (setting.decoder, setting.loss.decoder(), embeddings.first()) {
        (Some(decoder), Some(wanted), Some(sentence)) => {
            let texts = batch.packed.part(wanted.column * batch.rows..(wanted.column + 1) * batch.rows);
            Some(decoder.cross_entropy(sentence, &texts, context)?)
        }
        _ => None,
    };
    let (mut embeddings, mut autoencoded) = (embeddings, Vec::new());
    if let Some(autoencoder) = setting.model.autoencoder().filter(|_| setting.loss.autoencodes()) {
        for column in &mut embeddings {
            let (sparse, both_ways) = autoencoder.expand(column, context, setting.step.is_some())?;
            *column = sparse;
            autoencoded.push(both_ways);
        }
    }
    let vectors = match setting.model.vector_offsets(batch) {
        None => Vec::new(),
        Some(offsets) => {
            let column = |span: Range<usize>| {
                let part = offsets.get(span.start..=span.end).unwrap_or(&[0]);
                let first = part.first().copied().unwrap_or(0);
                Arc::new(part.iter().map(|offset| offset - first).collect())
            };
            spans(setting, batch).into_iter().map(column).collect()
        }
    };
    Ok(Outputs {
        embeddings,
        vectors,
        autoencoded,
        tokens: batch.packed.clone(),
        text_ids: batch.text_ids.clone(),
        guide: setting.guide.map(|guide| guide.embed(batch)).transpose()?.unwrap_or_default(),
        decoded,
        layers,
        lists: batch.lists.clone(),
        step: setting.step,
        rng,
    })
}
