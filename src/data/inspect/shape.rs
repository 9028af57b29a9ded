//! What is a row? So many texts, and a label of some kind.

use schemars::JsonSchema;
use serde::Serialize;

use super::labels::LabelFacts;

/// The shape of a data set's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// One text.
    Texts,
    /// One text and a class.
    ClassifiedTexts,
    /// Texts and a teacher's embedding.
    EmbeddedTexts,
    /// Two texts that belong together.
    Pairs,
    /// Two texts and 0 or 1.
    BinaryPairs,
    /// Two texts and a score.
    ScoredPairs,
    /// Two texts and one of several classes.
    ClassifiedPairs,
    /// An anchor, its positive, and negatives.
    Triplets,
    /// Those with a teacher's margin.
    ScoredTriplets,
    /// Those with a list of a teacher's scores.
    ListedTriplets,
    /// A query, a list of texts and a list of labels.
    Lists,
    /// None that a loss takes.
    Unknown,
}

impl Shape {
    /// The shape of rows with so many columns of texts, the last of lists or not, and a label.
    #[must_use]
    pub fn of(texts: usize, lists: bool, label: Option<LabelFacts>, per_list: Option<usize>) -> Self {
        use LabelFacts::{Binary, Classes, Lists, Names, Scores};
        match (texts, lists, label) {
            (2, true, Some(Lists)) => Self::Lists,
            (_, true, _) | (0, ..) => Self::Unknown,
            (1, false, None | Some(Scores)) => Self::Texts,
            (1, false, Some(Binary | Classes | Names)) => Self::ClassifiedTexts,
            (1, false, Some(Lists)) => Self::EmbeddedTexts,
            (2, false, None) => Self::Pairs,
            (2, false, Some(Binary)) => Self::BinaryPairs,
            (2, false, Some(Scores)) => Self::ScoredPairs,
            (2, false, Some(Classes | Names)) => Self::ClassifiedPairs,
            (2, false, Some(Lists)) => Self::EmbeddedTexts,
            (_, false, None) => Self::Triplets,
            (n, false, Some(Lists)) if per_list.is_some_and(|length| length + 2 == n || length + 1 == n) => {
                Self::ListedTriplets
            }
            (_, false, Some(Lists)) => Self::EmbeddedTexts,
            (_, false, Some(_)) => Self::ScoredTriplets,
        }
    }

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Texts => "single texts",
            Self::ClassifiedTexts => "single texts with a class",
            Self::EmbeddedTexts => "texts with a teacher's embedding",
            Self::Pairs => "pairs that belong together",
            Self::BinaryPairs => "pairs with 0 or 1",
            Self::ScoredPairs => "pairs with a score",
            Self::ClassifiedPairs => "pairs with a class",
            Self::Triplets => "anchors with a positive and negatives",
            Self::ScoredTriplets => "triplets with a teacher's margin",
            Self::ListedTriplets => "triplets with a list of a teacher's scores",
            Self::Lists => "a query with a list of texts and one of labels",
            Self::Unknown => "rows of no known shape",
        }
    }
}
