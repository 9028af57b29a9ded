//! Arrow arrays as cells, for the two binary formats.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, Schema};

use super::files::DataFile;
use super::guard::guard;
use super::{Row, Source, Value};
use crate::error::Result;

/// The numbers of the schema's columns that are wanted; all of them without a wish.
pub(super) fn projection(schema: &Schema, wanted: Option<&[String]>) -> Vec<usize> {
    let fields = schema.fields().iter().enumerate();
    fields.filter(|(_, f)| wanted.is_none_or(|w| w.iter().any(|n| n == f.name()))).map(|(i, _)| i).collect()
}

/// Rows out of record batches.
pub(super) struct Batches {
    reader: Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>,
    file: DataFile,
    names: Vec<Arc<str>>,
    columns: Vec<std::vec::IntoIter<Value>>,
    left: usize,
    number: u64,
}

impl Batches {
    pub(super) fn new(
        reader: impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send + 'static,
        file: &DataFile,
    ) -> Self {
        Self {
            reader: Box::new(reader),
            file: file.clone(),
            names: Vec::new(),
            columns: Vec::new(),
            left: 0,
            number: 0,
        }
    }
}

impl Source for Batches {
    fn next_row(&mut self) -> Result<Option<Row>> {
        while self.left == 0 {
            let reader = &mut self.reader;
            let batch = guard(&self.file, || match reader.next() {
                None => Ok(None),
                Some(Err(error)) => Err(error),
                Some(Ok(batch)) => {
                    let names: Vec<Arc<str>> =
                        batch.schema().fields().iter().map(|f| Arc::from(f.name().as_str())).collect();
                    let columns = batch.columns().iter().map(|c| values(c.as_ref()).into_iter()).collect();
                    Ok(Some((batch.num_rows(), names, columns)))
                }
            });
            let Some((rows, names, columns)) = batch? else {
                return Ok(None);
            };
            (self.left, self.names, self.columns) = (rows, names, columns);
        }
        self.left -= 1;
        self.number += 1;
        let cells = self.names.iter().zip(&mut self.columns);
        let cells = cells.map(|(name, column)| (Arc::clone(name), column.next().unwrap_or(Value::Null))).collect();
        Ok(Some(Row { number: self.number, cells: Ok(cells) }))
    }
}

macro_rules! primitives {
    ($array:expr, $kind:ty, $make:expr) => {
        $array.as_primitive::<$kind>().iter().map(|x| x.map_or(Value::Null, $make)).collect()
    };
}

/// Every cell of a column.
fn values(array: &dyn Array) -> Vec<Value> {
    let text = |t: Option<&str>| t.map_or(Value::Null, |t| Value::Text(t.to_owned()));
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(text).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(text).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(text).collect(),
        DataType::Boolean => array.as_boolean().iter().map(|x| x.map_or(Value::Null, Value::Bool)).collect(),
        DataType::Int8 => primitives!(array, Int8Type, |x| Value::Integer(x.into())),
        DataType::Int16 => primitives!(array, Int16Type, |x| Value::Integer(x.into())),
        DataType::Int32 => primitives!(array, Int32Type, |x| Value::Integer(x.into())),
        DataType::Int64 => primitives!(array, Int64Type, Value::Integer),
        DataType::UInt8 => primitives!(array, UInt8Type, |x| Value::Integer(x.into())),
        DataType::UInt16 => primitives!(array, UInt16Type, |x| Value::Integer(x.into())),
        DataType::UInt32 => primitives!(array, UInt32Type, |x| Value::Integer(x.into())),
        DataType::UInt64 => {
            primitives!(array, UInt64Type, |x| i64::try_from(x).map_or(Value::Number(x as f64), Value::Integer))
        }
        DataType::Float16 => primitives!(array, Float16Type, |x| Value::Number(x.to_f64())),
        DataType::Float32 => primitives!(array, Float32Type, |x| Value::Number(x.into())),
        DataType::Float64 => primitives!(array, Float64Type, Value::Number),
        DataType::Null => vec![Value::Null; array.len()],
        DataType::List(_) => array.as_list::<i32>().iter().map(list).collect(),
        DataType::LargeList(_) => array.as_list::<i64>().iter().map(list).collect(),
        DataType::FixedSizeList(..) => array.as_fixed_size_list().iter().map(list).collect(),
        DataType::Dictionary(..) => dictionary(array),
        DataType::Struct(_) | DataType::Map(..) => vec![Value::Other("an object"); array.len()],
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => vec![Value::Other("bytes"); array.len()],
        _ => vec![Value::Other("a value of another type"); array.len()],
    }
}

fn list(items: Option<arrow_array::ArrayRef>) -> Value {
    items.map_or(Value::Null, |items| Value::list(values(items.as_ref())))
}

fn dictionary(array: &dyn Array) -> Vec<Value> {
    let Some(dictionary) = array.as_any_dictionary_opt().filter(|d| !d.values().is_empty()) else {
        return vec![Value::Null; array.len()];
    };
    let known = values(dictionary.values().as_ref());
    let keys = dictionary.normalized_keys();
    let cell = |(i, key): (usize, &usize)| match known.get(*key) {
        Some(value) if array.is_valid(i) => value.clone(),
        _ => Value::Null,
    };
    keys.iter().enumerate().map(cell).collect()
}
