//! A scene as a PNG picture, twice as wide as the scene, on white.

use tiny_skia::{Color, FillRule, LineJoin, Paint, PathBuilder, Pixmap, Rect, Stroke, StrokeDash, Transform};

use super::font::{Font, placed};
use super::{Anchor, Ink, SERIES, Scene, Shape, WIDTH};
use crate::error::{Error, Result};

const SCALE: f32 = 2.0;
/// Around the scene.
const MARGIN: f32 = 8.0;

/// The colours of a light page.
fn colour(ink: Ink) -> [u8; 3] {
    const ALL: [[u8; 3]; SERIES] =
        [[0x0a, 0x58, 0xca], [0xc2, 0x41, 0x0c], [0x0f, 0x76, 0x6e], [0x7c, 0x3a, 0xed], [0xa8, 0x15, 0x5e]];
    match ink {
        Ink::Words => [0x1f, 0x23, 0x28],
        Ink::Quiet => [0x59, 0x63, 0x6e],
        Ink::Grid => [0xd8, 0xde, 0xe4],
        Ink::Series(i) => ALL[i % SERIES],
    }
}

fn paint(ink: Ink, alpha: f64) -> Paint<'static> {
    let [red, green, blue] = colour(ink);
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(red, green, blue, (alpha.clamp(0.0, 1.0) * 255.0).round() as u8);
    paint
}

/// The bytes of the picture.
///
/// # Errors
/// When there is no memory for it.
pub fn png(scene: &Scene) -> Result<Vec<u8>> {
    let fault = |what: &str| Error::Internal(format!("a chart as a picture: {what}"));
    let side = |length: f64| ((length as f32 + 2.0 * MARGIN) * SCALE).ceil() as u32;
    let mut picture = Pixmap::new(side(WIDTH), side(scene.height)).ok_or_else(|| fault("no room"))?;
    picture.fill(Color::WHITE);
    let font = Font::new()?;
    let at = |(x, y): (f64, f64)| (x as f32 + MARGIN, y as f32 + MARGIN);
    let whole = Transform::from_scale(SCALE, SCALE);
    for shape in &scene.shapes {
        match shape {
            Shape::Line { points, ink, width, dashed, alpha } => {
                let mut path = PathBuilder::new();
                for (i, point) in points.iter().enumerate() {
                    let (x, y) = at(*point);
                    if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
                }
                let dash = if *dashed { StrokeDash::new(vec![5.0, 4.0], 0.0) } else { None };
                let stroke = Stroke { width: *width as f32, line_join: LineJoin::Round, dash, ..Stroke::default() };
                if let Some(path) = path.finish() {
                    picture.stroke_path(&path, &paint(*ink, *alpha), &stroke, whole, None);
                }
            }
            Shape::Dot { at: point, radius, ink } => {
                let (x, y) = at(*point);
                if let Some(path) = PathBuilder::from_circle(x, y, *radius as f32) {
                    picture.fill_path(&path, &paint(*ink, 1.0), FillRule::Winding, whole, None);
                }
            }
            Shape::Box { at: corner, size, ink, alpha } => {
                let (x, y) = at(*corner);
                if let Some(rect) = Rect::from_xywh(x, y, size.0 as f32, size.1 as f32) {
                    picture.fill_rect(rect, &paint(*ink, *alpha), whole, None);
                }
            }
            Shape::Words { at: point, text, anchor, ink, size, bold } => {
                let (x, y) = at(*point);
                let (outline, width) = font.outline(text, *size as f32);
                let x = match anchor {
                    Anchor::Start => x,
                    Anchor::Middle => x - width / 2.0,
                    Anchor::End => x - width,
                };
                if let Some(path) = outline {
                    let (place, paint) = (placed(x, y, SCALE), paint(*ink, 1.0));
                    picture.fill_path(&path, &paint, FillRule::Winding, place, None);
                    if *bold {
                        let stroke = Stroke { width: 0.5, ..Stroke::default() };
                        picture.stroke_path(&path, &paint, &stroke, place, None);
                    }
                }
            }
        }
    }
    picture.encode_png().map_err(|e| fault(&e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Lines, Series};
    use super::*;

    #[test]
    fn pictures_are_small_and_have_what_was_drawn() {
        let points: Vec<(f64, f64)> = (1..400).map(|i| (f64::from(i), (f64::from(i * 37 % 101)).sin() + 2.0)).collect();
        let series = Series { name: "loss".into(), points, marked: false };
        let scene = Lines { title: "Loss".into(), x_label: "step".into(), series: vec![series], reference: None };
        let bytes = png(&scene.scene().unwrap()).unwrap();
        assert!(bytes.len() < 60_000, "{}", bytes.len());
        let back = Pixmap::decode_png(&bytes).unwrap();
        let has = |colour: [u8; 3]| back.pixels().iter().any(|p| [p.red(), p.green(), p.blue()] == colour);
        assert!(has([255; 3]) && has(colour(Ink::Series(0))) && has(colour(Ink::Grid)) && has(colour(Ink::Words)));
    }
}
