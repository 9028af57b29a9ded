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
}

impl Sight {
    /// The tokens that the token at `place` sees in a sequence of `length`.
    pub(super) fn of(self, place: usize, length: usize) -> Range<usize> {
        match self {
            Self::All => 0..length,
            Self::Before => 0..(place + 1).min(length),
            Self::Near(far) => place.saturating_sub(far)..place.saturating_add(far + 1).min(length),
        }
    }

    /// How many tokens one sees at most.
    pub(super) fn most(self, length: usize) -> usize {
        match self {
            Self::All | Self::Before => length,
            Self::Near(far) => length.min(far.saturating_mul(2) + 1),
        }
    }

    /// The spans of a sequence: one, but of a long one whose tokens see few others a span for each block of queries.
    pub(super) fn spans(self, length: usize) -> impl Iterator<Item = Span> {
        let (step, far) = match self {
            Self::Near(far) if far < length => (QUERIES, far),
            _ => (length, length),
        };
        (0..length).step_by(step.max(1)).map(move |first| {
            let end = (first + step).min(length);
            Span { queries: first..end, keys: first.saturating_sub(far)..(end + far).min(length) }
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
