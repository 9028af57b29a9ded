//! Title, legend, axes and grid: what all charts with two axes have.

use super::{Anchor, Ink, Scene, Shape, WIDTH, axis, room};

/// A chart's frame, from numbers to places.
pub(super) struct Frame {
    pub scene: Scene,
    x: (f64, f64),
    y: (f64, f64),
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// A line of the legend.
pub(super) struct Entry<'a> {
    pub name: &'a str,
    pub ink: Ink,
    pub dashed: bool,
}

/// What stands around a chart.
pub(super) struct Around<'a> {
    pub title: &'a str,
    pub label: String,
    pub legend: Vec<Entry<'a>>,
    /// Below the first axis.
    pub x_label: &'a str,
    pub x: (f64, f64),
    pub y: (f64, f64),
    /// Whether the first axis counts.
    pub whole: bool,
    /// Whether numbers at the second axis are shares.
    pub percent: bool,
    /// The plot's own height.
    pub height: f64,
}

const BOTTOM: f64 = 46.0;
const ROW: f64 = 19.0;

impl Frame {
    pub(super) fn new(around: &Around<'_>) -> Self {
        let mut scene = Scene { label: around.label.clone(), ..Scene::default() };
        scene.title(around.title);
        let top = legend(&mut scene, &around.legend) + 8.0;
        let marks = axis::ticks(around.y.0, around.y.1, 5);
        let shares: Vec<f64> = marks.iter().map(|mark| mark * 100.0).collect();
        let labels: Vec<String> = if around.percent {
            axis::labels(&shares).into_iter().map(|label| format!("{label}%")).collect()
        } else {
            axis::labels(&marks)
        };
        let left = labels.iter().map(|label| room(label)).fold(20.0, f64::max) + 8.0;
        scene.height = top + around.height + BOTTOM;
        let (right, bottom) = (WIDTH - 16.0, top + around.height);
        let mut frame = Self { scene, x: around.x, y: around.y, left, right, top, bottom };
        for (mark, label) in marks.iter().zip(&labels) {
            let y = frame.y(*mark);
            frame.scene.line(&[(left, y), (right, y)], Ink::Grid, 1.0);
            frame.scene.words((left - 6.0, y + 4.0), label, Anchor::End, Ink::Quiet);
        }
        frame.scene.line(&[(left, bottom), (right, bottom)], Ink::Quiet, 1.0);
        let mut marks = axis::ticks(around.x.0, around.x.1, 6);
        marks.retain(|mark| !around.whole || mark.fract() == 0.0);
        let labels = axis::labels(&marks);
        for (mark, label) in marks.iter().zip(&labels) {
            let x = frame.x(*mark);
            frame.scene.line(&[(x, bottom), (x, bottom + 4.0)], Ink::Quiet, 1.0);
            let anchor = if x + room(label) / 2.0 > WIDTH { Anchor::End } else { Anchor::Middle };
            frame.scene.words(
                (if anchor == Anchor::End { WIDTH } else { x }, bottom + 21.0),
                label,
                anchor,
                Ink::Quiet,
            );
        }
        let middle = f64::midpoint(left, right);
        frame.scene.words((middle, bottom + 40.0), around.x_label, Anchor::Middle, Ink::Quiet);
        frame
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        self.left + (value - self.x.0) / (self.x.1 - self.x.0) * (self.right - self.left)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        self.bottom - (value - self.y.0) / (self.y.1 - self.y.0) * (self.bottom - self.top)
    }

    /// A line from one side to the other.
    pub(super) fn across(&mut self, value: f64, ink: Ink) {
        let y = self.y(value);
        let points = vec![(self.left, y), (self.right, y)];
        self.scene.shapes.push(Shape::Line { points, ink, width: 1.6, dashed: true, alpha: 1.0 });
    }
}

/// Draws the legend below the title, in as many rows as it takes; where it ends.
fn legend(scene: &mut Scene, entries: &[Entry<'_>]) -> f64 {
    let (mut x, mut y) = (2.0, 25.0);
    if entries.is_empty() {
        return y;
    }
    y += 12.0;
    for entry in entries {
        let width = 24.0 + room(entry.name) + 12.0;
        if x > 2.0 && x + width > WIDTH {
            (x, y) = (2.0, y + ROW);
        }
        let points = vec![(x, y - 4.0), (x + 18.0, y - 4.0)];
        scene.shapes.push(Shape::Line { points, ink: entry.ink, width: 3.0, dashed: entry.dashed, alpha: 1.0 });
        scene.words((x + 24.0, y), entry.name, Anchor::Start, Ink::Words);
        x += width;
    }
    y + 4.0
}
