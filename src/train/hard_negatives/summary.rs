//! What is said of negatives that were found.

use schemars::JsonSchema;
use serde::Serialize;

use crate::negatives::{Skipped, Statistics};
use crate::util::numbers::thousands;

/// What was found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Summary {
    /// Rows written.
    pub rows: usize,
    /// Rows of the data that were left out.
    pub rows_skipped: u64,
    /// Their columns.
    pub columns: Vec<String>,
    /// Anchors, each once.
    pub queries: usize,
    /// Texts they were compared with, each once.
    pub documents: usize,
    /// Positives of an anchor, on average.
    pub positives_per_query: f64,
    /// How far down each ranking negatives were looked for.
    pub range_max: usize,
    /// Scores of `positive`, `negative` and their `difference`: `count`, `mean`, `std`, `min`, `50%`, `max`, ...
    #[schemars(with = "std::collections::BTreeMap<String, std::collections::BTreeMap<String, Option<f64>>>")]
    pub statistics: Statistics,
    /// What each limit left out.
    pub skipped: Vec<Skipped>,
    /// Rows there are not, since too few candidates were left.
    pub missing: usize,
    /// What to change.
    pub notes: Vec<String>,
    /// Texts whose embeddings were kept from before, and those that had to be encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<(usize, usize)>,
}

impl Summary {
    /// What there is to say of it, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} anchors with {:.2} positives on average, {} documents, the nearest {}",
            thousands(self.queries),
            self.positives_per_query,
            thousands(self.documents),
            self.range_max
        )];
        if self.rows_skipped > 0 {
            lines.push(format!("{} rows of the data were left out", thousands(self.rows_skipped)));
        }
        lines.extend(self.statistics.table());
        for left_out in &self.skipped {
            lines.push(format!(
                "{} of {} left out {} candidates ({:.2} %)",
                left_out.setting,
                left_out.value,
                thousands(left_out.skipped),
                100.0 * left_out.ratio
            ));
        }
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        if let Some((kept, new)) = self.cached {
            lines.push(format!("embeddings: {} kept from before, {} new", thousands(kept), thousands(new)));
        }
        lines
    }
}
