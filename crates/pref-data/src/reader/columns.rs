//! Parquet, read through arrow.

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use serde_json::Value;

use super::fields::Row;
use super::{Each, open};
use crate::error::{DataError, Place, Unit};

/// Hands each row to `each`; of columns other than `columns` nothing is even decoded.
pub(super) fn read(path: &Path, columns: &[&str], each: &mut Each<'_>) -> Result<(), DataError> {
    let failed = |source| DataError::Parquet { path: path.to_owned(), source };
    let builder = ParquetRecordBatchReaderBuilder::try_new(open(path)?).map_err(failed)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let reader = builder.with_projection(mask).build().map_err(failed)?;
    let mut number = 0;
    for batch in reader {
        let batch = batch.map_err(|error| match parquet_error(error) {
            // Whole, but in a way that is not unpacked here.
            source if source.to_string().contains("Disabled feature") => failed(source),
            source => {
                let place = Place { path: path.to_owned(), unit: Unit::Row, number: number + 1 };
                DataError::BrokenRow { place, source }
            }
        })?;
        for row in 0..batch.num_rows() {
            number += 1;
            let place = Place { path: path.to_owned(), unit: Unit::Row, number };
            each(&place, Ok(read_row(path, &batch, row)?))?;
        }
    }
    Ok(())
}

fn parquet_error(error: ArrowError) -> ParquetError {
    match error {
        ArrowError::ParquetError(message) => ParquetError::General(message),
        other => ParquetError::External(Box::new(other)),
    }
}

fn read_row(path: &Path, batch: &RecordBatch, row: usize) -> Result<Row, DataError> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let values = columns.map(|(field, column)| {
        let value = cell(column, row).ok_or_else(|| DataError::ColumnType {
            path: path.to_owned(),
            column: field.name().clone(),
            found: field.data_type().to_string(),
        })?;
        Ok((field.name().clone(), value))
    });
    values.collect()
}

/// A cell as JSON, or `None` for a type that is neither text, number, boolean, list nor struct. NaN becomes null.
fn cell(column: &ArrayRef, row: usize) -> Option<Value> {
    if column.is_null(row) {
        return Some(Value::Null);
    }
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Float32 => f64::from(column.as_primitive::<Float32Type>().value(row)).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::List(_) => list(&column.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(row))?,
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(column.as_struct().columns());
            let cells = columns.map(|(field, column)| Some((field.name().clone(), cell(column, row)?)));
            Value::Object(cells.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn list(items: &ArrayRef) -> Option<Value> {
    (0..items.len()).map(|index| cell(items, index)).collect::<Option<Vec<_>>>().map(Value::Array)
}
