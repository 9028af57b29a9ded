//! Curves over steps.

use super::frame::{Around, Entry, Frame};
use super::{Ink, Scene, Shape, axis};

/// Points of one curve beyond which neighbours are drawn as their mean.
const POINTS: usize = 400;
/// Points from which on a curve is drawn smoothed, the points themselves behind it.
const MANY: usize = 40;

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    /// Not finite ones are gaps.
    pub points: Vec<(f64, f64)>,
    /// Whether each point is marked.
    pub marked: bool,
}

/// A chart of curves.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lines {
    pub title: String,
    pub x_label: String,
    pub series: Vec<Series>,
    /// A value to compare with, and what it is.
    pub reference: Option<(f64, String)>,
}

impl Lines {
    /// Draws it; `None` without a point.
    #[must_use]
    pub fn scene(&self) -> Option<Scene> {
        let points = || self.series.iter().flat_map(|series| &series.points).filter(|(_, y)| y.is_finite());
        let last = points().map(|(x, _)| *x).fold(f64::NEG_INFINITY, f64::max);
        let first = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
        if !(first.is_finite() && last.is_finite()) {
            return None;
        }
        let reference = self.reference.as_ref().filter(|(value, _)| value.is_finite());
        let y = axis::around(points().map(|(_, y)| *y).chain(reference.map(|(value, _)| *value)));
        let start = if first <= 0.25 * last { 0.0 } else { first };
        let x = if last > start { (start, last) } else { ((start - 1.0).max(0.0), last + 1.0) };
        let several = self.series.len() > 1 || reference.is_some();
        let entries = self.series.iter().enumerate();
        let mut legend: Vec<Entry<'_>> = entries
            .filter(|_| several)
            .map(|(i, series)| Entry { name: &series.name, ink: Ink::Series(i), dashed: false })
            .collect();
        legend.extend(reference.map(|(_, name)| Entry { name, ink: Ink::Quiet, dashed: true }));
        let mut frame = Frame::new(&Around {
            title: &self.title,
            label: self.label(),
            legend,
            x_label: &self.x_label,
            x,
            y,
            whole: true,
            percent: false,
            height: 160.0,
        });
        if let Some((value, _)) = reference {
            frame.across(*value, Ink::Quiet);
        }
        for (i, series) in self.series.iter().enumerate() {
            draw(&mut frame, series, Ink::Series(i));
        }
        Some(frame.scene)
    }

    fn label(&self) -> String {
        let ends = self.series.iter().filter_map(|series| {
            let finite = || series.points.iter().filter(|(_, y)| y.is_finite());
            let ((x, y), (to, last)) = (finite().next()?, finite().next_back()?);
            Some(format!("{} from {} at {x} to {} at {to}", series.name, short(*y), short(*last)))
        });
        format!("{} by {}: {}", self.title, self.x_label, ends.collect::<Vec<_>>().join("; "))
    }
}

fn short(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 { format!("{value:.2e}") } else { format!("{value:.4}") }
}

fn draw(frame: &mut Frame, series: &Series, ink: Ink) {
    let points = thinned(&series.points);
    let parts = points.split(|(_, y)| !y.is_finite()).filter(|part| !part.is_empty());
    for part in parts {
        let many = part.len() >= MANY && !series.marked;
        let place = |frame: &Frame, points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            points.iter().map(|(x, y)| (frame.x(*x), frame.y(*y))).collect()
        };
        let line = |points, width, alpha| Shape::Line { points, ink, width, dashed: false, alpha };
        if many {
            let raw = place(frame, part);
            frame.scene.shapes.push(line(raw, 1.0, 0.4));
            let smooth = place(frame, &smoothed(part));
            frame.scene.shapes.push(line(smooth, 2.2, 1.0));
        } else {
            let raw = place(frame, part);
            frame.scene.shapes.push(line(raw, 2.2, 1.0));
        }
        if series.marked || part.len() == 1 {
            for (x, y) in part {
                let at = (frame.x(*x), frame.y(*y));
                frame.scene.shapes.push(Shape::Dot { at, radius: 3.4, ink });
            }
        }
    }
}

/// Means of neighbours where there are too many points to be told apart.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let size = points.len().div_ceil(POINTS);
    let mean = |part: &[(f64, f64)]| {
        let finite: Vec<f64> = part.iter().map(|(_, y)| *y).filter(|y| y.is_finite()).collect();
        (part[part.len() - 1].0, finite.iter().sum::<f64>() / finite.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}

/// The mean of the points around each, over a tenth of the curve, less at its ends.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = (points.len() / 20).max(2);
    (0..points.len())
        .map(|i| {
            let reach = half.min(i).min(points.len() - 1 - i);
            let around = &points[i - reach..=i + reach];
            (points[i].0, around.iter().map(|(_, y)| y).sum::<f64>() / around.len() as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_curves_are_thinned_and_keep_their_end() {
        let points: Vec<(f64, f64)> = (1..=10_000).map(|i| (f64::from(i), f64::from(i))).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS && thin.last().is_some_and(|(x, _)| *x == 10_000.0));
        let smooth = smoothed(&points[..100]);
        assert!(smooth.iter().zip(&points).all(|(a, b)| (a.1 - b.1).abs() < 1e-9), "a straight line stays");
    }

    #[test]
    fn gaps_and_nothing_at_all() {
        let series = |points: &[(f64, f64)]| Series { name: "a".into(), points: points.to_vec(), marked: false };
        assert!(Lines::default().scene().is_none());
        assert!(Lines { series: vec![series(&[(1.0, f64::NAN)])], ..Lines::default() }.scene().is_none());
        let lines = Lines { series: vec![series(&[(1.0, 1.0), (2.0, f64::NAN), (3.0, 2.0)])], ..Lines::default() };
        let dots = lines.scene().map(|s| s.shapes.iter().filter(|s| matches!(s, Shape::Dot { .. })).count());
        assert_eq!(dots, Some(2), "a point by itself is marked");
    }
}
