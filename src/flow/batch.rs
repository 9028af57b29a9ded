//! Packed token streams: sequences one after the other, no padding.

use std::sync::Arc;

use super::labels::Labels;
use super::traits::Tokens;

/// Many token sequences in one stream.
///
/// # Shapes
/// `ids`: `[tokens]`; `offsets`: `[sequences + 1]`, the i-th sequence is `ids[offsets[i]..offsets[i + 1]]`;
/// `prompt_lengths`: `[sequences]`, leading tokens that belong to a prompt (the special token before it included);
/// `types`: `[tokens]`, which text of a pair a token belongs to, as the tokenizer numbers them; empty for zeros;
/// `attended`: `[sequences]`, how many of its leading tokens attention looks at; empty for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedBatch {
    pub ids: Arc<Vec<u32>>,
    pub offsets: Arc<Vec<u32>>,
    pub prompt_lengths: Arc<Vec<u32>>,
    pub types: Arc<Vec<u32>>,
    pub attended: Arc<Vec<u32>>,
}

impl PackedBatch {
    /// Packs sequences given as `(ids, prompt length)`.
    pub fn pack<'a>(sequences: impl IntoIterator<Item = (&'a [u32], u32)>) -> Self {
        let (mut ids, mut offsets, mut prompt_lengths) = (Vec::new(), vec![0u32], Vec::new());
        for (sequence, prompt_length) in sequences {
            ids.extend_from_slice(sequence);
            offsets.push(ids.len() as u32);
            prompt_lengths.push(prompt_length);
        }
        Self {
            ids: Arc::new(ids),
            offsets: Arc::new(offsets),
            prompt_lengths: Arc::new(prompt_lengths),
            types: Arc::default(),
            attended: Arc::default(),
        }
    }

    /// The same tokens with their types, `[tokens]`.
    #[must_use]
    pub fn with_types(mut self, types: Vec<u32>) -> Self {
        self.types = Arc::new(types);
        self
    }

    /// Packs what a tokenizer returned.
    pub fn from_tokens(tokens: &[Tokens]) -> Self {
        Self::pack(tokens.iter().map(|t| (t.ids.as_slice(), t.prompt_length)))
    }

    /// Whether two sequences have the same tokens.
    #[must_use]
    pub fn same(&self, a: usize, b: usize) -> bool {
        let tokens = |i: usize| {
            let (from, to) = (*self.offsets.get(i)?, *self.offsets.get(i + 1)?);
            self.ids.get(from as usize..to as usize)
        };
        matches!((tokens(a), tokens(b)), (Some(a), Some(b)) if a == b)
    }

    /// How many sequences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tokens in all.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Some of its sequences, in order; those that there are not are left out.
    #[must_use]
    pub fn part(&self, sequences: std::ops::Range<usize>) -> Self {
        let end = sequences.end.min(self.len());
        let start = sequences.start.min(end);
        let part = Self::pack((start..end).map(|i| {
            let (from, to) = (self.offsets[i] as usize, self.offsets[i + 1] as usize);
            (&self.ids[from..to], self.prompt_lengths[i])
        }));
        let part = match self.attended.get(start..end) {
            Some(attended) => Self { attended: Arc::new(attended.to_vec()), ..part },
            None => part,
        };
        if self.types.is_empty() {
            return part;
        }
        let (from, to) = (self.offsets[start] as usize, self.offsets[end] as usize);
        part.with_types(self.types[from..to].to_vec())
    }

    /// The longest sequence's length.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.offsets.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0)
    }
}

/// How a data set's rows are put into batches.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Arrangement {
    /// As they are.
    #[default]
    AsIs,
    /// Single texts as pairs: of every `ratio` pairs the first is a text with itself, labelled 1, the others are two
    /// texts, labelled 0.
    Pairs { ratio: usize },
    /// Single texts twice: without some of their words, each left out with the probability `delete`, and whole.
    Damaged { delete: f64 },
}

/// One training batch: every column's sequences in one packed stream, column after column.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `columns * rows` sequences: first column 0 of all rows, then column 1, ...
    pub packed: PackedBatch,
    /// How many input columns.
    pub columns: usize,
    /// How many rows.
    pub rows: usize,
    /// `[rows]`: how many sequences each row has in the last column, where that holds lists; empty otherwise.
    pub lists: Vec<usize>,
    /// `[columns][rows]`: a hash of each text, equal exactly when the texts are equal.
    pub text_ids: Vec<Vec<u64>>,
    /// One label a row, where the data has them.
    pub labels: Option<Labels>,
    /// `[rows]`: the rows' numbers in the data set, for messages.
    pub row_ids: Vec<u64>,
    /// Which of several data sets the rows come from.
    pub dataset: usize,
}

impl Batch {
    /// The sequences of each column of embeddings: of a list column all together.
    #[must_use]
    pub fn spans(&self) -> Vec<std::ops::Range<usize>> {
        let mut spans: Vec<_> = (0..self.columns).map(|c| c * self.rows..(c + 1) * self.rows).collect();
        if let Some(last) = spans.last_mut().filter(|_| !self.lists.is_empty()) {
            last.end = self.packed.len();
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_batches_of_their_own() {
        let batch = PackedBatch::pack([(&[1u32, 2][..], 0), (&[3], 1), (&[], 0), (&[4, 5, 6], 2)]);
        assert_eq!(batch.part(1..4), PackedBatch::pack([(&[3u32][..], 1), (&[], 0), (&[4, 5, 6], 2)]));
        assert_eq!(batch.part(0..9), batch);
        assert!(batch.part(4..5).is_empty());
    }
}
