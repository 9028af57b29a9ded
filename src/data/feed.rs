//! How do a data set's rows become a batch's rows? As they are, or arranged as the loss asks for.

use std::sync::Arc;

use super::store::Store;
use crate::error::Result;
use crate::flow::{Arrangement, Batch, Labels};

/// A data set and the way its rows are put into batches.
#[derive(Debug, Clone)]
pub struct Feed {
    store: Arc<Store>,
    arrangement: Arrangement,
}

impl From<Arc<Store>> for Feed {
    fn from(store: Arc<Store>) -> Self {
        Self { store, arrangement: Arrangement::AsIs }
    }
}

impl Feed {
    /// The rows of `store`, arranged.
    #[must_use]
    pub fn new(store: Arc<Store>, arrangement: Arrangement) -> Self {
        Self { store, arrangement }
    }

    /// Rows of the data set that a batch of `rows` rows takes.
    #[must_use]
    pub fn rows_taken(&self, rows: usize) -> usize {
        match self.arrangement {
            Arrangement::Pairs { ratio } => 2 * rows - rows.div_ceil(ratio.max(1)),
            Arrangement::AsIs => rows,
        }
    }

    /// Input columns that its batches have.
    #[must_use]
    pub fn columns(&self) -> usize {
        match self.arrangement {
            Arrangement::Pairs { .. } => 2,
            Arrangement::AsIs => self.store.columns().len(),
        }
    }

    /// The batch of these rows of the data set in that epoch.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn batch(&self, rows: &[u32], epoch: u64) -> Result<Batch> {
        let _ = epoch;
        match self.arrangement {
            Arrangement::AsIs => self.store.batch(rows),
            Arrangement::Pairs { ratio } => {
                let Pairs { first, second, labels } = pairs(rows, ratio);
                Ok(Batch { labels: Some(Labels::Float(labels)), ..self.store.batch_of(&[(0, &first), (0, &second)])? })
            }
        }
    }
}

struct Pairs {
    first: Vec<u32>,
    second: Vec<u32>,
    /// 1 for a row with itself.
    labels: Vec<f32>,
}

/// One pair of every `ratio` is a row with itself, the first of them; the others take two rows, one after the other. A
/// single row that is left over is left out.
fn pairs(rows: &[u32], ratio: usize) -> Pairs {
    let mut pairs = Pairs { first: Vec::new(), second: Vec::new(), labels: Vec::new() };
    let mut rows = rows.iter().copied();
    while let Some(first) = rows.next() {
        let equal = pairs.first.len().is_multiple_of(ratio.max(1));
        let Some(second) = (if equal { Some(first) } else { rows.next() }) else { break };
        pairs.first.push(first);
        pairs.second.push(second);
        pairs.labels.push(f32::from(u8::from(equal)));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_so_many_pairs_is_of_equal_rows() {
        // the reference's loader: of eight texts and a ratio of 4, five pairs would take eight
        let rows: Vec<u32> = (10..18).collect();
        let got = pairs(&rows, 4);
        assert_eq!(got.first, [10, 11, 13, 15, 17]);
        assert_eq!(got.second, [10, 12, 14, 16, 17]);
        assert_eq!(got.labels, [1.0, 0.0, 0.0, 0.0, 1.0]);
        // one left over
        assert_eq!(pairs(&rows[..3], 4).first, [10, 11]);
        assert_eq!(pairs(&rows[..2], 4).first, [10]);
        assert_eq!(pairs(&rows[..3], 1).labels, [1.0; 3]);
        for ratio in 1..9usize {
            for count in 1..40usize {
                let taken = 2 * count - count.div_ceil(ratio);
                let rows: Vec<u32> = (0..taken as u32).collect();
                assert_eq!(pairs(&rows, ratio).first.len(), count, "{ratio} {count}");
            }
        }
    }
}
