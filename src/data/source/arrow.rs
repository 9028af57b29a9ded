//! Arrow IPC: the file format (Feather 2) and the stream format (what `datasets` saves), told apart by the first bytes.

use std::io::{Read, Seek, SeekFrom};

use arrow_ipc::reader::{FileReader, StreamReader};

use super::Source;
use super::array::{Batches, projection};
use super::files::DataFile;
use super::guard::guard;
use crate::error::{Error, Result};
use crate::util::files;

/// Opens a file; only the `wanted` columns are decoded.
///
/// # Errors
/// When it cannot be opened, or is neither of the two formats.
pub fn open(file: &DataFile, wanted: Option<&[String]>) -> Result<impl Source + use<>> {
    let mut opened = files::open(&file.path)?;
    let mut start = Vec::new();
    (&mut opened).take(6).read_to_end(&mut start).map_err(Error::io("read", &file.path))?;
    opened.seek(SeekFrom::Start(0)).map_err(Error::io("read", &file.path))?;
    if start.starts_with(b"FEA1") {
        return Err(Error::data(format!("`{}` is in the old Feather format", file.shown))
            .with_hint("write it again with a current library (Feather 2 is Arrow IPC), or as Parquet"));
    }
    // The columns are known only once a reader is there, and a reader takes its projection when it is made.
    let again = files::open(&file.path)?;
    if start == b"ARROW1" {
        let reader = guard(file, || {
            let columns = projection(&FileReader::try_new_buffered(opened, None)?.schema(), wanted);
            FileReader::try_new_buffered(again, Some(columns))
        })?;
        return Ok(Batches::new(reader, file));
    }
    let reader = guard(file, || {
        let columns = projection(&StreamReader::try_new_buffered(opened, None)?.schema(), wanted);
        StreamReader::try_new_buffered(again, Some(columns))
    })?;
    Ok(Batches::new(reader, file))
}
