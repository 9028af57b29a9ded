//! How good is a model that reads pairs? The evaluators of rerankers and of classifiers of pairs.

pub mod classification;
pub mod correlation;
pub mod nano_beir;
pub mod reranking;

use crate::error::{Error, Result};
use crate::flow::{Card, Embeddings, Encode, EncodeOptions, Predict, score_not_finite};

/// The model as one that scores pairs.
///
/// # Errors
/// [`Error::Usage`] when it is none.
fn predictor<'a>(card: &Card, model: &'a dyn Encode) -> Result<&'a dyn Predict> {
    model.predictor().ok_or_else(|| {
        Error::usage(format!("`{}` measures a CrossEncoder, and the model scores no pairs", card.name)).with_hint(
            "for models of embeddings use RerankingEvaluator, EmbeddingSimilarityEvaluator or \
             InformationRetrievalEvaluator",
        )
    })
}

/// [`predictor`], of a model with one score a pair.
///
/// # Errors
/// As there, and [`Error::Usage`] when it has several.
fn ranker<'a>(card: &Card, model: &'a dyn Encode) -> Result<&'a dyn Predict> {
    let predictor = predictor(card, model)?;
    match predictor.num_labels() {
        1 => Ok(predictor),
        several => {
            Err(Error::usage(format!("`{}` takes a model with one score a pair, this one has {several}", card.name))
                .with_hint("train with `model.num_labels = 1`, or use CrossEncoderClassificationEvaluator"))
        }
    }
}

/// `[pairs, labels]`: the scores of every pair, after the model's activation; all finite.
///
/// # Errors
/// The model's; [`Error::Usage`] when it has no prompt of that name; [`Error::Model`] naming the first pair whose score
/// is not finite.
fn predict(
    model: &dyn Encode,
    predictor: &dyn Predict,
    pairs: &[(&str, &str)],
    prompt_name: Option<&str>,
) -> Result<Embeddings> {
    let prompt = match prompt_name {
        None => None,
        Some(name) => Some(model.named_prompt(name).ok_or_else(|| {
            Error::usage(format!("the model has no prompt `{name}`"))
                .with_hint("leave `prompt_name` out for its default")
        })?),
    };
    if pairs.is_empty() {
        return Ok(Embeddings::new(predictor.num_labels(), Vec::new()));
    }
    let scores = predictor.predict(pairs, None, &EncodeOptions { prompt, ..EncodeOptions::default() })?;
    if scores.rows() != pairs.len() {
        return Err(Error::Internal(format!("{} pairs gave {} scores", pairs.len(), scores.rows())));
    }
    if let Some(place) = scores.data().iter().position(|value| !value.is_finite()) {
        return Err(score_not_finite(pairs.get(place / scores.dim().max(1)).copied().unwrap_or_default()));
    }
    Ok(scores)
}
