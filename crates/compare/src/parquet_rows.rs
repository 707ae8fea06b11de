//! Rows of parquet files.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde_json::{Number, Value};

use crate::Error;
use crate::place::{NOT_FINITE, Place, Row};

/// Calls `visit` with each row of a parquet file, in order. Values of other types than text, number and truth are null.
pub(crate) fn for_each(
    path: &Path,
    file: File,
    visit: &mut dyn FnMut(Place, Row) -> Result<(), Error>,
) -> Result<(), Error> {
    let damaged = |source| Error::Parquet { path: path.to_owned(), source };
    // The Arrow schema that a writer may add would give categories another type than text.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .and_then(|builder| builder.with_batch_size(8192).build())
        .map_err(damaged)?;
    let mut row = 0;
    for batch in reader {
        let batch = batch.map_err(|source| damaged(source.into()))?;
        let schema = batch.schema();
        for at in 0..batch.num_rows() {
            row += 1;
            let cells = schema
                .fields()
                .iter()
                .enumerate()
                .map(|(column, field)| (field.name().clone(), value(&batch, column, at)));
            visit(Place::Row(row), cells.collect())?;
        }
    }
    Ok(())
}

fn value(batch: &RecordBatch, column: usize, at: usize) -> Value {
    let array: &dyn Array = batch.column(column).as_ref();
    if array.is_null(at) {
        return Value::Null;
    }
    macro_rules! number {
        ($kind:ty) => {
            Value::from(array.as_primitive::<$kind>().value(at))
        };
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(at).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(at).into(),
        DataType::Boolean => array.as_boolean().value(at).into(),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(at).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(at)),
        _ => Value::Null,
    }
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| NOT_FINITE.into(), Value::Number)
}
