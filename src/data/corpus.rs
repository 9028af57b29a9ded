//! The texts that are encoded or searched, from whatever file they lie in.

use std::path::Path;

use super::probe::probe;
use super::source::{Cells, DataFile, Files, Format, Rows, Value};
use super::texts::read_texts;
use crate::error::{Error, Result};

/// The texts of a file, one a row: a column of rows, or the lines of plain text, empty ones included, so that the
/// n-th text is the n-th line.
///
/// JSON lines in the BEIR layout (`text` beside `title` or `_id`) need no column: a document is its title, a space
/// and its text, trimmed.
///
/// # Errors
/// When the file cannot be read, it is not clear which column is meant, or there is no text in it.
pub fn read(path: &Path, column: Option<&str>) -> Result<Vec<String>> {
    let texts = match beir(path).filter(|_| column.is_none()) {
        Some(files) if is_beir(&files)? => documents(&files)?,
        _ => read_texts(path, column)?,
    };
    if texts.iter().all(|text| text.trim().is_empty()) {
        return Err(Error::data(format!("`{}` holds no text", path.display()))
            .with_hint("a `.txt` file has one text a line, other files one a row"));
    }
    Ok(texts)
}

/// As [`read`], where the setting that names the column is called `option`.
///
/// # Errors
/// As there.
pub fn read_for(option: &str, path: &Path, column: Option<&str>) -> Result<Vec<String>> {
    read(path, column).map_err(|error| match error.hint().map(|hint| hint.replace("--column", option)) {
        Some(hint) => error.with_hint(hint),
        None => error,
    })
}

/// What the rows of a file are called, by their `_id` or `id`; empty for a file without such a column.
///
/// # Errors
/// When the file cannot be read.
pub fn ids(path: &Path) -> Result<Vec<String>> {
    if Format::of(path).is_none() || !path.is_file() {
        return Ok(Vec::new());
    }
    let files = Files::resolve(&[path.to_string_lossy().into_owned()], Path::new(""))?;
    let columns = probe(&files)?;
    let Some(name) = ["_id", "id"].into_iter().find(|name| columns.iter().any(|c| c.name == *name)) else {
        return Ok(Vec::new());
    };
    let mut rows = Rows::new(&files, Some(vec![name.to_owned()]));
    let mut ids = Vec::new();
    while let Some((_, cells)) = rows.next_row()? {
        let cell = cells.ok().and_then(|cells| cells.into_iter().find(|(column, _)| column.as_ref() == name));
        ids.push(match cell.map(|(_, value)| value) {
            Some(Value::Text(text)) => text,
            Some(Value::Integer(number)) => number.to_string(),
            _ => String::new(),
        });
    }
    Ok(ids)
}

/// The file, if its format is the one that BEIR is written in.
fn beir(path: &Path) -> Option<Files> {
    let format = Format::of(path).filter(|f| *f == Format::JsonLines && path.is_file())?;
    Some(Files::from_iter([DataFile { path: path.to_path_buf(), shown: path.display().to_string(), format }]))
}

fn is_beir(files: &Files) -> Result<bool> {
    let columns = probe(files)?;
    let has = |name: &str| columns.iter().any(|c| c.name == name);
    Ok(has("text") && (has("title") || has("_id")))
}

fn documents(files: &Files) -> Result<Vec<String>> {
    let mut rows = Rows::new(files, None);
    let mut texts = Vec::new();
    while let Some((place, cells)) = rows.next_row()? {
        let bad = |what: String| {
            Error::data(format!("{}: {what}", files.locate(place)))
                .with_hint("correct the row, or name another column with `--column`")
        };
        let cells = cells.map_err(|problem| bad(problem.text))?;
        let title = part(&cells, "title").map_err(bad)?.unwrap_or_default();
        let text = part(&cells, "text").map_err(bad)?.ok_or_else(|| bad("column `text`: missing".to_owned()))?;
        texts.push(format!("{title} {text}").trim().to_owned());
    }
    Ok(texts)
}

fn part<'a>(cells: &'a Cells, name: &str) -> Result<Option<&'a str>, String> {
    match cells.iter().find(|(column, _)| column.as_ref() == name).map(|(_, value)| value) {
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(Value::Null) | None => Ok(None),
        Some(other) => Err(format!("column `{name}`: {} instead of text", other.kind())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(name: &str, content: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        (dir, path)
    }

    #[test]
    fn row_n_is_line_n() {
        let (_dir, path) = file("a.txt", "one\n\n two \r\n");
        assert_eq!(read(&path, None).unwrap(), ["one", "", " two "]);
        assert!(read(&path, Some("x")).is_err());
        let (_dir, path) = file("a.txt", "\n\n");
        assert!(read(&path, None).unwrap_err().to_string().contains("holds no text"));
    }

    #[test]
    fn rows_of_every_format() {
        let (_dir, path) = file("a.csv", "id,passage\n1,\"x, y\"\n2,z\n");
        assert_eq!(read(&path, None).unwrap(), ["x, y", "z"]);
        assert_eq!(read(&path, Some("passage")).unwrap(), ["x, y", "z"]);
        let error = read(&path, Some("passages")).unwrap_err();
        assert!(error.to_string().contains("`passages`") && error.hint().unwrap().contains("`passage`"), "{error}");
        let (_dir, path) = file("a.jsonl", "{\"q\":\"x\",\"p\":\"a\"}\n{\"q\":\"y\",\"p\":\"b\"}\n");
        assert_eq!(read(&path, Some("q")).unwrap(), ["x", "y"]);
        assert!(read(&path, None).unwrap_err().to_string().contains("`q`, `p`"));
    }

    #[test]
    fn rows_have_names() {
        let (_dir, path) = file("a.jsonl", "{\"_id\":\"d7\",\"text\":\"x\"}\n{\"_id\":8,\"text\":\"y\"}\n");
        assert_eq!(ids(&path).unwrap(), ["d7", "8"]);
        let (_dir, path) = file("a.csv", "id,passage\n1,x\n2,z\n");
        assert_eq!(ids(&path).unwrap(), ["1", "2"]);
        let (_dir, path) = file("a.txt", "x\ny\n");
        assert!(ids(&path).unwrap().is_empty());
    }

    #[test]
    fn a_corpus_has_titles() {
        let rows = "{\"_id\":\"1\",\"title\":\"T\",\"text\":\"x\",\"metadata\":{}}\n{\"_id\":\"2\",\"title\":\"\",\"text\":\"y\"}\n{\"_id\":\"3\",\"text\":\"z\"}\n";
        let (_dir, path) = file("corpus.jsonl", rows);
        assert_eq!(read(&path, None).unwrap(), ["T x", "y", "z"]);
        assert_eq!(read(&path, Some("text")).unwrap(), ["x", "y", "z"]);
        let (_dir, path) = file("corpus.jsonl", "{\"_id\":\"1\",\"text\":\"x\"}\n{\"_id\":\"2\",\"text\":3}\n");
        let error = read(&path, None).unwrap_err().to_string();
        assert!(error.ends_with("corpus.jsonl` line 2: column `text`: a number instead of text"), "{error}");
    }
}
