//! What the catalogue knows of a loss, an evaluator, a sampler, a schedule or a module.

use serde::Serialize;

use super::kind::ModelType;

/// What a loss does with labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum LabelKind {
    /// None wanted.
    None,
    /// A score a row.
    Float,
    /// A class a row.
    Int,
    /// A vector or a list of scores a row.
    Matrix,
    /// A score for each text of a row's last column, which holds lists of texts.
    Lists,
    /// Any of these: the loss goes by what it gets.
    Any,
}

/// One entry of the catalogue; lives as `CARD` beside the thing it describes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Card {
    /// The name in recipes, sentence-transformers' where it has one.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// The model types it serves.
    pub model_types: &'static [ModelType],
    /// The data it takes, as `(anchor, positive) pairs`, one entry a shape.
    pub inputs: &'static [&'static str],
    /// Least and most input columns; `usize::MAX` for any number.
    pub columns: (usize, usize),
    /// The labels it takes.
    pub labels: LabelKind,
    /// From how many input columns on a row does without a label; `usize::MAX` for never (losses with labels).
    pub unlabelled_from: usize,
    /// Takes the other rows of a batch as negatives, so that a text twice in it is a wrong one (losses).
    pub in_batch_negatives: bool,
    /// Compares the rows of a batch with each other, so that a batch of one row teaches nothing (losses).
    pub compares_rows: bool,
    /// Compares rows by the classes they have, so that a batch needs several rows of several classes (losses).
    pub compares_labels: bool,
    /// What goes wrong, one sentence each.
    pub gotchas: &'static [&'static str],
    /// The paper, as a link, or empty.
    pub paper: &'static str,
}

impl Card {
    /// An empty card to start from.
    #[must_use]
    pub const fn new(name: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            summary,
            model_types: &[ModelType::SentenceTransformer],
            inputs: &[],
            columns: (1, usize::MAX),
            labels: LabelKind::Any,
            unlabelled_from: usize::MAX,
            in_batch_negatives: false,
            compares_rows: false,
            compares_labels: false,
            gotchas: &[],
            paper: "",
        }
    }
}
