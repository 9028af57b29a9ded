//! Which losses train rerankers and classifiers of pairs?
//!
//! Their columns are logits, `[pairs, labels]`: one column for each of a row's pairs, or a single one with the pairs of
//! all rows one after the other where a row has a list of texts ([`Outputs::lists`](crate::flow::Outputs)).

use super::Entry;

/// Every loss, one line each.
pub static LOSSES: &[Entry] = &[];
