//! A curve as a picture, and its numbers in a table beneath.

use super::{Figure, figure, number, whole};
use crate::runs::report::chart;
use crate::runs::report::curves::Curve;

/// Rows of a table of numbers beneath a chart.
const ROWS: usize = 60;

pub(super) fn curve(curve: &Curve) -> Option<Figure> {
    let scene = curve.lines.scene()?;
    // those that are marked beside the others, or few of them would be left
    let mut shown = thinned(&curve.lines.series, false);
    shown.extend(thinned(&curve.lines.series, true));
    let rows = in_order(shown).into_iter().map(|step| {
        let value = |series: &chart::Series| {
            let found = series.points.iter().find(|(x, _)| *x == step);
            found.map_or_else(String::new, |(_, value)| number(*value))
        };
        std::iter::once(whole(step)).chain(curve.lines.series.iter().map(value)).collect()
    });
    let names = curve.lines.series.iter().map(|series| series.name.clone());
    let columns = std::iter::once(curve.lines.x_label.clone()).chain(names).collect();
    Some(figure(&scene, columns, rows.collect()))
}

/// Steps of the series that are marked, or of those that are not; of more than [`ROWS`] so many at even distances, the
/// newest among them.
fn thinned(series: &[chart::Series], marked: bool) -> Vec<f64> {
    let series = series.iter().filter(|series| series.marked == marked);
    let steps = in_order(series.flat_map(|series| series.points.iter().map(|(step, _)| *step)).collect());
    let every = steps.len().div_ceil(ROWS).max(1);
    steps.iter().rev().step_by(every).copied().collect()
}

/// Each step once.
fn in_order(mut steps: Vec<f64>) -> Vec<f64> {
    steps.sort_unstable_by(f64::total_cmp);
    steps.dedup();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_stay_in_the_table_of_many_steps() {
        let series = |last: u32, every: usize, marked| chart::Series {
            name: "loss".into(),
            points: (1..=last).step_by(every).map(|step| (f64::from(step), 1.0)).collect(),
            marked,
        };
        let lines = chart::Lines {
            title: "Loss".into(),
            x_label: "step".into(),
            series: vec![series(6000, 1, false), series(6000, 997, true)],
            reference: None,
        };
        let rows = curve(&Curve { file: "loss", lines }).map(|figure| figure.rows).unwrap_or_default();
        assert!(rows.len() > ROWS && rows.len() <= ROWS + 7, "{}", rows.len());
        assert_eq!(rows.iter().filter(|row| !row[2].is_empty()).count(), 7);
        assert_eq!(rows.last().map(|row| row[0].clone()), Some("6000".to_owned()));
    }
}
