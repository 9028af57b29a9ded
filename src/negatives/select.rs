//! Which candidates become negatives.

use serde::Serialize;

use super::candidates::Found;
use super::pool::Pool;
use super::{SamplingStrategy, Settings};
use crate::scoring::blocks::Hit;
use crate::util::seed::Rng;

/// Negatives, and what was left out for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Mined {
    /// `[anchors]`: up to `num_negatives` documents, best first.
    pub negatives: Vec<Vec<Hit>>,
    /// `[anchors]`: one score for each positive.
    pub positives: Vec<Vec<f32>>,
    /// What each limit left out, in the order they were held against the candidates.
    pub skipped: Vec<Skipped>,
}

/// Candidates that a limit left out.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Skipped {
    /// The setting.
    pub setting: String,
    /// Its value.
    pub value: f32,
    /// Candidates left out.
    pub skipped: usize,
    /// Part of all, 0 to 1.
    pub ratio: f64,
}

/// Takes negatives of the candidates, of which there should be `last_rank + max_positives` an anchor: positives, then those
/// beyond margins and limits are left out, then ranks count.
///
/// Of an anchor with several positives, margins are held against the one that scores lowest.
#[must_use]
pub fn select(pool: &Pool, found: Found, settings: &Settings, last_rank: usize) -> Mined {
    let mut candidates = found.candidates;
    let places = candidates.len() * last_rank.saturating_add(pool.max_positives());
    if !settings.include_positives {
        for (hits, positives) in candidates.iter_mut().zip(pool.positives()) {
            hits.retain(|hit| !positives.contains(&hit.rank));
        }
    }
    let lowest: Vec<f32> =
        found.positives.iter().map(|scores| scores.iter().copied().fold(f32::INFINITY, f32::min)).collect();
    let mut skipped = Vec::new();
    let mut left = places;
    // f32 throughout, as the scores are
    for (name, limit) in settings.limits() {
        let Some(limit) = limit else { continue };
        let beyond = |score: f32, positive: f32| match name {
            "absolute_margin" => score + limit > positive,
            "relative_margin" => score > positive - positive.abs() * limit,
            "max_score" => score > limit,
            _ => score < limit,
        };
        let mut count = 0;
        for (hits, positive) in candidates.iter_mut().zip(&lowest) {
            let before = hits.len();
            hits.retain(|hit| !beyond(hit.score, *positive));
            count += before - hits.len();
        }
        if count > 0 {
            let ratio = count as f64 / left.max(1) as f64;
            skipped.push(Skipped { setting: name.to_owned(), value: limit, skipped: count, ratio });
            if name.ends_with("margin") {
                left = left.saturating_sub(count);
            }
        }
    }
    let rng = Rng::new(settings.seed);
    let wanted = settings.num_negatives;
    for (query, hits) in candidates.iter_mut().enumerate() {
        hits.truncate(last_rank);
        hits.drain(..settings.range_min.min(hits.len()));
        if settings.sampling_strategy == SamplingStrategy::Random && hits.len() > wanted {
            let mut order = rng.fork(query as u64).permutation(hits.len());
            order.truncate(wanted);
            order.sort_unstable();
            *hits = order.into_iter().map(|place| hits[place as usize]).collect();
        }
        hits.truncate(wanted);
    }
    Mined { negatives: candidates, positives: found.positives, skipped }
}
