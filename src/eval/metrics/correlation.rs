//! Pearson and Spearman correlation as scipy computes them.

/// Pearson's correlation of two lists of equal length, in [-1, 1].
///
/// NaN when a list is constant, has NaN, or there are fewer than two values, as `scipy.stats.pearsonr` gives (which
/// raises for fewer than two).
#[must_use]
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len().min(y.len());
    let (x, y) = (&x[..n], &y[..n]);
    if n < 2 || constant(x) || constant(y) {
        return f64::NAN;
    }
    let centered = |v: &[f64]| -> (Vec<f64>, f64) {
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let v: Vec<f64> = v.iter().map(|x| x - mean).collect();
        // Scaled by the largest value, so that squares neither overflow nor vanish.
        let largest = v.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        let norm = largest * v.iter().map(|x| (x / largest).powi(2)).sum::<f64>().sqrt();
        (v, norm)
    };
    let ((x, x_norm), (y, y_norm)) = (centered(x), centered(y));
    let r: f64 = x.iter().zip(&y).map(|(x, y)| (x / x_norm) * (y / y_norm)).sum();
    // `clamp` keeps NaN.
    r.clamp(-1.0, 1.0)
}

/// Spearman's rank correlation: Pearson's of the ranks, ties with their average rank.
///
/// NaN in the same cases as [`pearson`].
#[must_use]
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len().min(y.len());
    let (x, y) = (&x[..n], &y[..n]);
    if x.iter().chain(y).any(|v| v.is_nan()) {
        return f64::NAN;
    }
    pearson(&ranks(x), &ranks(y))
}

/// Ranks from 1, equal values sharing the average of theirs (`scipy.stats.rankdata`, method "average").
#[must_use]
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    // `==` rather than the sort's order: -0.0 and 0.0 are neighbours there and tie here.
    for group in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let average = (2 * start + group.len() + 1) as f64 / 2.0;
        group.iter().for_each(|i| ranks[*i] = average);
        start += group.len();
    }
    ranks
}

fn constant(values: &[f64]) -> bool {
    values.windows(2).all(|w| w[0] == w[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_average_ties() {
        assert_eq!(ranks(&[10.0, 20.0, 20.0, 5.0]), [2.0, 3.5, 3.5, 1.0]);
        assert_eq!(ranks(&[0.0, -0.0, 1.0]), [1.5, 1.5, 3.0]);
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn known_values() {
        // Covariance 5.5, squared norms 5 and 8.75 about the means.
        let (x, y) = ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 5.0]);
        assert!((pearson(&x, &y) - 5.5 / 43.75f64.sqrt()).abs() < 1e-15);
        assert!((spearman(&x, &y) - 0.8).abs() < 1e-12);
        assert!((pearson(&[1.0, 2.0, 3.0], &[-2.0, -4.0, -6.0]) + 1.0).abs() < 1e-15);
        assert!((spearman(&[1.0, 2.0, 3.0], &[1.0, 100.0, 1e9]) - 1.0).abs() < 1e-15);
        assert!((pearson(&[1e-200, 2e-200, 3e-200], &[1e200, 2e200, 3e200]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_has_no_correlation_is_nan() {
        assert!(pearson(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]).is_nan());
        assert!(spearman(&[1.0, 2.0, 3.0], &[0.5, 0.5, 0.5]).is_nan());
        assert!(pearson(&[1.0], &[2.0]).is_nan());
        assert!(pearson(&[], &[]).is_nan());
        assert!(spearman(&[f64::NAN, 1.0, 2.0], &[1.0, 2.0, 3.0]).is_nan());
        assert!(pearson(&[f64::NAN, 1.0, 2.0], &[1.0, 2.0, 3.0]).is_nan());
    }
}
