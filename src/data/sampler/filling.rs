//! When is a batch full? Rows and tokens are counted here, for every sampler alike.

use super::{EpochPlan, RowFacts, SamplerSettings};

/// An epoch while it is planned: the batches that are done, and one that is being filled.
///
/// A batch is closed by its number of rows or by the next row that would take its tokens past the budget; a row that
/// alone is longer than the budget is a batch of its own. What is left when the rows run out is incomplete.
pub(super) struct Filling<'a> {
    rows: &'a dyn RowFacts,
    settings: &'a SamplerSettings,
    plan: EpochPlan,
    /// Where the batch begins in the plan's order.
    start: usize,
    /// Its tokens so far; not counted without a budget.
    tokens: usize,
}

impl<'a> Filling<'a> {
    /// An epoch of at most `capacity` rows.
    pub(super) fn new(rows: &'a dyn RowFacts, settings: &'a SamplerSettings, capacity: usize) -> Self {
        let plan = EpochPlan { order: Vec::with_capacity(capacity), bounds: vec![0], single: 0 };
        Self { rows, settings, plan, start: 0, tokens: 0 }
    }

    /// Rows of the batch so far.
    pub(super) fn len(&self) -> usize {
        self.plan.order.len() - self.start
    }

    /// Whether the batch has all its rows.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.settings.batch_size
    }

    /// Whether these rows may come into the batch together; the first ones always may.
    pub(super) fn fits(&self, rows: &[u32]) -> bool {
        let tokens = || rows.iter().fold(0usize, |sum, row| sum.saturating_add(self.rows.tokens(*row)));
        self.len() == 0 || self.left().is_none_or(|left| tokens() <= left)
    }

    /// Tokens the budget still allows.
    fn left(&self) -> Option<usize> {
        self.settings.max_tokens.map(|most| most.saturating_sub(self.tokens))
    }

    /// Puts `row` into the batch.
    pub(super) fn push(&mut self, row: u32) {
        if self.settings.max_tokens.is_some() {
            self.tokens = self.tokens.saturating_add(self.rows.tokens(row));
        }
        self.plan.order.push(row);
    }

    /// Ends the batch; `closed` says that a row did not fit any more. An incomplete one is left out where the settings
    /// say so.
    pub(super) fn end(&mut self, closed: bool) {
        let by_budget = !self.is_full() && (closed || self.left() == Some(0));
        if self.len() == 0 || (self.settings.drop_last && !self.is_full() && !by_budget) {
            self.plan.order.truncate(self.start);
        } else {
            self.plan.single += usize::from(by_budget && self.len() == 1);
            self.plan.bounds.push(self.plan.order.len() as u32);
        }
        (self.start, self.tokens) = (self.plan.order.len(), 0);
    }

    /// Takes the batch back.
    pub(super) fn discard(&mut self) {
        self.plan.order.truncate(self.start);
        self.tokens = 0;
    }

    /// The epoch.
    pub(super) fn finish(self) -> EpochPlan {
        self.plan
    }
}
