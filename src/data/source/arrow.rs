//! Arrow IPC: the file format (Feather 2) and the stream format (what `datasets` saves), told apart by the first bytes.

use std::io::{Read, Seek, SeekFrom};

use arrow_ipc::reader::{FileReader, StreamReader};

use super::Source;
use super::array::{Batches, broken, projection};
use super::files::DataFile;
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
    if start == b"ARROW1" {
        let all = FileReader::try_new_buffered(opened, None).map_err(|e| broken(file, &e))?;
        let columns = projection(&all.schema(), wanted);
        drop(all);
        let reader = FileReader::try_new_buffered(files::open(&file.path)?, Some(columns));
        return Ok(Batches::new(reader.map_err(|e| broken(file, &e))?, file));
    }
    let all = StreamReader::try_new_buffered(opened, None).map_err(|e| broken(file, &e))?;
    let columns = projection(&all.schema(), wanted);
    drop(all);
    let reader = StreamReader::try_new_buffered(files::open(&file.path)?, Some(columns));
    Ok(Batches::new(reader.map_err(|e| broken(file, &e))?, file))
}
