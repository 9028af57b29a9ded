//! Which tokens see which, and how a long sequence is taken in parts.

use std::ops::Range;

/// Which tokens of its own sequence a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// All of them.
    All,
    /// Those before it, and itself.
    Before,
    /// Those at most so many places away.
    Near(usize),
    /// Itself and those before it that are at most so many places away.
    Last(usize),
}

impl Sight {
    /// The tokens that the token at `place` sees in a sequence of `length`.
    pub(super) fn of(self, place: usize, length: usize) -> Range<usize> {
        match self {
            Self::All => 0..length,
            Self::Before => 0..(place + 1).min(length),
            Self::Near(far) => place.saturating_sub(far)..place.saturating_add(far).saturating_add(1).min(length),
            Self::Last(far) => place.saturating_sub(far)..(place + 1).min(length),
        }
    }

    /// How many tokens one sees at most.
    pub(super) fn most(self, length: usize) -> usize {
        match self {
            Self::All | Self::Before => length,
            Self::Near(far) => length.min(far.saturating_mul(2).saturating_add(1)),
            Self::Last(far) => length.min(far.saturating_add(1)),
        }
    }

    /// Whether tokens may see none of those that are looked at, and spans share keys.
    pub(super) fn is_window(self) -> bool {
        matches!(self, Self::Near(_) | Self::Last(_))
    }

    /// The spans of a sequence: one, but of a long one whose tokens see few others a span for each block of queries.
    pub(super) fn spans(self, length: usize) -> impl Iterator<Item = Span> {
        let (step, before, behind) = match self {
            Self::Near(far) if far < length => (QUERIES, far, far),
            Self::Last(far) if far < length => (QUERIES, far, 0),
            _ => (length, length, length),
        };
        (0..length).step_by(step.max(1)).map(move |first| {
            let end = (first + step).min(length);
            Span { queries: first..end, keys: first.saturating_sub(before)..(end + behind).min(length) }
        })
    }
}

/// Query rows whose scores are computed at a time: they stay in a second-level cache.
pub(super) const QUERIES: usize = 96;

/// Consecutive queries of a task and the keys that one of them sees, which are packed together.
#[derive(Clone)]
pub(super) struct Span {
    pub queries: Range<usize>,
    pub keys: Range<usize>,
}

/// A block of a span's queries: rows `first..first + rows` of the task.
#[derive(Clone, Copy)]
pub(super) struct Queries {
    pub first: usize,
    pub rows: usize,
}

impl Span {
    pub fn blocks(&self) -> impl Iterator<Item = Queries> + use<> {
        let end = self.queries.end;
        self.queries.clone().step_by(QUERIES).map(move |first| Queries { first, rows: QUERIES.min(end - first) })
    }
}
