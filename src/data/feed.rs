//! How do a data set's rows become a batch's rows? As they are, or arranged as the loss asks for.

use std::sync::Arc;

use super::sampler::RowFacts;
use super::store::Store;
use crate::error::Result;
use crate::flow::{Arrangement, Batch, Labels, PackedBatch, Piece};
use crate::util::seed::Rng;

/// A data set and the way its rows are put into batches.
#[derive(Debug, Clone)]
pub struct Feed {
    store: Arc<Store>,
    arrangement: Arrangement,
    /// What the tokens are, by id, for texts to be damaged.
    pieces: Arc<Vec<Piece>>,
    seed: u64,
}

impl From<Arc<Store>> for Feed {
    fn from(store: Arc<Store>) -> Self {
        Self::new(store, Arrangement::AsIs, Vec::new(), 0)
    }
}

impl Feed {
    /// The rows of `store`, arranged; `pieces` says what its tokens are, and `seed` is that of all that is drawn.
    #[must_use]
    pub fn new(store: Arc<Store>, arrangement: Arrangement, pieces: Vec<Piece>, seed: u64) -> Self {
        Self { store, arrangement, pieces: Arc::new(pieces), seed }
    }

    /// Rows of the data set that a batch of `rows` rows takes.
    #[must_use]
    pub fn rows_taken(&self, rows: usize) -> usize {
        match self.arrangement {
            Arrangement::Pairs { ratio } => 2 * rows - rows.div_ceil(ratio.max(1)),
            Arrangement::AsIs | Arrangement::Damaged { .. } => rows,
        }
    }

    /// Input columns that its batches have.
    #[must_use]
    pub fn columns(&self) -> usize {
        match self.arrangement {
            Arrangement::Pairs { .. } | Arrangement::Damaged { .. } => 2,
            Arrangement::AsIs => self.store.columns().len(),
        }
    }

    /// The batch of these rows of the data set in that epoch.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn batch(&self, rows: &[u32], epoch: u64) -> Result<Batch> {
        match self.arrangement {
            Arrangement::AsIs => self.store.batch(rows),
            Arrangement::Pairs { ratio } => {
                let Pairs { first, second, labels } = pairs(rows, ratio);
                Ok(Batch { labels: Some(Labels::Float(labels)), ..self.store.batch_of(&[(0, &first), (0, &second)])? })
            }
            Arrangement::Damaged { delete } => {
                let twice = self.store.batch_of(&[(0, rows), (0, rows)])?;
                let rng = Rng::new(self.seed).fork(STREAM).fork(epoch);
                let mut damaged = Vec::with_capacity(rows.len());
                for row in rows {
                    let (ids, prompt) = self.store.sequence(*row, 0)?;
                    damaged
                        .push((damage(ids, prompt as usize, &self.pieces, delete, rng.fork(u64::from(*row))), prompt));
                }
                let whole = rows.iter().map(|row| self.store.sequence(*row, 0)).collect::<Result<Vec<_>>>()?;
                let damaged = damaged.iter().map(|(ids, prompt)| (ids.as_slice(), *prompt));
                Ok(Batch { packed: PackedBatch::pack(damaged.chain(whole)), ..twice })
            }
        }
    }
}

impl RowFacts for Feed {
    fn rows(&self) -> usize {
        self.store.rows()
    }

    fn ids(&self, row: u32) -> &[u64] {
        self.store.ids(row)
    }

    fn tokens(&self, row: u32) -> usize {
        match self.arrangement {
            Arrangement::Damaged { .. } => 2 * self.store.tokens(row),
            Arrangement::AsIs | Arrangement::Pairs { .. } => self.store.tokens(row),
        }
    }

    fn class(&self, row: u32) -> Option<i64> {
        self.store.class(row)
    }
}

/// Keeps what is deleted apart from other things drawn from the same seed.
const STREAM: u64 = 0xDE1E_7E00;

/// A text's tokens without those of some words, each left out with the probability `delete`; one word at least stays.
/// Special tokens stay, and so do the first `prompt` tokens.
fn damage(ids: &[u32], prompt: usize, pieces: &[Piece], delete: f64, mut rng: Rng) -> Vec<u32> {
    // the word of each token, counted from 1; 0 for none
    let mut words = vec![0usize; ids.len()];
    let mut count = 0;
    for (i, id) in ids.iter().enumerate().skip(prompt) {
        match pieces.get(*id as usize).unwrap_or(&Piece::Start) {
            Piece::Special => {}
            Piece::Continuation if i > 0 && words[i - 1] > 0 => words[i] = count,
            Piece::Continuation | Piece::Start => {
                count += 1;
                words[i] = count;
            }
        }
    }
    let mut kept: Vec<bool> = (0..count).map(|_| rng.uniform() >= delete).collect();
    if !kept.contains(&true) && count > 0 {
        kept[rng.below(count as u64) as usize] = true;
    }
    let stays = |word: usize| word == 0 || kept[word - 1];
    ids.iter().zip(words).filter(|(_, word)| stays(*word)).map(|(id, _)| *id).collect()
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
    fn whole_words_are_deleted() {
        use Piece::{Continuation, Special, Start};
        // 0 frames a text, odd numbers go on with a word
        let pieces: Vec<Piece> = (0..20)
            .map(|id| {
                if id == 0 {
                    Special
                } else if id % 2 == 1 {
                    Continuation
                } else {
                    Start
                }
            })
            .collect();
        let text = [0, 2, 3, 4, 6, 7, 9, 8, 0];
        let words: [&[u32]; 4] = [&[2, 3], &[4], &[6, 7, 9], &[8]];
        let (mut lengths, mut all) = ([0; 5], 0);
        for seed in 0..2000 {
            let damaged = damage(&text, 0, &pieces, 0.6, Rng::new(seed));
            let inner = &damaged[1..damaged.len() - 1];
            assert_eq!((damaged[0], damaged.last()), (0, Some(&0)));
            let kept: Vec<&[u32]> = words.iter().copied().filter(|word| inner.contains(&word[0])).collect();
            assert_eq!(kept.concat(), inner, "whole words in order");
            lengths[kept.len()] += 1;
            all += kept.len();
        }
        assert_eq!(lengths[0], 0, "one word at least stays");
        // 0.4 of four words each, and one where all would go: 1.6 + 0.6^4
        let mean = all as f64 / 2000.0;
        assert!((mean - 1.73).abs() < 0.06, "{mean}");
        assert_eq!(damage(&text, 0, &pieces, 0.0, Rng::new(1)), text);
        let one = damage(&text, 0, &pieces, 1.0, Rng::new(1));
        assert!(words.contains(&&one[1..one.len() - 1]), "{one:?}");
        for seed in 0..50 {
            let damaged = damage(&text, 4, &pieces, 1.0, Rng::new(seed));
            assert_eq!(damaged[..4], text[..4], "the prompt stays");
        }
        assert_eq!(damage(&[0, 0], 0, &pieces, 0.6, Rng::new(1)), [0, 0]);
        // a text that was cut in a word begins with what goes on
        assert_eq!(damage(&[3, 5], 0, &pieces, 1.0, Rng::new(1)), [3, 5]);
    }

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
