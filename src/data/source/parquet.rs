//! Parquet, read a few thousand rows at a time.

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Source;
use super::array::{Batches, broken, projection};
use super::files::DataFile;
use crate::error::Result;
use crate::util::files;

/// Rows decoded at once.
const BATCH: usize = 1024;

/// Opens a file; only the `wanted` columns are decoded.
///
/// # Errors
/// When it cannot be opened or is not Parquet.
pub fn open(file: &DataFile, wanted: Option<&[String]>) -> Result<impl Source + use<>> {
    let opened = files::open(&file.path)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(|e| broken(file, &e))?;
    let columns = projection(builder.schema(), wanted);
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
    let reader = builder.with_batch_size(BATCH).with_projection(mask).build().map_err(|e| broken(file, &e))?;
    Ok(Batches::new(reader, file))
}
