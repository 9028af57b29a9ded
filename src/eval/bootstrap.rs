//! How sure is a difference between two models? A paired bootstrap over the items of a metric.
//!
//! The items (queries, pairs, triplets) are drawn with replacement as often as there are items, the same for both
//! models, and the metric is made again for each; what lies between the 2.5th and the 97.5th percentile of the
//! differences is the interval. Draws come from a fixed seed: the same items, the same interval.
//!
//! Source: Efron & Tibshirani 1993, chapter 13 (percentile interval); Koehn 2004 (paired).

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::metrics::classification::average_precision;
use super::metrics::correlation::spearman;
use crate::flow::{Sample, Statistic};
use crate::util::seed::Rng;

/// How often items are drawn.
const DRAWS: u64 = 2000;
/// The seed of all intervals.
const SEED: u64 = 0x7A11_0E57;

/// The metric the items come to.
#[must_use]
pub fn value(sample: &Sample) -> f64 {
    let all: Vec<usize> = (0..items(sample)).collect();
    of(sample, &all)
}

/// Between which values `after - before` lies at 95 %; `None` where the samples are not of the same items, or where
/// a difference is not a number in most draws.
#[must_use]
pub fn interval(before: &Sample, after: &Sample) -> Option<[f64; 2]> {
    let count = items(after);
    let alike = before.statistic == after.statistic && before.key == after.key && before.labels == after.labels;
    let whole = |sample: &Sample| sample.scores.iter().all(|column| column.len() == count);
    if !alike || count < 2 || !whole(before) || !whole(after) {
        return None;
    }
    let seed = Rng::new(SEED);
    let mut differences: Vec<f64> = (0..DRAWS)
        .into_par_iter()
        .map(|draw| {
            let mut rng = seed.fork(draw);
            let drawn: Vec<usize> = (0..count).map(|_| rng.below(count as u64) as usize).collect();
            of(after, &drawn) - of(before, &drawn)
        })
        .filter(|difference| difference.is_finite())
        .collect();
    if (differences.len() as u64) < DRAWS / 2 {
        return None;
    }
    differences.sort_unstable_by(f64::total_cmp);
    Some([percentile(&differences, 0.025), percentile(&differences, 0.975)])
}

fn items(sample: &Sample) -> usize {
    sample.scores.first().map_or(0, Vec::len)
}

/// The metric of some of the items, the best of the columns'.
fn of(sample: &Sample, drawn: &[usize]) -> f64 {
    let pick = |values: &[f64]| -> Vec<f64> { drawn.iter().map(|i| values[*i]).collect() };
    let columns = sample.scores.iter().map(|scores| match sample.statistic {
        Statistic::Mean => drawn.iter().map(|i| scores[*i]).sum::<f64>() / drawn.len() as f64,
        Statistic::MeanOfMeans => mean_of_means(&pick(scores), &pick(&sample.labels)),
        Statistic::Spearman => spearman(&pick(&sample.labels), &pick(scores)),
        Statistic::AveragePrecision => {
            let labels: Vec<bool> = drawn.iter().map(|i| sample.labels[*i] > 0.0).collect();
            average_precision(&pick(scores), &labels)
        }
    });
    columns.fold(f64::NAN, f64::max)
}

/// Groups without an item count for nothing.
fn mean_of_means(values: &[f64], groups: &[f64]) -> f64 {
    let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (value, group) in values.iter().zip(groups) {
        let (sum, count) = sums.entry(group.to_bits()).or_default();
        *sum += value;
        *count += 1.0;
    }
    sums.values().map(|(sum, count)| sum / count).sum::<f64>() / sums.len() as f64
}

/// Between neighbours by straight line, as numpy's default.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + part * (sorted[high] - sorted[low])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sample(statistic: Statistic, labels: Vec<f64>, scores: Vec<f64>) -> Sample {
        Sample { key: "x".into(), statistic, labels, scores: vec![scores] }
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_theory() {
        let mut rng = Rng::new(3);
        let before: Vec<f64> = (0..400).map(|_| rng.normal()).collect();
        let gains: Vec<f64> = (0..400).map(|_| 0.1 + 0.5 * rng.normal()).collect();
        let after = before.iter().zip(&gains).map(|(a, b)| a + b).collect();
        let mean = gains.iter().sum::<f64>() / 400.0;
        let spread = (gains.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / 400.0).sqrt();
        let before = sample(Statistic::Mean, Vec::new(), before);
        let after = sample(Statistic::Mean, Vec::new(), after);
        let [low, high] = interval(&before, &after).unwrap();
        let half = 1.96 * spread / 400.0f64.sqrt();
        assert!((low - (mean - half)).abs() < 0.1 * half && (high - (mean + half)).abs() < 0.1 * half, "{low} {high}");
        assert_eq!(interval(&before, &after), Some([low, high]), "the same draws each time");
        assert_eq!(interval(&before, &before), Some([0.0, 0.0]));
    }

    #[test]
    fn correlations_and_precisions_are_made_again() {
        let labels: Vec<f64> = (0..60).map(f64::from).collect();
        let good: Vec<f64> = labels.iter().map(|x| x + (x * 7.0) % 5.0).collect();
        let bad: Vec<f64> = labels.iter().map(|x| (x * 7.0) % 13.0).collect();
        for statistic in [Statistic::Spearman, Statistic::AveragePrecision] {
            let labels: Vec<f64> = match statistic {
                Statistic::AveragePrecision => labels.iter().map(|x| f64::from(u8::from(*x > 30.0))).collect(),
                _ => labels.clone(),
            };
            let before = sample(statistic, labels.clone(), bad.clone());
            let after = sample(statistic, labels, good.clone());
            let delta = value(&after) - value(&before);
            let [low, high] = interval(&before, &after).unwrap();
            assert!(0.0 < low && low < delta && delta < high, "{statistic:?}: {low} {delta} {high}");
        }
    }

    #[test]
    fn groups_count_alike() {
        let (labels, scores) = (vec![0.0, 0.0, 0.0, 1.0], vec![0.0, 0.3, 0.6, 0.9]);
        let three = sample(Statistic::MeanOfMeans, labels, scores);
        assert!((value(&three) - 0.6).abs() < 1e-12);
    }

    #[test]
    fn nothing_to_say() {
        let constant = sample(Statistic::Spearman, vec![1.0, 2.0, 3.0], vec![0.5; 3]);
        assert_eq!(interval(&constant, &constant), None);
        let (one, two) = (sample(Statistic::Mean, vec![], vec![1.0]), sample(Statistic::Mean, vec![], vec![1.0; 2]));
        assert_eq!(interval(&one, &one), None);
        assert_eq!(interval(&one, &two), None);
    }
}
