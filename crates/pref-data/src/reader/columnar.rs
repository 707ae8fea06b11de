//! Parquet and Arrow IPC, a few rows at a time.

use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchReader};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, FieldRef, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use serde_json::Value;

use super::arrow_lengths;
use super::fields::Row;
use super::parquet_lengths;
use super::rows::{Rows, Wanted};
use super::text_file::open_table;
use crate::error::DataError;
use crate::place::{Place, Unit};

/// Rows that are decoded at a time: few, since a row may hold megabytes.
const ROWS: usize = 256;

/// The first bytes of an Arrow file with an index at its end. A stream begins with its first message.
const ARROW_FILE: [u8; 6] = *b"ARROW1";

/// Hands each row of a parquet file to `rows`. Columns that are not wanted are not decoded.
pub(super) fn read_parquet(path: &Path, wanted: &Wanted<'_>, rows: &mut dyn Rows) -> Result<(), DataError> {
    let failed = |source| DataError::Parquet { path: path.to_owned(), source };
    let mut file = open_table(path)?;
    let mut table = Table { path: path.into(), read: 0 };
    let damaged = |source: ParquetError| DataError::BrokenRow { place: table.next(), source: source.into() };
    let checked = guarded(|| Ok(parquet_lengths::check_footer(&mut file)?));
    checked.map_err(|error| damaged(parquet_error(error)))?;
    let mut pages =
        file.try_clone().map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })?;
    let builder = guarded(|| Ok(ParquetRecordBatchReaderBuilder::try_new(file)?));
    let builder = builder.map_err(|error| failed(parquet_error(error)))?;
    let checked = guarded(|| Ok(parquet_lengths::check_pages(&mut pages, builder.metadata())?));
    checked.map_err(|error| damaged(parquet_error(error)))?;
    rows.columns(&names(builder.schema()))?;
    let leaves = builder.parquet_schema().columns().iter().enumerate();
    let leaves = leaves.filter(|(_, leaf)| wanted.leaf(leaf.path().parts())).map(|(index, _)| index);
    let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves);
    let reader = guarded(|| Ok(builder.with_projection(mask).with_batch_size(ROWS).build()?));
    let mut reader = reader.map_err(|error| failed(parquet_error(error)))?;
    while let Some(batch) =
        guarded(|| reader.next().transpose()).map_err(|error| match parquet_error(error) {
            // The file is not damaged, but compressed in a way that is not supported here.
            source if source.to_string().contains("Disabled feature") => failed(source),
            source => DataError::BrokenRow { place: table.next(), source: source.into() },
        })?
    {
        table.hand_on(&batch, wanted, rows)?;
    }
    Ok(())
}

/// Hands each row of an Arrow IPC file or stream to `rows`.
pub(super) fn read_arrow(path: &Path, wanted: &Wanted<'_>, rows: &mut dyn Rows) -> Result<(), DataError> {
    let failed = |source| DataError::Arrow { path: path.to_owned(), source };
    let mut file = open_table(path)?;
    let mut magic = [0; ARROW_FILE.len()];
    let is_file = file.read_exact(&mut magic).is_ok() && magic == ARROW_FILE;
    if is_file { arrow_lengths::check_file(&mut file) } else { arrow_lengths::check_stream(&mut file) }
        .map_err(failed)?;
    file.rewind().map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })?;
    let mut batches = guarded(|| {
        let batches: Box<dyn RecordBatchReader> = if is_file {
            Box::new(FileReader::try_new_buffered(file, None)?)
        } else {
            Box::new(StreamReader::try_new_buffered(file, None)?)
        };
        Ok(batches)
    })
    .map_err(failed)?;
    rows.columns(&names(&batches.schema()))?;
    let mut table = Table { path: path.into(), read: 0 };
    while let Some(batch) = guarded(|| batches.next().transpose())
        .map_err(|source| DataError::BrokenRow { place: table.next(), source: source.into() })?
    {
        table.hand_on(&batch, wanted, rows)?;
    }
    Ok(())
}

/// Hands each row of record batches to `rows`.
pub(super) fn read_batches(
    path: &Path,
    batches: &[RecordBatch],
    wanted: &Wanted<'_>,
    rows: &mut dyn Rows,
) -> Result<(), DataError> {
    let Some(first) = batches.first() else { return Ok(()) };
    rows.columns(&names(&first.schema()))?;
    let mut table = Table { path: path.into(), read: 0 };
    batches.iter().try_for_each(|batch| table.hand_on(batch, wanted, rows))
}

fn names(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

/// Calls `read`, and turns a panic into an error: the readers of Arrow and parquet panic on some damaged files.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    // The reader is dropped after an error, with any state that the panic left inconsistent.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let said =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(ArrowError::ParseError(said.unwrap_or("it is damaged").to_owned()))
    })
}

/// Counts the rows of a file.
struct Table {
    path: Arc<Path>,
    read: usize,
}

impl Table {
    /// Returns the place of the next row.
    fn next(&self) -> Place {
        Place { path: Arc::clone(&self.path), unit: Unit::Row, number: self.read + 1 }
    }

    fn hand_on(
        &mut self,
        batch: &RecordBatch,
        wanted: &Wanted<'_>,
        rows: &mut dyn Rows,
    ) -> Result<(), DataError> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns: Vec<(&FieldRef, &ArrayRef)> =
            columns.filter(|(field, _)| wanted.column(field.name())).collect();
        for row in 0..batch.num_rows() {
            let place = self.next();
            self.read += 1;
            rows.row(&place, Ok(read_row(&place.path, &columns, row)?))?;
        }
        Ok(())
    }
}

/// Columns that a record does without.
const OPTIONAL: [&str; 2] = ["id", "domain"];

fn parquet_error(error: ArrowError) -> ParquetError {
    match error {
        ArrowError::ParquetError(message) => ParquetError::General(message),
        other => ParquetError::External(Box::new(other)),
    }
}

fn read_row(path: &Path, columns: &[(&FieldRef, &ArrayRef)], row: usize) -> Result<Row, DataError> {
    let values = columns.iter().map(|(field, column)| {
        let value = match cell(column, row) {
            // Labels of another type do not refuse a row.
            None if OPTIONAL.contains(&field.name().as_str()) => Value::Null,
            value => value.ok_or_else(|| DataError::ColumnType {
                path: path.to_owned(),
                column: field.name().clone(),
                found: field.data_type().to_string(),
            })?,
        };
        Ok((field.name().clone(), value))
    });
    values.collect()
}

/// Returns a cell as JSON, or `None` for a type other than text, number, boolean, list or struct. NaN becomes null.
fn cell(column: &ArrayRef, row: usize) -> Option<Value> {
    if column.is_null(row) {
        return Some(Value::Null);
    }
    Some(match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Float32 => f64::from(column.as_primitive::<Float32Type>().value(row)).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::List(_) => list(&column.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(row))?,
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(column.as_struct().columns());
            let cells = columns.map(|(field, column)| Some((field.name().clone(), cell(column, row)?)));
            Value::Object(cells.collect::<Option<_>>()?)
        }
        // Pandas writes categories so.
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary_opt()?;
            let keys: ArrayRef = dictionary.keys().slice(row, 1);
            let key = usize::try_from(cell(&keys, 0)?.as_i64()?).ok()?;
            (key < dictionary.values().len()).then(|| cell(dictionary.values(), key))??
        }
        _ => return None,
    })
}

fn list(items: &ArrayRef) -> Option<Value> {
    (0..items.len()).map(|index| cell(items, index)).collect::<Option<Vec<_>>>().map(Value::Array)
}
