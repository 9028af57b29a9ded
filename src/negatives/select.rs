//! Which candidates become negatives.

use serde::Serialize;

use super::candidates::Found;
use super::limits::Limit;
use super::pool::Pool;
use super::{SamplingStrategy, Settings};
use crate::scoring::blocks::Hit;
use crate::util::seed::Rng;

/// Negatives, and what was left out for them.
#[derive(Debug, Clone, Default, PartialEq)]
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

/// Takes negatives of candidates, some anchors at a time: positives, then those beyond margins and limits are left out,
/// then ranks count.
///
/// Of an anchor with several positives, margins are held against the one that scores lowest.
#[derive(Debug)]
pub struct Selection<'a> {
    pool: &'a Pool,
    settings: &'a Settings,
    last_rank: usize,
    rng: Rng,
    /// Limits with their values and how many candidates they left out.
    limits: Vec<(Limit, f32, usize)>,
    mined: Mined,
}

impl<'a> Selection<'a> {
    /// From candidates of which each anchor has as many as [`Settings::depth`] says for `last_rank`.
    #[must_use]
    pub fn new(pool: &'a Pool, settings: &'a Settings, last_rank: usize) -> Self {
        let limits = settings.limits().map(|(limit, value)| (limit, value, 0)).collect();
        Self { pool, settings, last_rank, rng: Rng::new(settings.seed), limits, mined: Mined::default() }
    }

    /// Takes those of the anchors that come next.
    pub fn add(&mut self, found: Found) {
        for (candidates, positives) in found.candidates.into_iter().zip(&found.positives) {
            let query = self.mined.negatives.len();
            let negatives = self.negatives(query, candidates, positives);
            self.mined.negatives.push(negatives);
        }
        self.mined.positives.extend(found.positives);
    }

    fn negatives(&mut self, query: usize, mut hits: Vec<Hit>, positives: &[f32]) -> Vec<Hit> {
        if !self.settings.include_positives {
            let mut own = self.pool.positives()[query].clone();
            own.sort_unstable();
            hits.retain(|hit| own.binary_search(&hit.rank).is_err());
        }
        let lowest = positives.iter().copied().fold(f32::INFINITY, f32::min);
        for (limit, value, count) in &mut self.limits {
            let before = hits.len();
            hits.retain(|hit| !limit.leaves_out(*value, hit.score, lowest));
            *count += before - hits.len();
        }
        hits.truncate(self.last_rank);
        hits.drain(..self.settings.range_min.min(hits.len()));
        let wanted = self.settings.num_negatives;
        if self.settings.sampling_strategy == SamplingStrategy::Random && hits.len() > wanted {
            let mut order = self.rng.fork(query as u64).permutation(hits.len());
            order.truncate(wanted);
            order.sort_unstable();
            hits = order.into_iter().map(|place| hits[place as usize]).collect();
        }
        hits.truncate(wanted);
        // what was looked at is many times what stays
        hits.shrink_to_fit();
        hits
    }

    /// The negatives of all anchors.
    #[must_use]
    pub fn finish(self) -> Mined {
        let Self { pool, last_rank, limits, mut mined, .. } = self;
        let places = last_rank.saturating_add(pool.max_positives());
        let mut left = mined.negatives.len().saturating_mul(places);
        for (limit, value, skipped) in limits.into_iter().filter(|(.., count)| *count > 0) {
            let ratio = skipped as f64 / left.max(1) as f64;
            mined.skipped.push(Skipped { setting: limit.name().to_owned(), value, skipped, ratio });
            if limit.is_margin() {
                left = left.saturating_sub(skipped);
            }
        }
        mined
    }
}
