//! What has words in common with each anchor.

use super::candidates::{Depth, Found, Take, go_on, groups, pairs};
use super::pool::Pool;
use crate::error::Result;
use crate::scoring::Similarity;
use crate::scoring::bm25::{Bm25, Counted};
use crate::scoring::rows::Rows;
use crate::util::progress::Progress;

/// Documents whose words are counted at a time.
const DOCUMENTS: usize = 4096;
/// Anchors that are searched for, and pairs that are scored, at a time.
const ANCHORS: usize = 256;

/// Gives `take` the documents with the most telling words in common with each anchor by BM25, as many as `depth` says.
/// Documents without a common word are no candidates.
///
/// # Errors
/// When somebody asked to stop; and `take`'s.
pub fn words(pool: &Pool, depth: Depth, take: &mut Take<'_>) -> Result<()> {
    let progress = Progress::new("comparing words", (pool.documents().len() + pool.queries().len()) as u64);
    let mut counted = Counted::default();
    for documents in pool.documents().chunks(DOCUMENTS) {
        go_on()?;
        counted.add(documents);
        progress.inc(documents.len() as u64);
    }
    let index = counted.weigh();
    for block in groups(pool, depth).into_iter().flatten() {
        let first = block.queries.start;
        let mut found = Found { first, ..Found::default() };
        for from in block.queries.clone().step_by(ANCHORS) {
            go_on()?;
            let queries = from..block.queries.end.min(from + ANCHORS);
            let rows = index.queries(&pool.queries()[queries.clone()]);
            let mut candidates = index.search(&rows, block.k);
            candidates.iter_mut().for_each(|hits| hits.retain(|hit| hit.score > 0.0));
            found.candidates.extend(candidates);
            found.positives.extend(pool.positives()[queries.clone()].iter().map(|own| vec![0.0; own.len()]));
            let rows = Rows::Sparse(rows);
            score(pool, &index, (&rows, queries), &mut found);
            progress.inc(rows.rows() as u64);
        }
        take(found)?;
    }
    progress.finish();
    Ok(())
}

/// Scores the positives of some anchors.
fn score(pool: &Pool, index: &Bm25, (rows, queries): (&Rows, std::ops::Range<usize>), found: &mut Found) {
    let from = queries.start;
    let all: Vec<_> = pairs(pool, queries).collect();
    for some in all.chunks(ANCHORS) {
        let texts: Vec<&str> = some.iter().map(|pair| pool.documents()[pair.document as usize].as_str()).collect();
        let documents = Rows::Sparse(index.documents(&texts));
        let a: Vec<usize> = some.iter().map(|pair| pair.query - from).collect();
        let b: Vec<usize> = (0..some.len()).collect();
        for (pair, score) in some.iter().zip(rows.pairwise(Similarity::Dot, &a, &documents, &b)) {
            found.positives[pair.query - found.first][pair.place] = score;
        }
    }
}
