//! How are numbers drawn? As scenes of lines, boxes and words, which become SVG and PNG alike.
//!
//! A scene is [`WIDTH`] wide, whatever is drawn, and is shown at half to one and a half times that. Words are written a
//! third larger on a phone, and everything leaves the room for that.

pub mod axis;
mod bars;
mod font;
mod frame;
mod histogram;
mod lines;
mod png;
mod svg;

pub use bars::{Bar, bars};
pub use histogram::{Bins, histogram};
pub use lines::{Lines, Series};
pub use png::png;
pub use svg::{STYLE, svg, svg_file};

/// The width of every scene.
pub const WIDTH: f64 = 440.0;
/// The height of words.
const WORDS: f64 = 11.5;
/// The height of titles.
const TITLE: f64 = 13.5;

/// What something is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    Words,
    /// Words that matter less.
    Quiet,
    Grid,
    /// The colour of the first, second, ... of what is compared.
    Series(usize),
}

/// Colours of series there are; more begin again.
pub const SERIES: usize = 5;

/// Where words stand from the point they are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// One thing in a scene.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    Line { points: Vec<(f64, f64)>, ink: Ink, width: f64, dashed: bool, alpha: f64 },
    Dot { at: (f64, f64), radius: f64, ink: Ink },
    Box { at: (f64, f64), size: (f64, f64), ink: Ink, alpha: f64 },
    Words { at: (f64, f64), text: String, anchor: Anchor, ink: Ink, size: f64, bold: bool },
}

/// What is drawn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scene {
    pub height: f64,
    /// What is to be seen, for those who do not see it.
    pub label: String,
    pub shapes: Vec<Shape>,
}

impl Scene {
    fn line(&mut self, points: &[(f64, f64)], ink: Ink, width: f64) {
        self.shapes.push(Shape::Line { points: points.to_vec(), ink, width, dashed: false, alpha: 1.0 });
    }

    fn words(&mut self, at: (f64, f64), text: impl Into<String>, anchor: Anchor, ink: Ink) {
        self.shapes.push(Shape::Words { at, text: text.into(), anchor, ink, size: WORDS, bold: false });
    }

    fn title(&mut self, text: &str) {
        let (at, text) = ((2.0, 17.0), text.to_owned());
        self.shapes.push(Shape::Words { at, text, anchor: Anchor::Start, ink: Ink::Words, size: TITLE, bold: true });
    }
}

/// The room that words may need: those of a phone are larger.
fn room(text: &str) -> f64 {
    // the share of the height that a letter of a wide font takes
    let letters: f64 = text.chars().map(|letter| if letter == '%' { 0.95 } else { 0.61 }).sum();
    letters * WORDS * 1.32
}
