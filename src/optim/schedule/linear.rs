//! Down in a straight line: `get_linear_schedule_with_warmup`.

use super::{Schedule, climb};
use crate::flow::Card;

/// The catalogue entry.
pub const CARD: Card = Card::new("linear", "climbs during warmup, then falls in a straight line to 0");

/// `step / warmup` during warmup, then `(total - step) / (total - warmup)`.
pub struct Linear;

impl Schedule for Linear {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn factor(&self, step: u64, total: u64, warmup: u64) -> f64 {
        climb(step, warmup)
            .unwrap_or_else(|| total.saturating_sub(step) as f64 / total.saturating_sub(warmup).max(1) as f64)
    }
}
