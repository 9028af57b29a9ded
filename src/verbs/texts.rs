//! Texts from a file: one a line, or a column of JSON lines.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::util::{files, suggest};

/// Columns taken when none is named, if the file has one of them.
const USUAL: [&str; 5] = ["text", "sentence", "passage", "document", "question"];

/// All texts of a file, in order: `.jsonl` by column, anything else one text a line.
///
/// In a corpus in the BEIR layout (`title` and `text`) a text is its title, a space and its text, trimmed.
///
/// # Errors
/// When a line has no such column, or a file of lines is asked for a column; file and line are named.
pub(super) fn read(path: &Path, column: Option<&str>) -> Result<Vec<String>> {
    let content = files::read_text(path)?;
    let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let texts: Vec<String> = if is_json_lines(path) {
        lines.map(|(number, line)| from_json(path, number + 1, line, column)).collect::<Result<_>>()?
    } else if let Some(column) = column {
        return Err(Error::usage(format!("`{}` has no columns, so no `{column}`", path.display()))
            .with_hint("columns are read from `.jsonl` files; leave `--column` out for one text a line"));
    } else {
        lines.map(|(_, line)| line.trim().to_owned()).collect()
    };
    if texts.is_empty() {
        return Err(Error::data(format!("`{}` holds no text", path.display())));
    }
    Ok(texts)
}

fn is_json_lines(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("jsonl") || e.eq_ignore_ascii_case("json"))
}

fn from_json(path: &Path, number: usize, line: &str, column: Option<&str>) -> Result<String> {
    let place = || format!("`{}` line {number}", path.display());
    match serde_json::from_str::<Value>(line) {
        Ok(Value::String(text)) if column.is_none() => Ok(text),
        Ok(Value::Object(row)) => from_row(&row, column).map_err(|e| e.within(place())),
        Ok(_) => Err(Error::data(format!("{}: expected an object", place()))
            .with_hint("each line of a `.jsonl` file is one object, as {\"text\": \"...\"}")),
        Err(e) => Err(Error::data(format!("{}: not JSON: {e}", place()))),
    }
}

fn from_row(row: &Map<String, Value>, column: Option<&str>) -> Result<String> {
    let text_columns: Vec<&str> = row.iter().filter(|(_, v)| v.is_string()).map(|(k, _)| k.as_str()).collect();
    let chosen = match column {
        Some(column) => column,
        None => match (USUAL.iter().find(|u| text_columns.contains(u)), text_columns.as_slice()) {
            (Some(usual), _) => usual,
            (None, [only]) => only,
            (None, _) => {
                return Err(Error::usage("cannot tell which column holds the text").with_hint(
                    if text_columns.is_empty() {
                        "no column holds text".to_owned()
                    } else {
                        format!("name it with `--column`: one of {}", listed(&text_columns))
                    },
                ));
            }
        },
    };
    match row.get(chosen) {
        Some(Value::String(text)) => {
            let title = row.get("title").and_then(Value::as_str).filter(|_| column.is_none() && chosen == "text");
            Ok(title.map_or_else(|| text.clone(), |title| format!("{title} {text}").trim().to_owned()))
        }
        Some(_) => Err(Error::data(format!("column `{chosen}` is not text"))
            .with_hint(format!("columns with text here: {}", listed(&text_columns)))),
        None => Err(Error::data(format!("no column `{chosen}`"))
            .with_hint(suggest::hint(chosen, row.keys().map(String::as_str)))),
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
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
    fn lines_and_columns() {
        let (_dir, path) = file("a.txt", "one\n\n two \n");
        assert_eq!(read(&path, None).unwrap(), ["one", "two"]);
        assert!(read(&path, Some("x")).unwrap_err().hint().unwrap().contains(".jsonl"));
        let (_dir, path) = file("a.jsonl", "{\"id\":\"1\",\"q\":\"x\"}\n{\"id\":\"2\",\"q\":\"y\"}\n");
        assert_eq!(read(&path, Some("q")).unwrap(), ["x", "y"]);
        assert!(read(&path, None).unwrap_err().hint().unwrap().contains("`q`"));
        let (_dir, path) =
            file("corpus.jsonl", "{\"_id\":\"1\",\"title\":\"T\",\"text\":\"x\"}\n{\"title\":\"\",\"text\":\"y\"}");
        assert_eq!(read(&path, None).unwrap(), ["T x", "y"]);
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let (_dir, path) = file("a.jsonl", "{\"text\":\"x\"}\n{\"texts\":\"y\", \"n\": 1}\n");
        let error = read(&path, Some("text")).unwrap_err();
        assert!(error.to_string().contains("a.jsonl` line 2: no column `text`"), "{error}");
        assert_eq!(error.hint(), Some("did you mean `texts`?"));
        let (_dir, path) = file("a.jsonl", "{\"text\":");
        assert!(read(&path, None).unwrap_err().to_string().contains("line 1: not JSON"));
        let (_dir, path) = file("a.txt", "\n");
        assert!(read(&path, None).unwrap_err().to_string().contains("no text"));
    }
}
