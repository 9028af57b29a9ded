//! Words as outlines, for pictures that are made without a system's fonts.

use tiny_skia::{Path, PathBuilder, Transform};
use ttf_parser::{Face, OutlineBuilder};

use crate::error::{Error, Result};

/// DejaVu Sans with the letters, digits and signs of charts; its licence stands beside it.
static SANS: &[u8] = include_bytes!("../../../../templates/report/sans.ttf");

pub(super) struct Font {
    face: Face<'static>,
}

struct Outline {
    path: PathBuilder,
    /// Font units to points, and where the letter begins.
    scale: f32,
    x: f32,
}

impl Outline {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, -y * self.scale)
    }
}

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

impl Font {
    pub(super) fn new() -> Result<Self> {
        let face = Face::parse(SANS, 0).map_err(|e| Error::Internal(format!("the font of charts: {e}")))?;
        Ok(Self { face })
    }

    /// The outline of a text that begins at the origin of its base line, and its width; letters that the font lacks are
    /// drawn as its sign for that.
    pub(super) fn outline(&self, text: &str, size: f32) -> (Option<Path>, f32) {
        let scale = size / f32::from(self.face.units_per_em());
        let mut outline = Outline { path: PathBuilder::new(), scale, x: 0.0 };
        for letter in text.chars() {
            let glyph = self.face.glyph_index(letter).unwrap_or_default();
            self.face.outline_glyph(glyph, &mut outline);
            outline.x += f32::from(self.face.glyph_hor_advance(glyph).unwrap_or_default()) * scale;
        }
        let width = outline.x;
        (outline.path.finish(), width)
    }
}

/// Where an outline goes.
pub(super) fn placed(x: f32, y: f32, scale: f32) -> Transform {
    Transform::from_row(scale, 0.0, 0.0, scale, x * scale, y * scale)
}
