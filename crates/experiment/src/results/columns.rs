//! Rows as a parquet file: names and values of columns.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt8Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use files::AtomicWriteFile;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::ResultsError;

/// Rows per record batch, which bounds the memory of the conversion.
pub(super) const BATCH_ROWS: usize = 64 * 1024;

/// A column of rows `R`.
pub(super) struct Column<R> {
    pub(super) name: &'static str,
    pub(super) get: Get<R>,
}

/// Returns a row's value in a column.
pub(super) enum Get<R> {
    Text(fn(&R) -> &String),
    Float(fn(&R) -> f64),
    FloatOrNull(fn(&R) -> Option<f64>),
    Whole(fn(&R) -> u64),
    WholeOrNull(fn(&R) -> Option<u64>),
    Small(fn(&R) -> u8),
}

impl<R> Column<R> {
    pub(super) fn new(name: &'static str, get: Get<R>) -> Self {
        Self { name, get }
    }

    fn field(&self) -> Field {
        let (kind, is_nullable) = match self.get {
            Get::Text(_) => (DataType::Utf8, false),
            Get::Float(_) => (DataType::Float64, false),
            Get::FloatOrNull(_) => (DataType::Float64, true),
            Get::Whole(_) => (DataType::UInt64, false),
            Get::WholeOrNull(_) => (DataType::UInt64, true),
            Get::Small(_) => (DataType::UInt8, false),
        };
        Field::new(self.name, kind, is_nullable)
    }

    fn array(&self, rows: &[R]) -> ArrayRef {
        let rows = rows.iter();
        match self.get {
            Get::Text(of) => Arc::new(StringArray::from_iter_values(rows.map(of))),
            Get::Float(of) => Arc::new(Float64Array::from_iter_values(rows.map(of))),
            Get::FloatOrNull(of) => Arc::new(Float64Array::from_iter(rows.map(of))),
            Get::Whole(of) => Arc::new(UInt64Array::from_iter_values(rows.map(of))),
            Get::WholeOrNull(of) => Arc::new(UInt64Array::from_iter(rows.map(of))),
            Get::Small(of) => Arc::new(UInt8Array::from_iter_values(rows.map(of))),
        }
    }
}

/// Writes rows in order, with dictionaries for strings and Snappy compression.
pub(super) fn write<R>(path: &Path, columns: &[Column<R>], rows: &[R]) -> Result<(), ResultsError> {
    let io = |source| ResultsError::Io { action: "write", path: path.to_owned(), source };
    let file = AtomicWriteFile::open(path).map_err(io)?;
    let encode = || -> Result<AtomicWriteFile, ParquetError> {
        let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_dictionary_enabled(true)
            .set_created_by("study".to_owned())
            .build();
        let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
        for rows in rows.chunks(BATCH_ROWS) {
            let arrays = columns.iter().map(|column| column.array(rows)).collect();
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), arrays)?)?;
        }
        writer.into_inner()
    };
    let file = encode().map_err(|source| ResultsError::Parquet {
        action: "write",
        path: path.to_owned(),
        source,
    })?;
    file.commit().map_err(io)
}
