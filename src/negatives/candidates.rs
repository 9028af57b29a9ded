//! How many candidates each anchor keeps, and which anchors are looked at together.

use std::ops::Range;

use super::pool::Pool;
use crate::error::{Error, Result};
use crate::scoring::blocks::Hit;
use crate::util::interrupt;

/// Anchors that are looked at together.
const ANCHORS: usize = 8192;
/// Candidates in memory at a time, 8 bytes each, unless one anchor alone has more.
const MOST_HITS: usize = 1 << 26;
/// Anchors whose scores are computed together: parts of blocks are multiples of it.
const TOGETHER: usize = 32;

/// Candidates, best first, and the scores of positives, of some anchors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The first anchor's number.
    pub first: usize,
    /// `[anchors]`: `rank` is the number of a document.
    pub candidates: Vec<Vec<Hit>>,
    /// `[anchors]`: one score for each of [`Pool::positives`].
    pub positives: Vec<Vec<f32>>,
}

/// Takes the candidates of all anchors, some at a time, in order.
pub type Take<'a> = dyn FnMut(Found) -> Result<()> + 'a;

/// How many candidates an anchor keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// So many, each anchor.
    Same(usize),
    /// So many beside its own positives.
    Beside(usize),
}

/// Anchors that are looked at together, and how many candidates each of them keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub queries: Range<usize>,
    pub k: usize,
}

/// All anchors in blocks, the blocks in groups whose candidates fit in memory together.
pub(super) fn groups(pool: &Pool, depth: Depth) -> Vec<Vec<Block>> {
    groups_of(pool, depth, MOST_HITS)
}

pub(super) fn groups_of(pool: &Pool, depth: Depth, most_hits: usize) -> Vec<Vec<Block>> {
    let documents = pool.documents().len();
    let k = |queries: Range<usize>| {
        let own = || pool.positives()[queries].iter().map(Vec::len).max().unwrap_or(0);
        let k = match depth {
            Depth::Same(k) => k,
            Depth::Beside(k) => k.saturating_add(own()),
        };
        k.min(documents)
    };
    let all = 0..pool.queries().len();
    // as many as fit if each were as deep as the deepest
    let fit = most_hits / k(all.clone()).max(1) / TOGETHER * TOGETHER;
    let size = fit.clamp(TOGETHER, ANCHORS);
    let mut groups: Vec<Vec<Block>> = Vec::new();
    let mut hits = 0;
    for first in all.clone().step_by(size) {
        let queries = first..all.end.min(first + size);
        let block = Block { k: k(queries.clone()), queries };
        let own = block.queries.len() * block.k;
        match groups.last_mut().filter(|_| hits + own <= most_hits) {
            Some(group) => group.push(block),
            None => {
                groups.push(vec![block]);
                hits = 0;
            }
        }
        hits += own;
    }
    groups
}

/// An anchor with a positive: the document's number, the anchor's number, and the place among its positives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    pub document: u32,
    pub query: usize,
    pub place: usize,
}

/// The anchors of a range with each of their positives, in their order.
pub(super) fn pairs(pool: &Pool, queries: Range<usize>) -> impl Iterator<Item = Pair> + '_ {
    queries.flat_map(|query| {
        let positives = pool.positives()[query].iter().enumerate();
        positives.map(move |(place, document)| Pair { document: *document, query, place })
    })
}

/// Stops the work where somebody asked for it.
pub(super) fn go_on() -> Result<()> {
    match interrupt::requested() {
        true => Err(Error::cancelled("mining was stopped")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// 100 anchors, one of them with 60 positives.
    fn skewed() -> Pool {
        let pairs = (0..100).flat_map(|anchor| {
            let rows = if anchor == 70 { 60 } else { 1 };
            (0..rows).map(move |row| (format!("q{anchor}"), format!("d{anchor} {row}")))
        });
        Pool::new(pairs.collect(), None).unwrap()
    }

    #[test]
    fn many_positives_of_one_anchor_cost_the_others_nothing() {
        let pool = skewed();
        let deep = |depth, most| -> Vec<(usize, usize)> {
            let groups = groups_of(&pool, depth, most);
            assert!(groups.iter().all(|group| {
                let hits: usize = group.iter().map(|block| block.queries.len() * block.k).sum();
                hits <= most || group.len() == 1
            }));
            let all: Vec<usize> = groups.iter().flatten().flat_map(|block| block.queries.clone()).collect();
            assert_eq!(all, (0..100).collect::<Vec<_>>());
            groups.iter().flatten().map(|block| (block.queries.len(), block.k)).collect()
        };
        assert_eq!(deep(Depth::Same(5), 1 << 20), [(100, 5)]);
        assert_eq!(deep(Depth::Beside(3), 64 * 63), [(64, 4), (36, 63)]);
        assert_eq!(deep(Depth::Beside(3), 1), [(32, 4), (32, 4), (32, 63), (4, 4)]);
        // no more than there are
        assert_eq!(deep(Depth::Same(usize::MAX), 1 << 20), [(100, 159)]);
        assert_eq!(groups_of(&pool, Depth::Same(10), 640).len(), 2);
    }
}
