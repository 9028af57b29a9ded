//! Metrics of scored pairs with labels "the same" and "not": the best thresholds, average precision, correlation.
//!
//! Scores are f32 as in the reference; a threshold lies half way between two of them. All functions look at pairs in
//! groups of equal score, so that the order of ties does not matter.

use std::collections::BTreeMap;

/// A threshold and what is reached with it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Best {
    /// The accuracy or F1 score.
    pub value: f64,
    /// Pairs on the side of the more alike are taken for the same.
    pub threshold: f32,
    /// For F1.
    pub precision: f64,
    /// For F1.
    pub recall: f64,
}

/// The threshold with the highest accuracy; a score beyond all of them where saying "not" is best for every pair.
///
/// `rising` says that a larger score is more alike; distances are the other way round.
#[must_use]
pub fn best_accuracy(scores: &[f32], labels: &[bool], rising: bool) -> Best {
    let order = sorted(scores, rising);
    let Some(first) = order.first().map(|i| scores[*i]) else { return Best { threshold: -1.0, ..Best::default() } };
    let total = labels.len() as f64;
    let (mut right, mut best) = (labels.iter().filter(|label| !**label).count(), Best::default());
    best.value = right as f64 / total;
    best.threshold = if rising { first.next_up() } else { first.next_down() };
    each_group(&order, scores, |group, threshold| {
        for i in group {
            if labels[*i] {
                right += 1;
            } else {
                right -= 1;
            }
        }
        let value = right as f64 / total;
        if value > best.value {
            best = Best { value, threshold, ..Best::default() };
        }
    });
    best
}

/// The threshold with the highest F1 score; all zeros without a positive pair.
#[must_use]
pub fn best_f1(scores: &[f32], labels: &[bool], rising: bool) -> Best {
    let order = sorted(scores, rising);
    let total = labels.iter().filter(|label| **label).count();
    let (mut taken, mut right, mut best) = (0usize, 0usize, Best::default());
    each_group(&order, scores, |group, threshold| {
        taken += group.len();
        right += group.iter().filter(|i| labels[**i]).count();
        if right > 0 {
            let (precision, recall) = (right as f64 / taken as f64, right as f64 / total as f64);
            let value = 2.0 * precision * recall / (precision + recall);
            if value > best.value {
                best = Best { value, threshold, precision, recall };
            }
        }
    });
    best
}

/// The precision at each threshold, weighted by the recall it adds; 0 without a positive pair.
///
/// Larger scores are more alike. Source: `sklearn.metrics.average_precision_score`.
#[must_use]
pub fn average_precision(scores: &[f64], labels: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let (mut taken, mut right, mut sum) = (0usize, 0usize, 0.0);
    for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let found = group.iter().filter(|i| labels[**i]).count();
        taken += group.len();
        right += found;
        sum += right as f64 / taken as f64 * found as f64;
    }
    if right == 0 { 0.0 } else { sum / right as f64 }
}

/// Matthews' correlation of predictions and labels; 0 when either is always the same.
#[must_use]
pub fn matthews_correlation(predicted: &[bool], labels: &[bool]) -> f64 {
    let count = |p: bool, l: bool| predicted.iter().zip(labels).filter(|(a, b)| (**a, **b) == (p, l)).count() as f64;
    let (tp, fp, tn, fn_) = (count(true, true), count(true, false), count(false, false), count(false, true));
    let below = ((tp + fp) * (tp + fn_) * (tn + fp) * (tn + fn_)).sqrt();
    if below == 0.0 { 0.0 } else { (tp * tn - fp * fn_) / below }
}

/// The F1 scores of several classes in one number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct F1 {
    /// The mean over classes.
    pub macro_mean: f64,
    /// Of all predictions together: the accuracy.
    pub micro: f64,
    /// The mean over classes, weighted by how often each is right.
    pub weighted: f64,
}

