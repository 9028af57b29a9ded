//! JSON Lines, and `.json` files that hold one list of objects.

use std::fs::File;
use std::io::{BufRead, BufReader};

use serde_json::Value as Json;

use super::files::DataFile;
use super::lines::{LineReader, utf8};
use super::{Cells, Names, Problem, Reason, Row, Source, Value};
use crate::error::{Error, Result};
use crate::util::files;

/// One object a line; blank lines do not count.
#[derive(Debug)]
pub struct Lines {
    lines: LineReader,
    names: Names,
}

impl Lines {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be opened or is UTF-16.
    pub fn open(file: &DataFile) -> Result<Self> {
        Ok(Self { lines: LineReader::open(file)?, names: Names::default() })
    }
}

impl Source for Lines {
    fn next_row(&mut self) -> Result<Option<Row>> {
        while let Some(line) = self.lines.next()? {
            let number = line.number;
            if !line.content.iter().all(u8::is_ascii_whitespace) {
                let cells = object(line.content, &mut self.names);
                return Ok(Some(Row { number, cells }));
            }
        }
        Ok(None)
    }
}

/// A `.json` file: a list of objects, or JSON Lines under that name.
///
/// # Errors
/// When it cannot be opened or is UTF-16.
pub fn open_json(file: &DataFile) -> Result<Box<dyn Source>> {
    // Also refuses UTF-16.
    let lines = Lines::open(file)?;
    let mut list = List::open(file)?;
    if list.enter()? { Ok(Box::new(list)) } else { Ok(Box::new(lines)) }
}

/// The elements of one list, read one at a time.
#[derive(Debug)]
struct List {
    reader: BufReader<File>,
    file: DataFile,
    names: Names,
    line: u64,
    first: bool,
    ended: bool,
}

