//! Parquet, read a few thousand rows at a time.

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Source;
use super::array::{Batches, projection};
use super::files::DataFile;
use super::guard::guard;
use crate::error::Result;
use crate::util::files;

/// Rows decoded at once.
const BATCH: usize = 1024;

/// How many rows a file says it has.
///
/// # Errors
/// When it cannot be opened or is not Parquet.
pub fn count(file: &DataFile) -> Result<u64> {
    let opened = files::open(&file.path)?;
    let rows = guard(file, || {
        ParquetRecordBatchReaderBuilder::try_new(opened).map(|b| b.metadata().file_metadata().num_rows())
    })?;
    Ok(u64::try_from(rows).unwrap_or_default())
}

/// Opens a file; only the `wanted` columns are decoded.
///
/// # Errors
/// When it cannot be opened or is not Parquet.
pub fn open(file: &DataFile, wanted: Option<&[String]>) -> Result<impl Source + use<>> {
    let opened = files::open(&file.path)?;
    let reader = guard(file, || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(opened)?;
        let columns = projection(builder.schema(), wanted);
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
        builder.with_batch_size(BATCH).with_projection(mask).build()
    })?;
    Ok(Batches::new(reader, file))
}
