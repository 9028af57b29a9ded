//! Parts of a whole, one bar below the other.

use super::{Anchor, Ink, Scene, Shape, WIDTH, room};

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    pub name: String,
    /// Not negative.
    pub value: f64,
    /// What is written behind it.
    pub text: String,
}

const ROW: f64 = 24.0;

/// Draws bars in their order, the longest as wide as there is room.
#[must_use]
pub fn bars(title: &str, bars: &[Bar]) -> Scene {
    let told = bars.iter().map(|bar| format!("{} {}", bar.name, bar.text)).collect::<Vec<_>>().join(", ");
    let mut scene = Scene { label: format!("{title}: {told}"), ..Scene::default() };
    scene.title(title);
    let widest = |text: &dyn Fn(&Bar) -> &str| bars.iter().map(|bar| room(text(bar))).fold(0.0, f64::max);
    let left = widest(&|bar| &bar.name) + 10.0;
    let right = WIDTH - widest(&|bar| &bar.text) - 10.0;
    let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    for (i, bar) in bars.iter().enumerate() {
        let y = 34.0 + i as f64 * ROW;
        let width = ((right - left) * bar.value / most).max(1.0);
        scene.words((left - 8.0, y + 12.0), &bar.name, Anchor::End, Ink::Words);
        scene.shapes.push(Shape::Box { at: (left, y), size: (width, 16.0), ink: Ink::Series(0), alpha: 0.75 });
        scene.words((left + width + 6.0, y + 12.0), &bar.text, Anchor::Start, Ink::Quiet);
    }
    scene.height = 34.0 + bars.len() as f64 * ROW + 4.0;
    scene
}
