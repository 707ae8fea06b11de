//! Record batches of Arrow, as data frames export them.

use std::path::Path;

use arrow_array::RecordBatch;

use super::columnar;
use super::rows::Wanted;
use super::{Ids, PairColumns, ReadOptions, ReadReport, Seen, Sink, Source, check_columns, record};
use crate::error::DataError;
use crate::record::PreferenceRecord;

/// Reads the preferences of record batches as [`read_records_with`](crate::read_records_with) reads those of a file, so that a
/// data frame needs no file. Messages name `name` in place of a path.
///
/// ```
/// use std::sync::Arc;
///
/// use pref_data::arrow_array::{ArrayRef, RecordBatch, StringArray};
/// use pref_data::{Format, ReadOptions, read_record_batches};
///
/// let column = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
/// let batch = RecordBatch::try_from_iter([
///     ("question", column("2 + 2 =")),
///     ("chosen", column(" 4")),
///     ("rejected", column(" 5")),
/// ])?;
/// let (records, report) = read_record_batches("frame", &[batch], &ReadOptions::new(Format::Pairs))?;
/// assert_eq!(records.len(), 1);
/// assert_eq!(report.notes[0].to_string(), "reads `question` as the prompt");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`read_records_with`](crate::read_records_with), for rows of `name` from 1.
pub fn read_record_batches(
    name: &str,
    batches: &[RecordBatch],
    options: &ReadOptions,
) -> Result<(Vec<PreferenceRecord>, ReadReport), DataError> {
    check_columns(options)?;
    let unnamed = PairColumns::default();
    let named = options.columns.as_ref().unwrap_or(&unnamed);
    let source = Source::new(options.format, named, Ids::OfFile, Vec::new());
    let path = Path::new(name);
    let mut sink = Sink { path: path.to_owned(), source, seen: Seen::new(options), make: record };
    let columns = options.format.columns(named);
    let wanted = Wanted { format: options.format, columns: columns.as_deref() };
    columnar::read_batches(path, batches, &wanted, &mut sink)?;
    sink.finish(path, &[])
}
