//! Rows of small files whose columns have fixed names: retrieval data, samples to rerank, paraphrases.

use std::path::Path;

use super::columns::OnBadRow;
use super::report::BadRows;
use super::source::files::missing;
use super::source::{Cells, DataFile, Files, Format, Place, Problem, Reason, Rows, Value};
use crate::error::{Error, Result};

/// A file of a known format.
///
/// # Errors
/// When there is none.
pub(super) fn one_file(path: &Path, format: Format) -> Result<Files> {
    let shown = path.display().to_string();
    if !path.is_file() {
        return Err(missing(&shown, path));
    }
    let file = DataFile { path: path.to_path_buf(), shown: shown.clone(), format };
    Ok(Files::from_iter([file]))
}

/// The cells of every row of a file, through `use_row`; rows it refuses are an error that names them.
pub(super) fn each_row<T>(files: &Files, use_row: impl Fn(&Cells) -> Result<T, Problem>) -> Result<Vec<(Place, T)>> {
    let mut rows = Rows::new(files, None);
    let (mut used, mut read) = (Vec::new(), 0);
    let mut bad = BadRows::new(OnBadRow::Refuse);
    while let Some((place, cells)) = rows.next_row()? {
        read += 1;
        match cells.and_then(|cells| use_row(&cells)) {
            Ok(row) => used.push((place, row)),
            Err(problem) => bad.add(place, &problem),
        }
    }
    // Nothing here can be skipped, so the way out is another than for training data.
    bad.finish(files, read).map_err(|e| e.with_hint("correct the file"))?;
    Ok(used)
}

/// The cell of the first of several names that is there.
pub(super) fn get<'a>(cells: &'a Cells, names: &[&str]) -> Option<&'a Value> {
    names.iter().find_map(|name| cells.iter().find(|c| c.0.as_ref() == *name)).map(|c| &c.1)
}

/// A cell with an id: text or a whole number.
pub(super) fn id_of(cells: &Cells, names: &[&str]) -> Result<String, Problem> {
    let name = names.first().copied().unwrap_or_default();
    match get(cells, names) {
        Some(Value::Text(id)) if !id.is_empty() => Ok(id.clone()),
        Some(Value::Text(_)) => Err(Problem::cell(Reason::EmptyText, name, "empty id")),
        Some(Value::Integer(id)) => Ok(id.to_string()),
        Some(other) => Err(Problem::cell(Reason::WrongType, name, format!("{} instead of an id", other.kind()))),
        None => Err(Problem::cell(Reason::MissingColumn, name, "missing")),
    }
}

/// A cell with text that is more than blanks.
pub(super) fn text_of(cells: &Cells, names: &[&str]) -> Result<String, Problem> {
    let name = names.first().copied().unwrap_or_default();
    match get(cells, names) {
        Some(Value::Text(text)) if text.trim().is_empty() => Err(Problem::cell(Reason::EmptyText, name, "empty text")),
        Some(Value::Text(text)) => Ok(text.clone()),
        Some(Value::Null) => Err(Problem::cell(Reason::Null, name, "null instead of text")),
        Some(other) => Err(Problem::cell(Reason::WrongType, name, format!("{} instead of text", other.kind()))),
        None => Err(Problem::cell(Reason::MissingColumn, name, "missing")),
    }
}

/// A file of rows, its format told by its ending.
///
/// # Errors
/// When it is not there, or of no such format.
pub(super) fn any_file(path: &Path) -> Result<Files> {
    match Format::of(path) {
        Some(format) => one_file(path, format),
        None if path.is_file() => Err(Error::data(format!("cannot tell the format of `{}`", path.display()))
            .with_hint("rows are read from `.jsonl`, `.csv`, `.tsv`, `.parquet` and `.arrow` files")),
        None => Err(missing(&path.display().to_string(), path)),
    }
}
