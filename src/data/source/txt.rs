//! Plain text: one text a line, in a column called `text`.

use std::sync::Arc;

use super::files::DataFile;
use super::lines::{LineReader, utf8};
use super::{Row, Source, Value};
use crate::error::Result;

/// The column's name.
const COLUMN: &str = "text";

/// A text a line; blank lines do not count.
#[derive(Debug)]
pub struct Texts {
    lines: LineReader,
    name: Arc<str>,
}

impl Texts {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be opened or is UTF-16.
    pub fn open(file: &DataFile) -> Result<Self> {
        Ok(Self { lines: LineReader::open(file)?, name: Arc::from(COLUMN) })
    }
}

impl Source for Texts {
    fn next_row(&mut self) -> Result<Option<Row>> {
        while let Some(line) = self.lines.next()? {
            if !line.content.iter().all(u8::is_ascii_whitespace) {
                let cells = utf8(line.content).map(|text| vec![(Arc::clone(&self.name), Value::Text(text.to_owned()))]);
                return Ok(Some(Row { number: line.number, cells }));
            }
        }
        Ok(None)
    }
}
