//! Lines of a text file: byte order mark, CRLF and over-long lines dealt with, numbers kept.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use super::files::DataFile;
use super::{Problem, Reason};
use crate::error::{Error, Result};
use crate::util::files;

/// No line of a data file is this long; what is, is another kind of file.
const LONGEST: u64 = 64 << 20;

/// One line of a file.
pub(super) struct Line<'a> {
    /// From 1.
    pub number: u64,
    /// Without the line end.
    pub content: &'a [u8],
    pub end: &'static [u8],
}

/// A line reader that knows where it is.
#[derive(Debug)]
pub(super) struct LineReader {
    reader: BufReader<File>,
    file: DataFile,
    buffer: Vec<u8>,
    line: u64,
    offset: u64,
}

impl LineReader {
    pub(super) fn open(file: &DataFile) -> Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 18, files::open(&file.path)?);
        let start = reader.fill_buf().map_err(Error::io("read", &file.path))?;
        if start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
            return Err(Error::data(format!("`{}` is UTF-16 text", file.shown)).with_hint("save it as UTF-8"));
        }
        let mark = if start.starts_with(&[0xEF, 0xBB, 0xBF]) { 3 } else { 0 };
        reader.consume(mark);
        Ok(Self { reader, file: file.clone(), buffer: Vec::new(), line: 0, offset: mark as u64 })
    }

    /// Reads the next line; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Line<'_>>> {
        self.buffer.clear();
        let read = (&mut self.reader)
            .take(LONGEST)
            .read_until(b'\n', &mut self.buffer)
            .map_err(Error::io("read", &self.file.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.offset += read as u64;
        let mut content = self.buffer.as_slice();
        let mut end: &'static [u8] = b"";
        if let Some(rest) = content.strip_suffix(b"\n") {
            (content, end) = (rest, b"\n");
            if let Some(rest) = content.strip_suffix(b"\r") {
                (content, end) = (rest, b"\r\n");
            }
        } else if read as u64 == LONGEST {
            return Err(Error::data(format!("`{}` line {} is longer than 64 MiB", self.file.shown, self.line))
                .with_hint("a `.jsonl` file has one object a line, a `.csv` file one row a line"));
        }
        let number = self.line;
        Ok(Some(Line { number, content, end }))
    }

    /// Where the next line begins, to come back to with [`Self::back_to`].
    pub(super) fn mark(&self) -> (u64, u64) {
        (self.offset, self.line)
    }

    pub(super) fn back_to(&mut self, (offset, line): (u64, u64)) -> Result<()> {
        self.reader.seek(SeekFrom::Start(offset)).map_err(Error::io("read", &self.file.path))?;
        (self.offset, self.line) = (offset, line);
        Ok(())
    }
}

/// The bytes as text, or the problem.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes)
        .map_err(|e| Problem::row(Reason::BadUtf8, format!("bad UTF-8 at byte {} of the line", e.valid_up_to() + 1)))
}