/// F1 of every class that is right or predicted anywhere; 0 for one that is never both.
///
/// Source: `sklearn.metrics.f1_score` with `average` `macro`, `micro` and `weighted`.
#[must_use]
pub fn f1_scores(predicted: &[i64], labels: &[i64]) -> F1 {
    // by class: both, predicted, right
    let mut counts: BTreeMap<i64, [usize; 3]> = BTreeMap::new();
    let mut both = 0usize;
    for (predicted, label) in predicted.iter().zip(labels) {
        counts.entry(*predicted).or_default()[1] += 1;
        counts.entry(*label).or_default()[2] += 1;
        if predicted == label {
            counts.entry(*label).or_default()[0] += 1;
            both += 1;
        }
    }
    let f1 = |[both, predicted, right]: &[usize; 3]| 2.0 * *both as f64 / (predicted + right) as f64;
    let total = labels.len().max(1) as f64;
    F1 {
        macro_mean: counts.values().map(f1).sum::<f64>() / counts.len().max(1) as f64,
        micro: both as f64 / total,
        weighted: counts.values().map(|count| f1(count) * count[2] as f64).sum::<f64>() / total,
    }
}

/// The pairs' numbers, the most alike first.
fn sorted(scores: &[f32], rising: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let by = |a: &usize, b: &usize| scores[*a].total_cmp(&scores[*b]);
    order.sort_unstable_by(|a, b| if rising { by(b, a) } else { by(a, b) });
    order
}

/// Each group of equal scores with the threshold behind it: half way to the next group, or the score itself where
/// rounding would let the next group in, and at the end.
fn each_group(order: &[usize], scores: &[f32], mut visit: impl FnMut(&[usize], f32)) {
    let mut behind = 0;
    for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        behind += group.len();
        let score = scores[group[0]];
        let threshold = match order.get(behind).map(|i| scores[*i]) {
            Some(next) if f32::midpoint(score, next) != next => f32::midpoint(score, next),
            _ => score,
        };
        visit(group, threshold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f32; 5] = [0.9, 0.8, 0.8, 0.4, 0.1];
    const LABELS: [bool; 5] = [true, true, false, true, false];

    #[test]
    fn by_hand() {
        let best = best_accuracy(&SCORES, &LABELS, true);
        assert_eq!((best.value, best.threshold), (0.8, 0.25));
        let best = best_f1(&SCORES, &LABELS, true);
        assert_eq!((best.precision, best.recall, best.threshold), (0.75, 1.0, 0.25));
        let scores = SCORES.map(f64::from);
        let expected = (1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0;
        assert!((average_precision(&scores, &LABELS) - expected).abs() < 1e-15);
        let falling = SCORES.map(|x| 1.0 - x);
        assert_eq!(best_accuracy(&falling, &LABELS, false).value, 0.8);
    }

    #[test]
    fn f1_of_classes() {
        let f1 = f1_scores(&[0, 0, 1, 3], &[0, 1, 1, 2]);
        // classes 0 and 1: 2/3 each, 2 and 3: 0
        assert!((f1.macro_mean - 1.0 / 3.0).abs() < 1e-15 && (f1.weighted - 0.5).abs() < 1e-15);
        assert_eq!((f1.micro, f1_scores(&[], &[])), (0.5, F1::default()));
    }

    #[test]
    fn labels_of_one_kind() {
        let none = [false; 5];
        assert_eq!(best_f1(&SCORES, &none, true), Best::default());
        let best = best_accuracy(&SCORES, &none, true);
        assert_eq!((best.value, best.threshold), (1.0, 0.9f32.next_up()));
        assert_eq!(average_precision(&SCORES.map(f64::from), &none), 0.0);
        assert_eq!(matthews_correlation(&[true, false], &[true, true]), 0.0);
        assert_eq!(matthews_correlation(&[true, false], &[true, false]), 1.0);
        assert_eq!(best_accuracy(&[], &[], true).value, 0.0);
    }
}
