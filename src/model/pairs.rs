//! Batches of texts as batches of pairs, for models that read two texts at once.

use std::sync::Arc;

use super::tokenizer::{PairTemplate, TextTokenizer};
use crate::error::{Error, Result};
use crate::flow::{Batch, PackedBatch, Pairing, Preprocess, Tokens};
use crate::util::seed::Rng;

/// How a model frames pairs.
pub struct Pairs {
    template: PairTemplate,
    limit: Option<usize>,
    /// Texts by themselves, without special tokens.
    plain: Arc<TextTokenizer>,
}

impl Pairs {
    /// As `tokenizer` frames them, with its limit of tokens for both texts together.
    ///
    /// # Errors
    /// When it cannot frame pairs, or leaves no room for texts.
    pub fn new(tokenizer: &TextTokenizer) -> Result<Self> {
        let template = tokenizer.pair_template()?;
        let limit = tokenizer.limit();
        if let Some(limit) = limit
            && limit < template.special_tokens() + 2
        {
            let least = template.special_tokens() + 2;
            return Err(Error::usage(format!(
                "`model.max_seq_length` is {limit}, a pair needs at least {least} tokens"
            ))
            .with_hint("it counts both texts and the special tokens; 256 to 512 are usual"));
        }
        // no text of a pair can keep more
        let room = limit.map(|limit| limit - template.special_tokens());
        Ok(Self { plain: Arc::new(tokenizer.plain(room)), template, limit })
    }

    /// What cuts the texts of training data into tokens.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<TextTokenizer> {
        &self.plain
    }

    /// The types that tokens can have.
    #[must_use]
    pub fn token_types(&self) -> Vec<u32> {
        self.template.token_types()
    }

    /// Tokens of a pair of texts with so many tokens.
    #[must_use]
    pub fn length(&self, first: usize, second: usize) -> usize {
        let length = first + second + self.template.special_tokens();
        self.limit.map_or(length, |limit| length.min(limit))
    }

    /// Of each pair the texts' tokens, how many they were before they were cut, and those of the prompt.
    fn pack<'a>(&self, pairs: impl Iterator<Item = ([&'a [u32]; 2], [usize; 2], u32)>) -> PackedBatch {
        let (mut ids, mut types, mut ends, mut prompts) = (Vec::new(), Vec::new(), vec![0], Vec::new());
        for (texts, full, prompt) in pairs {
            self.template.append(texts, full, self.limit, &mut ids, &mut types);
            ends.push(ids.len());
            prompts.push(if prompt == 0 { 0 } else { prompt + self.template.leading() as u32 });
        }
        let sequences = ends.windows(2).zip(&prompts);
        let sequences = sequences.map(|(end, prompt)| (&ids[end[0]..end[1]], (*prompt).min((end[1] - end[0]) as u32)));
        let packed = PackedBatch::pack(sequences);
        packed.with_types(types)
    }

    /// Pairs of tokenised texts, each a sequence.
    #[must_use]
    pub fn pack_tokens(&self, pairs: &[(&Tokens, &Tokens)]) -> PackedBatch {
        let length = |tokens: &Tokens| tokens.full_length as usize;
        self.pack(pairs.iter().map(|(first, second)| {
            let texts = [first.ids.as_slice(), second.ids.as_slice()];
            (texts, [length(first), length(second)], first.prompt_length)
        }))
    }

    /// Texts, with a prompt before the first of each pair.
    ///
    /// # Errors
    /// When a text cannot be tokenised.
    pub fn tokenize(&self, pairs: &[(&str, &str)], prompt: Option<&str>) -> Result<(Vec<Tokens>, Vec<Tokens>)> {
        let first: Vec<&str> = pairs.iter().map(|pair| pair.0).collect();
        let second: Vec<&str> = pairs.iter().map(|pair| pair.1).collect();
        Ok((self.plain.tokenize(&first, prompt)?, self.plain.tokenize(&second, None)?))
    }

    /// The pairs of a batch of texts: its columns are columns of pairs.
    ///
    /// # Errors
    /// When the batch has a single column.
    pub fn arrange(&self, batch: &Batch, pairing: Pairing, rng: Rng) -> Result<Batch> {
        if batch.columns < 2 {
            return Err(Error::data("pairs need two columns of texts, the data has one")
                .with_hint("name both with `columns`: the query first"));
        }
        let texts = |sequence: usize| {
            let (from, to) = (batch.packed.offsets[sequence] as usize, batch.packed.offsets[sequence + 1] as usize);
            &batch.packed.ids[from..to]
        };
        let rows = batch.rows;
        let places: Vec<(usize, usize)> = if batch.lists.is_empty() {
            let mut places: Vec<(usize, usize)> = (rows..2 * rows).map(|other| (other - rows, other)).collect();
            if let Pairing::InBatch { negatives } = pairing {
                places.extend(in_batch(batch, negatives, rng));
            }
            places.extend((2 * rows..batch.columns * rows).map(|other| (other % rows, other)));
            places
        } else {
            let queries = batch.lists.iter().enumerate().flat_map(|(row, texts)| std::iter::repeat_n(row, *texts));
            let first = (batch.columns - 1) * rows;
            queries.enumerate().map(|(i, row)| (row, first + i)).collect()
        };
        let packed = self.pack(places.iter().map(|(query, other)| {
            let pair = [texts(*query), texts(*other)];
            (pair, pair.map(<[u32]>::len), batch.packed.prompt_lengths.get(*query).copied().unwrap_or(0))
        }));
        let columns = if batch.lists.is_empty() { packed.len() / rows.max(1) } else { 1 };
        Ok(Batch {
            packed,
            columns,
            rows,
            lists: batch.lists.clone(),
            text_ids: Vec::new(),
            labels: batch.labels.clone(),
            row_ids: batch.row_ids.clone(),
            dataset: batch.dataset,
        })
    }
}

