//! Candidates as a reranker sees them.

use rayon::prelude::*;

use super::candidates::{Found, go_on, pairs};
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::flow::{EncodeOptions, Predict, score_not_finite};
use crate::util::progress::Progress;

/// Pairs that a reranker gets at a time.
const PAIRS: usize = 4096;
/// Anchors whose candidates are listed for it at a time.
const ANCHORS: usize = 64;

/// Refuses a model that gives a pair several scores.
///
/// # Errors
/// [`Error::Usage`].
pub fn one_score(model: &dyn Predict) -> Result<()> {
    match model.num_labels() {
        1 => Ok(()),
        several => Err(Error::usage(format!("the reranker gives a pair {several} scores"))
            .with_hint("give a CrossEncoder with one label")),
    }
}

/// Puts a reranker's scores in the place of all scores.
///
/// # Errors
/// When the model gives a pair several scores, or one that is not finite.
pub fn rescore(pool: &Pool, found: &mut Found, model: &dyn Predict) -> Result<()> {
    one_score(model)?;
    let Found { first, candidates, positives } = found;
    let queries = *first..*first + candidates.len();
    let of_positives: Vec<(usize, u32)> = pairs(pool, queries).map(|pair| (pair.query, pair.document)).collect();
    let total = candidates.iter().map(Vec::len).sum::<usize>() + of_positives.len();
    let progress = Progress::new("rescoring", total as u64);
    // some anchors at a time, so that the pairs in memory do not grow with the data
    for (i, hits) in candidates.chunks_mut(ANCHORS).enumerate() {
        let number = |j: usize| *first + ANCHORS * i + j;
        let pairs: Vec<(usize, u32)> =
            hits.iter().enumerate().flat_map(|(j, hits)| hits.iter().map(move |hit| (number(j), hit.rank))).collect();
        let places = hits.iter_mut().flatten().map(|hit| &mut hit.score);
        score(pool, model, &pairs, places, &progress)?;
    }
    score(pool, model, &of_positives, positives.iter_mut().flatten(), &progress)?;
    progress.finish();
    // equal scores stay in the order of the first search
    candidates.par_iter_mut().for_each(|hits| hits.sort_by(|a, b| b.score.total_cmp(&a.score)));
    Ok(())
}

/// Writes the score of each pair to its place.
fn score<'a>(
    pool: &Pool,
    model: &dyn Predict,
    pairs: &[(usize, u32)],
    mut places: impl Iterator<Item = &'a mut f32>,
    progress: &Progress,
) -> Result<()> {
    for pairs in pairs.chunks(PAIRS) {
        go_on()?;
        let texts: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(query, document)| (pool.queries()[*query].as_str(), pool.documents()[*document as usize].as_str()))
            .collect();
        let scores = model.predict(&texts, None, &EncodeOptions::default())?;
        for ((text, score), place) in texts.iter().zip(scores.data()).zip(&mut places) {
            if !score.is_finite() {
                return Err(score_not_finite(*text));
            }
            *place = *score;
        }
        progress.inc(pairs.len() as u64);
    }
    Ok(())
}
