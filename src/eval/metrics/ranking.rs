//! Metrics of one ranked list with binary relevance.
//!
//! `relevant[i]` says whether the document at rank `i + 1` is relevant; `total` is how many relevant documents there
//! are, found or not. The definitions are those of sentence-transformers' `InformationRetrievalEvaluator`.

/// 1 when a relevant document is among the first `k`, else 0.
#[must_use]
pub fn accuracy(relevant: &[bool], k: usize) -> f64 {
    f64::from(u8::from(first(relevant, k).contains(&true)))
}

/// The share of the first `k` places that hold a relevant document; places beyond the list's end count as misses.
#[must_use]
pub fn precision(relevant: &[bool], k: usize) -> f64 {
    if k == 0 { 0.0 } else { hits(relevant, k) / k as f64 }
}

/// The share of the relevant documents that are among the first `k`.
#[must_use]
pub fn recall(relevant: &[bool], k: usize, total: usize) -> f64 {
    if total == 0 { 0.0 } else { hits(relevant, k) / total as f64 }
}

/// One over the rank of the first relevant document among the first `k`; 0 without one.
#[must_use]
pub fn reciprocal_rank(relevant: &[bool], k: usize) -> f64 {
    first(relevant, k).iter().position(|r| *r).map_or(0.0, |rank| 1.0 / (rank + 1) as f64)
}

/// Discounted cumulative gain over that of the best possible list.
///
/// Source: Järvelin & Kekäläinen 2002, with gain 1 for relevant documents and discount `log2(rank + 1)`.
#[must_use]
pub fn ndcg(relevant: &[bool], k: usize, total: usize) -> f64 {
    let discount = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
    let gained: f64 = first(relevant, k).iter().enumerate().filter(|(_, r)| **r).map(|(rank, _)| discount(rank)).sum();
    let best: f64 = (0..k.min(total)).map(discount).sum();
    if best == 0.0 { 0.0 } else { gained / best }
}

/// As [`ndcg`] of scores in place of a list: documents of equal score share the gain of their ranks, so that their
/// order does not matter.
///
/// Source: McSherry & Najork 2008, as `sklearn.metrics.ndcg_score` has it.
#[must_use]
pub fn ndcg_of_scores(scores: &[f32], relevant: &[bool], k: usize) -> f64 {
    let mut order: Vec<usize> = (0..scores.len().min(relevant.len())).collect();
    order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let discount = |rank: usize| if rank < k { 1.0 / ((rank + 2) as f64).log2() } else { 0.0 };
    let (mut rank, mut gained) = (0, 0.0);
    for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let share = group.iter().filter(|i| relevant[**i]).count() as f64 / group.len() as f64;
        gained += share * (rank..rank + group.len()).map(discount).sum::<f64>();
        rank += group.len();
    }
    let total = relevant.iter().filter(|r| **r).count();
    let best: f64 = (0..k.min(total)).map(discount).sum();
    if best == 0.0 { 0.0 } else { gained / best }
}

/// The precisions at the ranks of the relevant documents among the first `k`, summed, over the number there could be.
#[must_use]
pub fn average_precision(relevant: &[bool], k: usize, total: usize) -> f64 {
    let mut found = 0.0;
    let mut sum = 0.0;
    for (rank, relevant) in first(relevant, k).iter().enumerate() {
        if *relevant {
            found += 1.0;
            sum += found / (rank + 1) as f64;
        }
    }
    match k.min(total) {
        0 => 0.0,
        possible => sum / possible as f64,
    }
}

fn first(relevant: &[bool], k: usize) -> &[bool] {
    &relevant[..k.min(relevant.len())]
}

fn hits(relevant: &[bool], k: usize) -> f64 {
    first(relevant, k).iter().filter(|r| **r).count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Relevant at ranks 2 and 4; a third relevant document was not found.
        let list = [false, true, false, true];
        assert_eq!((accuracy(&list, 1), accuracy(&list, 2)), (0.0, 1.0));
        assert_eq!((precision(&list, 2), precision(&list, 8)), (0.5, 0.25));
        assert_eq!((recall(&list, 2, 3), recall(&list, 8, 3)), (1.0 / 3.0, 2.0 / 3.0));
        assert_eq!((reciprocal_rank(&list, 1), reciprocal_rank(&list, 4)), (0.0, 0.5));
        let discount = |rank: f64| 1.0 / (rank + 1.0).log2();
        let expected = (discount(2.0) + discount(4.0)) / (discount(1.0) + discount(2.0) + discount(3.0));
        assert!((ndcg(&list, 4, 3) - expected).abs() < 1e-15);
        assert!((ndcg(&list, 2, 3) - discount(2.0) / (discount(1.0) + discount(2.0))).abs() < 1e-15);
        assert!((average_precision(&list, 4, 3) - (0.5 + 0.5) / 3.0).abs() < 1e-15);
        assert!((average_precision(&list, 2, 3) - 0.5 / 2.0).abs() < 1e-15);
    }

    #[test]
    fn equal_scores_share_their_gain() {
        let relevant = [true, false, true];
        let plain = ndcg_of_scores(&[3.0, 2.0, 1.0], &relevant, 10);
        assert!((plain - ndcg(&relevant, 10, 2)).abs() < 1e-15);
        let tied = ndcg_of_scores(&[1.0, 1.0, 1.0], &relevant, 10);
        let turned = ndcg_of_scores(&[1.0, 1.0, 1.0], &[false, true, true], 10);
        assert!((tied - turned).abs() < 1e-15 && tied < plain);
    }

    #[test]
    fn a_perfect_list_scores_one() {
        let list = [true, true, false];
        for value in [
            accuracy(&list, 2),
            precision(&list, 2),
            recall(&list, 2, 2),
            ndcg(&list, 3, 2),
            average_precision(&list, 3, 2),
        ] {
            assert!((value - 1.0).abs() < 1e-15);
        }
    }

    #[test]
    fn empty_lists_score_zero() {
        for value in [accuracy(&[], 3), precision(&[], 3), recall(&[], 3, 0), reciprocal_rank(&[], 3), ndcg(&[], 3, 0)]
        {
            assert_eq!(value, 0.0);
        }
    }
}
