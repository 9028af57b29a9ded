//! How often which value occurs, several groups over each other.

use super::frame::{Around, Entry, Frame};
use super::{Ink, Scene, Shape, axis};

/// Bins of the same width; the first begins at `low`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bins {
    pub low: f64,
    pub width: f64,
    pub count: usize,
}

impl Bins {
    /// Bins with round edges, at most `most`, around values; whole numbers get bins of whole width.
    #[must_use]
    pub fn around(values: impl Iterator<Item = f64>, most: usize, whole: bool) -> Option<Self> {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        if low > high {
            return None;
        }
        let spread = (high - low).max(1e-9 * high.abs().max(1.0));
        let mut width = axis::step(spread / most as f64);
        if whole {
            width = width.max(1.0);
        }
        loop {
            let first = (low / width).floor();
            let count = (high / width).floor() - first + 1.0;
            if count <= most as f64 {
                return Some(Self { low: first * width, width, count: count.max(1.0) as usize });
            }
            width = axis::step(width * 1.01);
        }
    }

    /// The share of the values (with how often each occurs) in each bin; what lies outside goes into the nearest.
    #[must_use]
    pub fn shares(&self, values: impl Iterator<Item = (f64, u64)>) -> Vec<f64> {
        let (mut counts, mut all) = (vec![0u64; self.count], 0u64);
        for (value, times) in values.filter(|(value, _)| value.is_finite()) {
            let bin = ((value - self.low) / self.width + 1e-9).floor().max(0.0) as usize;
            counts[bin.min(self.count - 1)] += times;
            all += times;
        }
        counts.into_iter().map(|count| count as f64 / all.max(1) as f64).collect()
    }

    /// Where bin `i` begins.
    #[must_use]
    pub fn edge(&self, i: usize) -> f64 {
        self.low + i as f64 * self.width
    }

    /// How many decimals tell the edges apart.
    #[must_use]
    pub fn decimals(&self) -> usize {
        (-self.width.log10().floor()).clamp(0.0, 6.0) as usize
    }
}

/// Draws groups, each with the shares of its values by bin. `highest` is the largest share shown, for charts that are
/// compared.
#[must_use]
pub fn histogram(title: &str, x_label: &str, bins: Bins, groups: &[(String, Vec<f64>)], highest: f64) -> Scene {
    let legend = groups.iter().enumerate();
    let legend = legend.map(|(i, (name, _))| Entry { name, ink: Ink::Series(i), dashed: false }).collect();
    let most = |shares: &[f64]| (0..shares.len()).max_by(|a, b| shares[*a].total_cmp(&shares[*b])).unwrap_or(0);
    let d = bins.decimals();
    let told = groups.iter().map(|(name, shares)| format!("{name} most often around {:.d$}", bins.edge(most(shares))));
    let mut frame = Frame::new(&Around {
        title,
        label: format!("{title}, by {x_label}: {}", told.collect::<Vec<_>>().join("; ")),
        legend,
        x_label,
        x: (bins.low, bins.edge(bins.count)),
        y: (0.0, highest.max(1e-6) * 1.05),
        whole: false,
        percent: true,
        height: 130.0,
    });
    let floor = frame.y(0.0);
    for (i, (_, shares)) in groups.iter().enumerate() {
        let ink = Ink::Series(i);
        let mut outline = vec![(frame.x(bins.low), floor)];
        for (bin, share) in shares.iter().enumerate() {
            let (left, right) = (frame.x(bins.edge(bin)), frame.x(bins.edge(bin + 1)));
            let y = frame.y(*share);
            outline.extend([(left, y), (right, y)]);
            if *share > 0.0 {
                let (at, size) = ((left, y), (right - left, floor - y));
                frame.scene.shapes.push(Shape::Box { at, size, ink, alpha: if groups.len() > 1 { 0.3 } else { 0.55 } });
            }
        }
        outline.push((frame.x(bins.edge(bins.count)), floor));
        frame.scene.line(&outline, ink, 1.4);
    }
    frame.scene
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_round_and_hold_everything() {
        let bins = Bins::around([0.013, 0.97].into_iter(), 30, false);
        assert_eq!(bins, Some(Bins { low: 0.0, width: 0.05, count: 20 }));
        let Some(bins) = Bins::around((3..=70).map(f64::from), 30, true) else { return assert!(bins.is_none()) };
        assert_eq!((bins.low, bins.width, bins.count), (0.0, 5.0, 15));
        let shares = bins.shares([(3.0, 1), (70.0, 1), (71.0, 2)].into_iter());
        assert_eq!((shares[0], shares[14]), (0.25, 0.75));
        assert_eq!(Bins::around([].into_iter(), 30, false), None);
        let Some(one) = Bins::around([5.0].into_iter(), 30, true) else { return assert!(shares.is_empty()) };
        assert_eq!((one.low, one.count), (5.0, 1));
    }

    #[test]
    fn a_value_on_an_edge_goes_up() {
        let bins = Bins { low: 0.0, width: 0.1, count: 10 };
        let at = |value: f64| bins.shares([(value, 1)].into_iter()).iter().position(|share| *share > 0.0);
        assert_eq!((at(0.3), at(0.29), at(1.0), at(-1.0)), (Some(3), Some(2), Some(9), Some(0)));
    }
}
