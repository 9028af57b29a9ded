//! What did training change? Queries that gained and lost most, and how pairs score before and after.

use super::chart::{Bins, Scene, histogram};
use crate::flow::look::{Look, Scores};

/// Items shown of each side.
const SHOWN: usize = 10;

/// A group's name, and the share of its values in each bin.
type Group = (String, Vec<f64>);

/// An item before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub before: f64,
    pub after: f64,
    /// Name and text; those that training changes with both.
    pub texts: Vec<(String, String)>,
}

/// Those that gained and those that lost most, each the most first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    pub gained: Vec<Change>,
    pub lost: Vec<Change>,
    /// Items that rose, fell and stayed.
    pub counts: [usize; 3],
}

/// Compares two looks; nothing where they are not of the same items.
#[must_use]
pub fn compare(before: &Look, after: &Look) -> Option<Changes> {
    let alike = before.key == after.key && before.items.len() == after.items.len();
    let same = || before.items.iter().zip(&after.items).all(|(a, b)| a.texts.first() == b.texts.first());
    if !alike || before.items.is_empty() || !same() {
        return None;
    }
    let pairs = before.items.iter().zip(&after.items);
    let mut all: Vec<Change> = pairs
        .filter(|(a, b)| a.value.is_finite() && b.value.is_finite())
        .map(|(a, b)| {
            let names = after.texts.iter().zip(a.texts.iter().zip(&b.texts));
            let texts = names.flat_map(|(name, (old, new))| {
                if old == new {
                    vec![(name.clone(), new.clone())]
                } else {
                    vec![(format!("{name}, before"), old.clone()), (format!("{name}, after"), new.clone())]
                }
            });
            Change { before: a.value, after: b.value, texts: texts.collect() }
        })
        .collect();
    let gain = |change: &Change| change.after - change.before;
    let counts = [
        all.iter().filter(|change| gain(change) > 1e-9).count(),
        all.iter().filter(|change| gain(change) < -1e-9).count(),
        all.iter().filter(|change| gain(change).abs() <= 1e-9).count(),
    ];
    // equal ones stay in the order of the data
    all.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
    let gained = all.iter().filter(|change| gain(change) > 1e-9).take(SHOWN).cloned().collect();
    let lost = all.iter().rev().filter(|change| gain(change) < -1e-9).take(SHOWN).cloned().collect();
    Some(Changes { gained, lost, counts })
}

/// How pairs score: a chart for before training and one for later, on the same axes.
#[must_use]
pub fn distributions(before: Option<&Scores>, later: (&str, Option<&Scores>)) -> Vec<Scene> {
    let both = [("Before training", before), later];
    let all = both.iter().filter_map(|(_, scores)| *scores).flat_map(|s| s.positives.iter().chain(&s.negatives));
    let Some(bins) = Bins::around(all.map(|score| f64::from(*score)), 32, false) else { return Vec::new() };
    let shares = |scores: &[f32]| bins.shares(scores.iter().map(|score| (f64::from(*score), 1)));
    let groups = |scores: &Scores| {
        vec![(scores.positive.clone(), shares(&scores.positives)), (scores.negative.clone(), shares(&scores.negatives))]
    };
    let drawn: Vec<(&str, &Scores, Vec<Group>)> =
        both.into_iter().filter_map(|(title, scores)| scores.map(|s| (title, s, groups(s)))).collect();
    let highest = drawn.iter().flat_map(|(_, _, groups)| groups).flat_map(|(_, shares)| shares);
    let highest = highest.fold(0.0f64, |most, share| most.max(*share));
    drawn.iter().map(|(title, scores, groups)| histogram(title, &scores.name, bins, groups, highest)).collect()
}

/// The share of pairs of a positive and a negative of which the positive scores higher, ties half: the area under the
/// receiver's curve.
#[must_use]
pub fn separation(scores: &Scores) -> Option<f64> {
    let (positives, negatives) = (&scores.positives, &scores.negatives);
    if positives.is_empty() || negatives.is_empty() {
        return None;
    }
    let mut sorted = negatives.clone();
    sorted.sort_unstable_by(f32::total_cmp);
    let below = positives.iter().map(|score| {
        let less = sorted.partition_point(|other| other < score);
        let up_to = sorted.partition_point(|other| other <= score);
        (less + up_to) as f64 / 2.0
    });
    Some(below.sum::<f64>() / (positives.len() * negatives.len()) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(values: &[f64], found: &str) -> Look {
        let mut look = Look::new("x", "nDCG@10", &["query", "found first"], values.len());
        values.iter().enumerate().for_each(|(i, value)| look.push(*value, &[&format!("q{i}"), found]));
        look
    }

    #[test]
    fn the_largest_changes_come_first() {
        let changes = compare(&look(&[0.5, 0.5, 0.5, 0.5], "a"), &look(&[0.6, 1.0, 0.5, 0.1], "b")).unwrap_or_default();
        assert_eq!(changes.counts, [2, 1, 1]);
        let first = |list: &[Change]| list.first().map(|c| c.texts[0].1.clone());
        assert_eq!((first(&changes.gained), first(&changes.lost)), (Some("q1".into()), Some("q3".into())));
        let names: Vec<&str> = changes.lost[0].texts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["query", "found first, before", "found first, after"]);
        assert_eq!(compare(&look(&[0.5], "a"), &look(&[0.5, 0.5], "a")), None);
    }

    #[test]
    fn separation_is_the_share_of_pairs_in_order() {
        let scores = |positives: &[f32], negatives: &[f32]| Scores {
            positives: positives.to_vec(),
            negatives: negatives.to_vec(),
            ..Scores::default()
        };
        assert_eq!(separation(&scores(&[0.9, 0.5], &[0.5, 0.1])), Some(0.875));
        assert_eq!(separation(&scores(&[], &[0.5])), None);
    }

    #[test]
    fn both_charts_have_the_same_axes() {
        let scores = |shift: f32| {
            let pairs = (0..100u8).map(|i| (f32::from(i) / 100.0 + shift, i % 3 == 0));
            Scores::new("cosine", ["a".into(), "b".into()], pairs)
        };
        let charts = distributions(Some(&scores(0.0)), ("After training", Some(&scores(0.5))));
        assert_eq!(charts.len(), 2);
        assert!(distributions(None, ("After training", None)).is_empty());
    }
}
