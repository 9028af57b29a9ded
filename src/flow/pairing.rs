//! How the texts of a batch become pairs for a model that reads two texts at once.

/// The pairs a loss compares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pairing {
    /// A row's first text with each of its others: a column of pairs for each, or one of all where they are a list.
    #[default]
    Rows,
    /// First the row's second text, then texts of other rows, then the row's other texts (hard negatives).
    InBatch {
        /// How many texts of other rows, drawn anew in each step; `None` for all.
        negatives: Option<usize>,
    },
}
