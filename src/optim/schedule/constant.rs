//! No change: `get_constant_schedule` and `get_constant_schedule_with_warmup`.

use super::{Schedule, climb};
use crate::flow::Card;

/// The catalogue entry of [`Constant`].
pub const CARD: Card = Card {
    gotchas: &["`warmup_steps` is ignored; `constant_with_warmup` heeds it"],
    ..Card::new("constant", "stays as it is, without warmup")
};

/// The catalogue entry of [`ConstantWithWarmup`].
pub const CARD_WITH_WARMUP: Card = Card::new("constant_with_warmup", "climbs during warmup, then stays");

/// Always 1.
pub struct Constant;

impl Schedule for Constant {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn factor(&self, _step: u64, _total: u64, _warmup: u64) -> f64 {
        1.0
    }
}

/// `step / warmup` during warmup, then 1.
pub struct ConstantWithWarmup;

impl Schedule for ConstantWithWarmup {
    fn card(&self) -> &'static Card {
        &CARD_WITH_WARMUP
    }

    fn factor(&self, step: u64, _total: u64, warmup: u64) -> f64 {
        climb(step, warmup).unwrap_or(1.0)
    }
}
