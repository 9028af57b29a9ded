//! Groups of embeddings that lie close together.

use rayon::prelude::*;

use super::Similarity;
use super::blocks::{block, prepare};
use crate::flow::Embeddings;

/// Rows in a block of scores.
const ROWS: usize = 32;
/// Columns in a block of scores.
const COLUMNS: usize = 512;

/// Groups of rows whose cosine with the group's first row is at least `threshold`, the largest group first, each with
/// at least `min_community_size` rows that are in no other; rows in order of falling cosine, equal ones by number.
///
/// Every row is a possible middle. Rows with the most neighbours are tried first, and a group keeps what no group
/// before it has taken. Memory grows with the number of pairs of at least `threshold`. A size of 0 counts as 1.
///
/// Source: `util.community_detection` of sentence-transformers.
#[must_use]
pub fn communities(embeddings: Embeddings, threshold: f32, min_community_size: usize) -> Vec<Vec<u32>> {
    let least = min_community_size.max(1);
    let mut candidates: Vec<(u32, Vec<u32>)> =
        (0u32..).zip(neighbours(embeddings, threshold)).filter(|(_, near)| near.len() >= least).collect();
    let mut taken = vec![false; candidates.last().map_or(0, |(row, _)| *row as usize + 1)];
    taken.resize(candidates.iter().flat_map(|(_, near)| near).map(|row| *row as usize + 1).max().unwrap_or(0), false);
    // Stable: of equal sizes the first row's comes first.
    candidates.sort_by_key(|(_, near)| std::cmp::Reverse(near.len()));
    let mut found: Vec<Vec<u32>> = Vec::new();
    for (middle, near) in candidates {
        if taken[middle as usize] {
            continue;
        }
        let free: Vec<u32> = near.into_iter().filter(|row| !taken[*row as usize]).collect();
        if free.len() >= least {
            let group: Vec<u32> =
                std::iter::once(middle).chain(free.into_iter().filter(|row| *row != middle)).collect();
            group.iter().for_each(|row| taken[*row as usize] = true);
            found.push(group);
        }
    }
    found.sort_by_key(|group| std::cmp::Reverse(group.len()));
    found
}

/// For each row the rows with a cosine of at least `threshold`, itself included, the nearest first.
fn neighbours(embeddings: Embeddings, threshold: f32) -> Vec<Vec<u32>> {
    let prepared = prepare(Similarity::Cosine, embeddings);
    let dim = prepared.dim();
    if dim == 0 {
        return Vec::new();
    }
    let all = prepared.data();
    let blocks: Vec<Vec<Vec<u32>>> = all
        .par_chunks(ROWS * dim)
        .map(|rows| {
            let mut near: Vec<Vec<(f32, u32)>> = vec![Vec::new(); rows.len() / dim];
            let (mut scores, mut first) = (Vec::new(), 0u32);
            for columns in all.chunks(COLUMNS * dim) {
                block(Similarity::Cosine, dim, rows, columns, &mut scores);
                let width = columns.len() / dim;
                for (near, scores) in near.iter_mut().zip(scores.chunks(width)) {
                    near.extend((first..).zip(scores).filter(|(_, s)| **s >= threshold).map(|(row, s)| (*s, row)));
                }
                first += width as u32;
            }
            let ordered = near.into_iter().map(|mut near| {
                near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                near.into_iter().map(|(_, row)| row).collect()
            });
            ordered.collect()
        })
        .collect();
    blocks.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_do_not_overlap() {
        let rows = [[1.0f32, 0.0], [0.99, 0.1], [0.0, 1.0], [0.98, 0.15], [0.05, 1.0], [-1.0, 0.0]];
        let rows = Embeddings::new(2, rows.concat());
        assert_eq!(communities(rows.clone(), 0.9, 2), [vec![0, 1, 3], vec![2, 4]]);
        assert_eq!(communities(rows.clone(), 0.9, 3), [vec![0, 1, 3]]);
        assert_eq!(communities(rows.clone(), 0.9, 1).len(), 3);
        assert!(communities(rows, 0.9, 4).is_empty());
        assert!(communities(Embeddings::default(), 0.5, 1).is_empty());
    }
}
