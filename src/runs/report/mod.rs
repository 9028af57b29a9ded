//! What did a run do? `report.html`, one file for people, and its curves as pictures, made from the run's folder alone.

pub mod captured;
mod changes;
pub mod chart;
mod curves;
mod facts;
mod page;

use std::path::{Path, PathBuf};

pub use facts::Facts;

use super::RunFolder;
use crate::error::Result;
use crate::util::files;

/// Makes the report: `report.html` in the run's folder, or `file`, and the curves as SVG and PNG in `report`.
///
/// # Errors
/// When the run has no status, or a file cannot be written.
pub fn write(folder: &RunFolder, file: Option<&Path>) -> Result<PathBuf> {
    let facts = Facts::read(folder)?;
    let path = file.map_or_else(|| folder.dir().join("report.html"), Path::to_path_buf);
    files::write_atomic(&path, page::html(folder, &facts)?.as_bytes())?;
    let dir = captured::dir(folder);
    files::create_dir(&dir)?;
    for curve in curves::curves(&facts) {
        if let Some(scene) = curve.lines.scene() {
            files::write_atomic(&dir.join(format!("{}.svg", curve.file)), chart::svg_file(&scene).as_bytes())?;
            files::write_atomic(&dir.join(format!("{}.png", curve.file)), &chart::png(&scene)?)?;
        }
    }
    Ok(path)
}

/// The page as it would be written now; nothing is written.
///
/// # Errors
/// When the run has no status.
pub fn html(folder: &RunFolder) -> Result<String> {
    page::html(folder, &Facts::read(folder)?)
}

/// Those curves of a run that `files` names as PNG pictures, as far as there is anything to draw; of a run under way too.
///
/// # Errors
/// When the run has no status.
pub fn curves(folder: &RunFolder, files: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let facts = Facts::read(folder)?;
    let mut pictures = Vec::new();
    for curve in curves::curves(&facts).into_iter().filter(|curve| files.contains(&curve.file)) {
        if let Some(scene) = curve.lines.scene() {
            pictures.push((curve.file.to_owned(), chart::png(&scene)?));
        }
    }
    Ok(pictures)
}
