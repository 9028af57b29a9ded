//! CSV and TSV with a header line (RFC 4180; a quote counts only at a field's beginning, as in Python's `csv`).
//!
//! The reader is our own because messages need the line a row really begins in, and because one stray quote must
//! cost one row, not the rest of the file.

use std::sync::Arc;

use super::files::DataFile;
use super::lines::{Line, LineReader, utf8};
use super::{Cells, Problem, Reason, Row, Source, Value};
use crate::error::{Error, Result};

/// A quoted field that goes on for longer than this was never closed.
const LONGEST_ROW: usize = 4 << 20;

/// Rows of fields between delimiters; blank lines do not count.
#[derive(Debug)]
pub struct Delimited {
    lines: LineReader,
    delimiter: u8,
    names: Vec<Arc<str>>,
}

enum Record {
    Fields(Vec<Vec<u8>>),
    Unclosed,
}

impl Delimited {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When it cannot be opened, is empty, or its header cannot be used.
    pub fn open(file: &DataFile, delimiter: u8) -> Result<Self> {
        let mut source = Self { lines: LineReader::open(file)?, delimiter, names: Vec::new() };
        let bad = |what: &str| Error::data(format!("the header of `{}` {what}", file.shown));
        let Some((_, record)) = source.record()? else {
            return Err(Error::data(format!("`{}` is empty", file.shown))
                .with_hint("the first line has to be a header with the column names"));
        };
        let Record::Fields(fields) = record else {
            return Err(bad("has a quote that is never closed"));
        };
        for field in fields {
            let name = utf8(&field).map_err(|_| bad("is not UTF-8"))?.trim();
            if !name.is_empty() && source.names.iter().any(|n| n.as_ref() == name) {
                return Err(bad(&format!("names the column `{name}` twice")));
            }
            source.names.push(Arc::from(name));
        }
        Ok(source)
    }

    /// The next record and the line it begins in.
    fn record(&mut self) -> Result<Option<(u64, Record)>> {
        #[derive(PartialEq)]
        enum At {
            Start,
            Plain,
            Quoted,
            Closed,
        }
        let (mut begins, mut mark) = (None, (0, 0));
        let (mut fields, mut field, mut at, mut size) = (Vec::new(), Vec::new(), At::Start, 0);
        loop {
            let Some(Line { number, content, end }) = self.lines.next()? else {
                let Some(begins) = begins else {
                    return Ok(None);
                };
                // Only an open quote carries a row over a line's end.
                self.lines.back_to(mark)?;
                return Ok(Some((begins, Record::Unclosed)));
            };
            if begins.is_none() && content.is_empty() {
                continue;
            }
            size += content.len() + end.len();
            for &byte in content {
                at = match at {
                    At::Start if byte == b'"' => At::Quoted,
                    At::Quoted if byte == b'"' => At::Closed,
                    At::Quoted => {
                        field.push(byte);
                        At::Quoted
                    }
                    At::Closed if byte == b'"' => {
                        field.push(byte);
                        At::Quoted
                    }
                    _ if byte == self.delimiter => {
                        fields.push(std::mem::take(&mut field));
                        At::Start
                    }
                    _ => {
                        field.push(byte);
                        At::Plain
                    }
                };
            }
            if at != At::Quoted {
                fields.push(field);
                return Ok(Some((begins.unwrap_or(number), Record::Fields(fields))));
            }
            field.extend_from_slice(end);
            if begins.is_none() {
                begins = Some(number);
                mark = self.lines.mark();
            }
            if size > LONGEST_ROW {
                self.lines.back_to(mark)?;
                return Ok(Some((begins.unwrap_or(number), Record::Unclosed)));
            }
        }
    }

    fn cells(&self, record: Record) -> Result<Cells, Problem> {
        let Record::Fields(fields) = record else {
            return Err(Problem::row(Reason::Malformed, "a quote is opened here and never closed"));
        };
        if fields.len() != self.names.len() {
            let (has, wants) = (fields.len(), self.names.len());
            return Err(Problem::row(Reason::Malformed, format!("{has} fields where the header has {wants}")));
        }
        self.names
            .iter()
            .zip(fields)
            .map(|(name, field)| match String::from_utf8(field) {
                Ok(text) => Ok((Arc::clone(name), Value::Text(text))),
                Err(_) => Err(Problem::cell(Reason::BadUtf8, name, "bad UTF-8")),
            })
            .collect()
    }
}

impl Source for Delimited {
    fn next_row(&mut self) -> Result<Option<Row>> {
        Ok(self.record()?.map(|(number, record)| Row { number, cells: self.cells(record) }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::super::files::Format;
    use super::*;

    type Read = (u64, Result<Vec<String>, Reason>);

    fn rows(delimiter: u8, bytes: &[u8]) -> Result<Vec<Read>> {
        let dir = tempfile::tempdir().unwrap();
        let file = DataFile { path: dir.path().join("a.csv"), shown: "a.csv".to_owned(), format: Format::Csv };
        std::fs::write(&file.path, bytes).unwrap();
        let mut source = Delimited::open(&file, delimiter)?;
        let mut rows = Vec::new();
        while let Some(row) = source.next_row()? {
            let texts = row.cells.map_err(|p| p.reason).map(|cells| {
                cells
                    .into_iter()
                    .map(|(_, v)| match v {
                        Value::Text(t) => t,
                        other => panic!("{other:?}"),
                    })
                    .collect()
            });
            rows.push((row.number, texts));
        }
        Ok(rows)
    }

    fn ok(number: u64, fields: &[&str]) -> Read {
        (number, Ok(fields.iter().map(|f| (*f).to_owned()).collect()))
    }

    #[test]
    fn quotes_line_ends_and_line_numbers() {
        let read =
            rows(b',', b"\xEF\xBB\xBFa, b\r\n1,\"x, \"\"y\"\"\"\r\n\r\n\"two\r\nlines\",5\" disk\n,last").unwrap();
        assert_eq!(read, [ok(2, &["1", "x, \"y\""]), ok(4, &["two\r\nlines", "5\" disk"]), ok(6, &["", "last"])]);
    }

    #[test]
    fn tabs() {
        assert_eq!(rows(b'\t', b"a\tb\nx, y\tz\n").unwrap(), [ok(2, &["x, y", "z"])]);
    }

    #[test]
    fn bad_rows_do_not_end_the_file() {
        let read = rows(b',', b"a,b\n1\n\xff,2\n\"open,3\nx,4\ny,5\n").unwrap();
        assert_eq!(
            read,
            [
                (2, Err(Reason::Malformed)),
                (3, Err(Reason::BadUtf8)),
                (4, Err(Reason::Malformed)),
                ok(5, &["x", "4"]),
                ok(6, &["y", "5"])
            ]
        );
    }

    #[test]
    fn headers_that_cannot_be_used() {
        assert_eq!(rows(b',', b"").unwrap_err().to_string(), "`a.csv` is empty");
        assert!(rows(b',', b"a,a\n").unwrap_err().to_string().contains("names the column `a` twice"));
        assert!(rows(b',', b"\xff,a\n").unwrap_err().to_string().contains("not UTF-8"));
    }
}