impl List {
    fn open(file: &DataFile) -> Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 18, files::open(&file.path)?);
        let start = reader.fill_buf().map_err(Error::io("read", &file.path))?;
        let mark = if start.starts_with(&[0xEF, 0xBB, 0xBF]) { 3 } else { 0 };
        reader.consume(mark);
        Ok(Self { reader, file: file.clone(), names: Names::default(), line: 1, first: true, ended: false })
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        Ok(self.reader.fill_buf().map_err(Error::io("read", &self.file.path))?.first().copied())
    }

    fn take(&mut self, byte: u8) {
        self.reader.consume(1);
        self.line += u64::from(byte == b'\n');
    }

    fn skip_space(&mut self) -> Result<Option<u8>> {
        while let Some(byte) = self.peek()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.take(byte);
        }
        Ok(None)
    }

    /// Steps into the list; `false` when the file does not begin with one.
    fn enter(&mut self) -> Result<bool> {
        let found = self.skip_space()? == Some(b'[');
        if found {
            self.take(b'[');
        }
        Ok(found)
    }

    fn cut_off(&self) -> Error {
        Error::data(format!("`{}` ends in line {} inside its list", self.file.shown, self.line))
            .with_hint("the file was cut off: fetch or write it again")
    }

    /// The bytes of the next element and the line it begins in.
    fn element(&mut self) -> Result<Option<(u64, Vec<u8>)>> {
        match self.skip_space()?.ok_or_else(|| self.cut_off())? {
            b']' => {
                self.ended = true;
                return Ok(None);
            }
            b',' if !self.first => self.take(b','),
            _ => {}
        }
        self.first = false;
        self.skip_space()?;
        let begins = self.line;
        let mut bytes = Vec::new();
        let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
        loop {
            let byte = self.peek()?.ok_or_else(|| self.cut_off())?;
            if in_text {
                (in_text, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            } else {
                match byte {
                    b'"' => in_text = true,
                    b'{' | b'[' => depth += 1,
                    b',' | b']' if depth == 0 => return Ok(Some((begins, bytes))),
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            self.take(byte);
            bytes.push(byte);
        }
    }
}

impl Source for List {
    fn next_row(&mut self) -> Result<Option<Row>> {
        if self.ended {
            return Ok(None);
        }
        let Some((number, bytes)) = self.element()? else {
            return Ok(None);
        };
        let cells = object(&bytes, &mut self.names);
        Ok(Some(Row { number, cells }))
    }
}

/// One object's cells.
fn object(bytes: &[u8], names: &mut Names) -> Result<Cells, Problem> {
    let text = utf8(bytes)?;
    let parsed = serde_json::from_str(text).or_else(|error| {
        // Python writes NaN and Infinity, which are not JSON. The row is judged by the column they stand in.
        let repaired = quote_non_finite(text).ok_or(error)?;
        serde_json::from_str(&repaired)
    });
    match parsed {
        Ok(Json::Object(map)) => Ok(map
            .into_iter()
            .enumerate()
            .map(|(position, (name, value))| (names.get(&name, position), cell(value)))
            .collect()),
        Ok(other) => Err(Problem::row(Reason::Malformed, format!("{}, not an object", cell(other).kind()))),
        Err(error) => {
            let message = error.to_string();
            // serde's own position counts from the row's beginning, which is no help in a file.
            let message = message.split(" at line ").next().unwrap_or(&message);
            Err(Problem::row(Reason::Malformed, format!("malformed JSON (column {}): {message}", error.column())))
        }
    }
}

/// Marks a number that JSON cannot hold; no text begins like this.
const NON_FINITE: &str = "\u{0}tallow:";

fn cell(value: Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(b),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Value::Integer(i),
            None => Value::Number(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => match text.strip_prefix(NON_FINITE) {
            Some("Infinity") => Value::Number(f64::INFINITY),
            Some("-Infinity") => Value::Number(f64::NEG_INFINITY),
            Some(_) => Value::Number(f64::NAN),
            None => Value::Text(text),
        },
        Json::Array(items) => Value::list(items.into_iter().map(cell).collect()),
        Json::Object(_) => Value::Other("an object"),
    }
}

/// The text with `NaN`, `Infinity` and `-Infinity` outside strings made into marked strings; `None` without any.
fn quote_non_finite(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 32);
    let (mut in_text, mut escaped, mut found) = (false, false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if in_text {
            (in_text, escaped) = (escaped || c != '"', !escaped && c == '\\');
        } else if let Some(word) = ["NaN", "-Infinity", "Infinity"].into_iter().find(|w| rest.starts_with(w)) {
            out.push_str("\"\\u0000tallow:");
            out.push_str(word);
            out.push('"');
            rest = &rest[word.len()..];
            found = true;
            continue;
        } else {
            in_text = c == '"';
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::super::files::Format;
    use super::*;

    fn rows(name: &str, bytes: &[u8]) -> Result<Vec<Row>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let format = Format::of(&path).unwrap();
        let file = DataFile { path, shown: name.to_owned(), format };
        let mut source = super::super::open(&file, None)?;
        let mut rows = Vec::new();
        while let Some(row) = source.next_row()? {
            rows.push(row);
        }
        Ok(rows)
    }

    #[test]
    fn byte_order_mark_crlf_and_blank_lines() {
        let rows = rows("a.jsonl", b"\xEF\xBB\xBF{\"b\": \"x\", \"a\": 1}\r\n\r\n{\"a\": 2.5, \"b\": null}").unwrap();
        assert_eq!(rows.iter().map(|r| r.number).collect::<Vec<_>>(), [1, 3]);
        let first = rows[0].cells.as_ref().unwrap();
        assert_eq!(first.iter().map(|c| c.0.as_ref()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(first[1].1, Value::Integer(1));
        assert_eq!(rows[1].cells.as_ref().unwrap()[0].1, Value::Number(2.5));
    }

    #[test]
    fn every_kind_of_cell() {
        let rows =
            rows("a.jsonl", br#"{"t":["a"],"n":[1,2.5],"m":[1,"a"],"o":{"x":1},"f":true,"u":18446744073709551615}"#)
                .unwrap();
        let values: Vec<Value> = rows[0].cells.clone().unwrap().into_iter().map(|c| c.1).collect();
        assert_eq!(values[0], Value::Texts(vec!["a".into()]));
        assert_eq!(values[1], Value::Numbers(vec![1.0, 2.5]));
        assert_eq!(values[2], Value::Other("a nested or mixed list"));
        assert_eq!(values[3], Value::Other("an object"));
        assert_eq!(values[4], Value::Bool(true));
        assert_eq!(values[5], Value::Number(18446744073709551615.0));
    }

    #[test]
    fn bad_rows_do_not_end_the_file() {
        let rows = rows("a.jsonl", b"{\"a\": \"\xff\"}\n{\"a\": \n[1]\n{\"a\": \"ok NaN\"}\n").unwrap();
        let reasons: Vec<_> = rows.iter().map(|r| r.cells.as_ref().err().map(|p| p.reason)).collect();
        assert_eq!(reasons, [Some(Reason::BadUtf8), Some(Reason::Malformed), Some(Reason::Malformed), None]);
        assert_eq!(rows[2].cells.as_ref().unwrap_err().text, "a list of numbers, not an object");
    }

    #[test]
    fn pythons_nan_is_a_number_and_text_is_left_alone() {
        let rows = rows("a.jsonl", br#"{"t": "say \"NaN\" to -Infinity", "x": NaN, "y": -Infinity}"#).unwrap();
        let cells = rows[0].cells.as_ref().unwrap();
        assert_eq!(cells[0].1, Value::Text("say \"NaN\" to -Infinity".into()));
        assert!(matches!(cells[1].1, Value::Number(x) if x.is_nan()));
        assert_eq!(cells[2].1, Value::Number(f64::NEG_INFINITY));
    }

    #[test]
    fn a_list_of_objects() {
        let text = b"[\n  {\"a\": \"x, ] \\\" {\"},\n  {\"a\":\n [\"y\"]}\n, 3, {\"a\" \"z\"} ]\n";
        let read = rows("a.json", text).unwrap();
        assert_eq!(read.iter().map(|r| r.number).collect::<Vec<_>>(), [2, 3, 5, 5]);
        assert_eq!(read[0].cells.as_ref().unwrap()[0].1, Value::Text("x, ] \" {".into()));
        assert_eq!(read[1].cells.as_ref().unwrap()[0].1, Value::Texts(vec!["y".into()]));
        assert!(read[2].cells.is_err() && read[3].cells.is_err());
        assert!(rows("b.json", b"[]").unwrap().is_empty());
    }

    #[test]
    fn a_list_cut_off_and_lines_under_the_wrong_name() {
        let error = rows("a.json", b"[{\"a\": 1},\n{\"a\": ").unwrap_err();
        assert_eq!(error.to_string(), "`a.json` ends in line 2 inside its list");
        assert_eq!(rows("a.json", b"{\"a\": 1}\n{\"a\": 2}\n").unwrap().len(), 2);
    }
}
