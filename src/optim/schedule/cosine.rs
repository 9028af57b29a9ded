//! Down along half a cosine: `get_cosine_schedule_with_warmup` with its default of half a wave.

use std::f64::consts::PI;

use super::{Schedule, climb};
use crate::flow::Card;

/// The catalogue entry.
pub const CARD: Card = Card::new("cosine", "climbs during warmup, then falls along half a cosine to 0");

/// `step / warmup` during warmup, then `(1 + cos(pi * p)) / 2` with `p = (step - warmup) / (total - warmup)`.
pub struct Cosine;

impl Schedule for Cosine {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn factor(&self, step: u64, total: u64, warmup: u64) -> f64 {
        climb(step, warmup).unwrap_or_else(|| {
            let progress = step.saturating_sub(warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
            (0.5 * (1.0 + (PI * progress).cos())).max(0.0)
        })
    }
}
