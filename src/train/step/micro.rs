//! Where is a batch cut into micro-batches?

use std::ops::Range;

/// The sequences of each micro-batch, in order: of at most `budget` tokens, unless one sequence alone has more, and of
/// about equally many.
///
/// # Shapes
/// `offsets`: `[sequences + 1]`, as in a packed batch.
pub(super) fn micro_batches(offsets: &[u32], budget: usize) -> Vec<Range<usize>> {
    let budget = budget.max(1);
    let at = |i: usize| offsets.get(i).map_or(0, |offset| *offset as usize);
    let sequences = offsets.len().saturating_sub(1);
    let mut parts = Vec::new();
    let mut start = 0;
    while start < sequences {
        let left = at(sequences) - at(start);
        // what is left, spread evenly over as few parts as it takes
        let share = left.div_ceil(left.div_ceil(budget).max(1));
        let mut end = start + 1;
        while end < sequences {
            let (now, next) = (at(end) - at(start), at(end + 1) - at(start));
            // the next sequence is taken where that comes nearer to the share
            if next > budget || (next > share && next - share > share.saturating_sub(now)) {
                break;
            }
            end += 1;
        }
        parts.push(start..end);
        start = end;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::seed::Rng;

    fn ends(lengths: &[u32], budget: usize) -> Vec<usize> {
        cut(lengths, budget).into_iter().map(|part| part.end).collect()
    }

    fn cut(lengths: &[u32], budget: usize) -> Vec<Range<usize>> {
        let mut offsets = vec![0];
        for length in lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        micro_batches(&offsets, budget)
    }

    #[test]
    fn parts_are_even_and_within_the_budget() {
        assert_eq!(cut(&[5; 12], 20), [0..4, 4..8, 8..12]);
        // one more, and there are four parts: none of them is a rest
        assert_eq!(cut(&[5; 13], 20), [0..3, 3..6, 6..10, 10..13]);
        assert_eq!(cut(&[9, 30, 2, 2], 10), [0..1, 1..2, 2..4], "no sequence is cut");
        assert_eq!(ends(&[3, 0, 0, 4], 100), [4]);
        assert_eq!(ends(&[0, 0], 4), [2]);
        assert!(cut(&[], 4).is_empty());
        assert_eq!(cut(&[1, 1], 0).len(), 2);
    }

    #[test]
    fn every_sequence_is_in_one_part() {
        let mut rng = Rng::new(8);
        for _ in 0..300 {
            let lengths: Vec<u32> = (0..1 + rng.below(60)).map(|_| rng.below(50) as u32).collect();
            let budget = 1 + rng.below(300) as usize;
            let parts = cut(&lengths, budget);
            let mut next = 0;
            for part in &parts {
                assert_eq!(part.start, next);
                next = part.end;
                let tokens: u32 = lengths[part.clone()].iter().sum();
                assert!(!part.is_empty() && (part.len() == 1 || tokens as usize <= budget), "{lengths:?} {budget}");
            }
            assert_eq!(next, lengths.len());
            let total: u32 = lengths.iter().sum();
            let most = lengths.iter().max().copied().unwrap_or(0) as usize;
            // where sequences are short against the budget, few parts are wasted
            if most * 8 < budget {
                assert!(parts.len() <= (total as usize).div_ceil(budget) + 1 + parts.len() / 8, "{lengths:?} {budget}");
            }
        }
    }
}