/// Queries with texts of other rows: of equally many each, column after column. Texts equal to one of the row's own are
/// no negatives; where too few others are left, texts are taken again.
///
/// Source: `MultipleNegativesRankingLoss.get_in_batch_negatives` of sentence-transformers' cross-encoder losses, which
/// takes equal texts, too.
fn in_batch(batch: &Batch, negatives: Option<usize>, rng: Rng) -> Vec<(usize, usize)> {
    let rows = batch.rows;
    let others = (batch.columns - 1) * rows;
    let id = |sequence: usize| {
        let (column, row) = (sequence / rows, sequence % rows);
        batch.text_ids.get(column).and_then(|ids| ids.get(row)).copied()
    };
    let candidates = |row: usize| -> Vec<usize> {
        let own: Vec<_> = (1..batch.columns).filter_map(|column| id(column * rows + row)).collect();
        let foreign = (rows..rows + others).filter(|other| other % rows != row);
        let distinct: Vec<usize> = foreign.clone().filter(|o| id(*o).is_none_or(|id| !own.contains(&id))).collect();
        if distinct.is_empty() { foreign.collect() } else { distinct }
    };
    let most = others.saturating_sub(batch.columns - 1);
    let wanted = negatives.unwrap_or(most).min(most);
    let drawn: Vec<Vec<usize>> = (0..rows)
        .map(|row| {
            let mut all = candidates(row);
            let mut rng = rng.fork(row as u64);
            if wanted < all.len() {
                for i in 0..wanted {
                    let other = i + rng.below((all.len() - i) as u64) as usize;
                    all.swap(i, other);
                }
            }
            all.into_iter().cycle().take(wanted).collect()
        })
        .collect();
    (0..wanted).flat_map(|i| drawn.iter().enumerate().filter_map(move |(row, own)| Some((row, *own.get(i)?)))).collect()
}
