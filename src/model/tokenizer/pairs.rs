//! Two texts in one sequence, as the tokenizer frames them.

use super::{Kind, TextTokenizer};
use crate::error::{Error, Result};

/// What stands before, between and after the tokens of two texts: `[CLS] … [SEP] … [SEP]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairTemplate {
    /// Token and type of each.
    before: Vec<(u32, u32)>,
    between: Vec<(u32, u32)>,
    after: Vec<(u32, u32)>,
    /// The types of the first and the second text's tokens.
    types: [u32; 2],
}

impl TextTokenizer {
    /// How it frames a pair of texts, told by what it makes of one.
    ///
    /// # Errors
    /// When it cannot frame pairs.
    pub fn pair_template(&self) -> Result<PairTemplate> {
        let cannot = |why: String| {
            Error::model(format!("`{}`: {why}", self.source().display()))
                .with_hint("a model that reads pairs needs a tokenizer with a template for two texts")
        };
        let Kind::Fast(inner) = &self.inner else {
            return Err(cannot("a tokenizer of words between spaces makes no pairs".to_owned()));
        };
        let encoding = inner.encode_fast(("a", "b"), true).map_err(|e| cannot(format!("no pair can be made: {e}")))?;
        let tokens: Vec<(u32, u32, Option<usize>)> = encoding
            .get_ids()
            .iter()
            .zip(encoding.get_type_ids())
            .zip(encoding.get_sequence_ids())
            .map(|((id, kind), sequence)| (*id, *kind, sequence))
            .collect();
        let ends = |which: usize| {
            let first = tokens.iter().position(|t| t.2 == Some(which));
            first.zip(tokens.iter().rposition(|t| t.2 == Some(which)))
        };
        let (Some((first, first_end)), Some((second, second_end))) = (ends(0), ends(1)) else {
            return Err(cannot("it makes nothing of the texts `a` and `b`".to_owned()));
        };
        if first_end >= second {
            return Err(cannot("it does not put the second text of a pair behind the first".to_owned()));
        }
        let special = |range: std::ops::Range<usize>| tokens[range].iter().map(|t| (t.0, t.1)).collect();
        Ok(PairTemplate {
            before: special(0..first),
            between: special(first_end + 1..second),
            after: special(second_end + 1..tokens.len()),
            types: [tokens[first].1, tokens[second].1],
        })
    }

    /// The same tokenizer without anything around the texts, which keeps `limit` tokens of each.
    #[must_use]
    pub fn plain(&self, limit: Option<usize>) -> Self {
        Self { special_tokens: false, max_seq_length: limit, ..self.clone() }
    }
}

impl PairTemplate {
    /// Tokens that are not of the texts.
    #[must_use]
    pub fn special_tokens(&self) -> usize {
        self.before.len() + self.between.len() + self.after.len()
    }

    /// The type of every token that can occur.
    #[must_use]
    pub fn token_types(&self) -> Vec<u32> {
        let special = [&self.before, &self.between, &self.after].into_iter().flatten().map(|token| token.1);
        let mut types: Vec<u32> = special.chain(self.types).collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    /// How many tokens stand before the first text.
    #[must_use]
    pub fn leading(&self) -> usize {
        self.before.len()
    }

    /// Appends a pair's tokens and their types; of texts that are too long together, the longer loses tokens at its end
    /// until both fit or are equally long (`longest_first`). `full`: how many tokens the texts had before they were cut to
    /// what a pair has room for.
    pub fn append(
        &self,
        texts: [&[u32]; 2],
        full: [usize; 2],
        limit: Option<usize>,
        ids: &mut Vec<u32>,
        types: &mut Vec<u32>,
    ) {
        let room = limit.map_or(usize::MAX, |limit| limit.saturating_sub(self.special_tokens()));
        let keep = longest_first(full[0], full[1], room);
        let keep = [keep[0].min(texts[0].len()), keep[1].min(texts[1].len())];
        let text = |which: usize| texts[which][..keep[which]].iter().map(move |token| (*token, self.types[which]));
        let first = self.before.iter().copied().chain(text(0)).chain(self.between.iter().copied());
        for (token, kind) in first.chain(text(1)).chain(self.after.iter().copied()) {
            ids.push(token);
            types.push(kind);
        }
    }
}

/// How many tokens of either text stay, where there is room for `room`.
fn longest_first(first: usize, second: usize, room: usize) -> [usize; 2] {
    if first.saturating_add(second) <= room {
        return [first, second];
    }
    let (short, long) = (first.min(second), first.max(second));
    // the longer loses tokens until it is as short as the shorter; then both do in turn, the second having the odd one
    let (short, long) =
        if short + short <= room { (short, long.min(room - short)) } else { (room / 2, room - room / 2) };
    if first <= second { [short, long] } else { [long, short] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_text_gives_way() {
        assert_eq!(longest_first(3, 4, 7), [3, 4]);
        assert_eq!(longest_first(3, 10, 8), [3, 5]);
        assert_eq!(longest_first(10, 3, 8), [5, 3]);
        assert_eq!(longest_first(10, 10, 9), [4, 5]);
        assert_eq!(longest_first(11, 10, 9), [5, 4]);
        assert_eq!(longest_first(2, 9, 0), [0, 0]);
        assert_eq!(longest_first(0, 9, 4), [0, 4]);
    }

    #[test]
    fn special_tokens_frame_the_texts() {
        let template =
            PairTemplate { before: vec![(101, 0)], between: vec![(102, 0)], after: vec![(102, 1)], types: [0, 1] };
        let (mut ids, mut types) = (Vec::new(), Vec::new());
        template.append([&[1, 2], &[3, 4, 5]], [2, 3], Some(7), &mut ids, &mut types);
        assert_eq!(ids, [101, 1, 2, 102, 3, 4, 102]);
        assert_eq!(types, [0, 0, 0, 0, 1, 1, 1]);
        assert_eq!((template.special_tokens(), template.leading()), (3, 1));
        assert_eq!(template.token_types(), [0, 1]);
    }
}
