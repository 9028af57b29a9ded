//! Which candidates are left out by their scores.

use super::Settings;

/// A limit, or a margin below the positive that scores lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    AbsoluteMargin,
    RelativeMargin,
    MaxScore,
    MinScore,
}

impl Limit {
    /// In the order they are held against candidates.
    pub const ALL: [Self; 4] = [Self::AbsoluteMargin, Self::RelativeMargin, Self::MaxScore, Self::MinScore];

    /// The setting's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AbsoluteMargin => "absolute_margin",
            Self::RelativeMargin => "relative_margin",
            Self::MaxScore => "max_score",
            Self::MinScore => "min_score",
        }
    }

    /// Its value, where it is set.
    #[must_use]
    pub fn of(self, settings: &Settings) -> Option<f32> {
        match self {
            Self::AbsoluteMargin => settings.absolute_margin,
            Self::RelativeMargin => settings.relative_margin,
            Self::MaxScore => settings.max_score,
            Self::MinScore => settings.min_score,
        }
    }

    /// Whether it leaves out a candidate, `positive` being the lowest score of a positive. In f32, as the scores are.
    #[must_use]
    pub fn leaves_out(self, value: f32, score: f32, positive: f32) -> bool {
        match self {
            Self::AbsoluteMargin => score + value > positive,
            Self::RelativeMargin => score > positive - positive.abs() * value,
            Self::MaxScore => score > value,
            Self::MinScore => score < value,
        }
    }

    /// Whether it is held against positives.
    #[must_use]
    pub const fn is_margin(self) -> bool {
        matches!(self, Self::AbsoluteMargin | Self::RelativeMargin)
    }

    /// How to change it for more candidates.
    #[must_use]
    pub const fn way_out(self) -> &'static str {
        match self {
            Self::AbsoluteMargin => "`absolute_margin` (lower)",
            Self::RelativeMargin => "`relative_margin` (lower)",
            Self::MaxScore => "`max_score` (higher)",
            Self::MinScore => "`min_score` (lower)",
        }
    }
}
