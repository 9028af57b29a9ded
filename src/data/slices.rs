//! Some of the rows of files, as a file of their own.

use std::fs;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::source::{Files, Format, Rows, Value, open, parquet};
use crate::error::{Error, Result};
use crate::util::files;

/// How many rows files have, those that cannot be used among them.
///
/// # Errors
/// When a file cannot be read.
pub fn count(files: &Files) -> Result<u64> {
    let mut count = 0;
    for file in files.iter() {
        if file.format == Format::Parquet {
            count += parquet::count(file)?;
            continue;
        }
        let mut rows = open(file, None)?;
        while rows.next_row()?.is_some() {
            count += 1;
        }
    }
    Ok(count)
}

/// Writes rows as JSON lines, part after part, each some rows of its files; the file is there whole or not at all.
///
/// # Errors
/// When a file cannot be read or written, or one of the rows is malformed.
pub fn write(parts: &[(Files, Range<u64>)], path: &Path) -> Result<()> {
    let temporary = files::temporary_name(path);
    let written =
        write_to(parts, &temporary).and_then(|()| fs::rename(&temporary, path).map_err(Error::io("rename to", path)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_to(parts: &[(Files, Range<u64>)], path: &Path) -> Result<()> {
    let failed = |e| Error::io("write", path)(e);
    let mut out = BufWriter::new(files::create(path)?);
    for (files, wanted) in parts {
        let mut rows = Rows::new(files, None);
        for at in 0..wanted.end {
            let Some((place, cells)) = rows.next_row()? else { break };
            if at < wanted.start {
                continue;
            }
            let cells = cells.map_err(|problem| {
                let file = files.get(place.file as usize).map_or("", |file| file.shown.as_str());
                Error::data(format!("`{file}` row {}: {}", place.number, problem.text))
                    .with_hint("rows are counted from the split's first, so none may be left out: take a whole split")
            })?;
            let row: Map<String, Json> =
                cells.into_iter().map(|(name, value)| (name.to_string(), json_of(value))).collect();
            serde_json::to_writer(&mut out, &row).map_err(|e| failed(e.into()))?;
            out.write_all(b"\n").map_err(failed)?;
        }
    }
    out.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)
}

/// As it will be read again.
fn json_of(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(yes) => yes.into(),
        Value::Integer(number) => number.into(),
        Value::Number(number) => number.into(),
        Value::Text(text) => text.into(),
        Value::Numbers(numbers) => numbers.into(),
        Value::Texts(texts) => texts.into(),
        // what no column can be used for stays that
        Value::Other(_) => json!({}),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_are_those_of_their_numbers_across_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name).display().to_string()
        };
        let first = file("a.jsonl", "{\"t\":\"0\",\"n\":1}\n{\"t\":\"1\",\"n\":1.5,\"x\":{}}\n");
        let second = file("b.csv", "t,n\n2,7\n3,8\n");
        let files = || Files::resolve(&[first.clone(), second.clone()], Path::new("")).unwrap();
        assert_eq!(count(&files()).unwrap(), 4);
        let out = dir.path().join("out.jsonl");
        write(&[(files(), 1..3), (files(), 0..1)], &out).unwrap();
        let rows: Vec<Json> =
            fs::read_to_string(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let texts: Vec<&str> = rows.iter().map(|row| row["t"].as_str().unwrap()).collect();
        assert_eq!(texts, ["1", "2", "0"]);
        assert_eq!(rows[0], json!({"t": "1", "n": 1.5, "x": {}}));
        let bad = file("c.jsonl", "{\"t\":\"0\"}\nnonsense\n");
        let bad = Files::resolve(&[bad], Path::new("")).unwrap();
        let error = write(&[(bad, 0..2)], &out).unwrap_err();
        assert!(error.to_string().contains("c.jsonl` row 2"), "{error}");
        assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 3);
    }
}
