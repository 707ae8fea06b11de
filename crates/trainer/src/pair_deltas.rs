//! The trajectory of each pair's Δ: `pair_deltas.parquet` has one row each time a pair is trained on.
//!
//! During a run, rows are appended to a JSON-lines file. Like `metrics.jsonl`, it is truncated to the step from which a
//! run resumes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use files::AtomicWriteFile;
use files::json_lines::{self, JsonLinesError, Log};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use pref_data::TokenPair;
use serde::{Deserialize, Serialize};

use crate::checkpoint;
use crate::error::TrainError;

/// The number of rows that are converted to columns at a time.
const BATCH_ROWS: usize = 64 * 1024;

/// One pair of an optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairDelta {
    /// The index of the pair in the training set.
    pub pair: usize,
    /// The margin of the policy over the reference before the step: the difference of the two responses' log-ratios, in
    /// nats and without β. Under a flipped label, the chosen response is the worse one.
    pub delta: f64,
}

/// One row of `pair_deltas.parquet`: a pair in one step that trained on it.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedPair {
    /// The optimizer step, counted from 1.
    pub step: u64,
    /// The number of epochs after that step.
    pub epoch: f64,
    /// The pair's identifier.
    pub pair: String,
    /// Whether its label is flipped.
    pub flipped: bool,
    /// Δ before the step, as in [`PairDelta`].
    pub delta: f64,
}

/// Reads the rows of a finished run in the order of training; `None` if it did not record them.
pub(crate) fn read(folder: &Path) -> Result<Option<Vec<TrainedPair>>, TrainError> {
    let path = parquet_file(folder);
    let failed = || TrainError::io("cannot read", &path);
    files::check_file(&path).map_err(failed())?;
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed())?,
    };
    let mut rows = Vec::new();
    let decode = || -> Result<(), ParquetError> {
        for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
            append_batch(&batch?, &mut rows)?;
        }
        Ok(())
    };
    decode().map_err(|source| failed()(std::io::Error::other(source)))?;
    Ok(Some(rows))
}

fn append_batch(batch: &RecordBatch, rows: &mut Vec<TrainedPair>) -> Result<(), ParquetError> {
    let column = |name: &str, kind: DataType| {
        let column = batch.column_by_name(name).filter(|column| *column.data_type() == kind);
        column.ok_or_else(|| ParquetError::General(format!("column {name} of type {kind} is missing")))
    };
    let step = column("step", DataType::UInt64)?.as_primitive::<UInt64Type>();
    let epoch = column("epoch", DataType::Float64)?.as_primitive::<Float64Type>();
    let pair = column("pair", DataType::Utf8)?.as_string::<i32>();
    let flipped = column("flipped", DataType::Boolean)?.as_boolean();
    let delta = column("delta", DataType::Float64)?.as_primitive::<Float64Type>();
    rows.extend((0..batch.num_rows()).map(|at| TrainedPair {
        step: step.value(at),
        epoch: epoch.value(at),
        pair: pair.value(at).to_owned(),
        flipped: flipped.value(at),
        delta: delta.value(at),
    }));
    Ok(())
}

/// One line of the JSON-lines file.
#[derive(Serialize, Deserialize)]
struct Line {
    step: u64,
    epoch: f64,
    pairs: Vec<PairDelta>,
}

/// Records Δ of every pair during the run.
pub(crate) struct DeltaLog {
    folder: PathBuf,
    lines: Log,
}

impl DeltaLog {
    /// Continues after `step`, 0 for a new run.
    pub(crate) fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let path = under_way(folder);
        let kept = lines(&path)?.into_iter().take_while(|(line, _)| line.step <= step);
        let text: String = kept.map(|(_, text)| text + "\n").collect();
        let opened = Log::replace(&path, text.as_bytes()).and_then(|()| Log::open(&path));
        let lines = opened.map_err(TrainError::io("cannot write", &path))?;
        Ok(Self { folder: folder.to_owned(), lines })
    }

    /// The rows, for syncing.
    pub(crate) fn log(&self) -> &Log {
        &self.lines
    }

    pub(crate) fn write(&mut self, step: u64, epoch: f64, pairs: &[PairDelta]) -> Result<(), TrainError> {
        let failed = || TrainError::io("cannot write", under_way(&self.folder));
        let line = Line { step, epoch, pairs: pairs.to_vec() };
        self.lines.append(&line).map_err(failed())
    }
}

/// Converts the rows of a run after its last step to `pair_deltas.parquet`. Logs the accuracy of the last epoch if
/// labels were flipped.
pub(crate) fn write(folder: &Path, pairs: &[TokenPair]) -> Result<(), TrainError> {
    let steps: Vec<Line> = lines(&under_way(folder))?.into_iter().map(|(line, _)| line).collect();
    write_parquet(&parquet_file(folder), &steps, pairs)?;
    if pairs.iter().any(|pair| pair.flipped) {
        let last = steps.last().map_or(0.0, |line| line.epoch.ceil());
        let of_last = || steps.iter().filter(|line| line.epoch > last - 1.0).flat_map(|line| &line.pairs);
        for (flipped, name) in [(false, "clean"), (true, "flipped")] {
            let these =
                || of_last().filter(|row| pairs.get(row.pair).is_some_and(|pair| pair.flipped == flipped));
            let (preferred, all) = (these().filter(|row| row.delta > 0.0).count(), these().count());
            tracing::info!(
                "last epoch: the policy prefers the labeled response in {preferred} of {all} {name} pairs"
            );
        }
    }
    Ok(())
}

/// Removes the JSON-lines file.
pub(crate) fn clear(folder: &Path) -> Result<(), TrainError> {
    let path = under_way(folder);
    checkpoint::remove(&json_lines::checks_of(&path))?;
    checkpoint::remove(&path)
}

fn parquet_file(folder: &Path) -> PathBuf {
    folder.join("pair_deltas.parquet")
}

fn under_way(folder: &Path) -> PathBuf {
    folder.join("pair_deltas.jsonl")
}

/// Returns the complete lines of a file, verbatim and in order; none without a file.
fn lines(path: &Path) -> Result<Vec<(Line, String)>, TrainError> {
    let mut lines = Vec::new();
    for line in json_lines::checked(path)? {
        match line {
            Ok(line) => lines.push(line),
            Err(error @ JsonLinesError::Damaged { .. }) => return Err(error.into()),
            // A crash may leave a line without a checksum after the last checkpoint.
            Err(_) => break,
        }
    }
    Ok(lines)
}

fn write_parquet(path: &Path, steps: &[Line], pairs: &[TokenPair]) -> Result<(), TrainError> {
    let field = |name: &str, kind: DataType| Field::new(name, kind, false);
    let schema = Arc::new(Schema::new(vec![
        field("step", DataType::UInt64),
        field("epoch", DataType::Float64),
        field("pair", DataType::Utf8),
        field("flipped", DataType::Boolean),
        field("delta", DataType::Float64),
    ]));
    let rows: Vec<(&Line, &PairDelta, &TokenPair)> = steps
        .iter()
        .flat_map(|line| line.pairs.iter().map(move |row| (line, row)))
        .filter_map(|(line, row)| Some((line, row, pairs.get(row.pair)?)))
        .collect();
    let failed = || TrainError::io("cannot write", path);
    let file = AtomicWriteFile::open(path).map_err(failed())?;
    let encode = || -> Result<AtomicWriteFile, ParquetError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by("trainer".to_owned())
            .build();
        let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
        for rows in rows.chunks(BATCH_ROWS) {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(line, ..)| line.step))),
                Arc::new(Float64Array::from_iter_values(rows.iter().map(|(line, ..)| line.epoch))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|(.., pair)| &pair.id))),
                Arc::new(BooleanArray::from_iter(rows.iter().map(|(.., pair)| Some(pair.flipped)))),
                Arc::new(Float64Array::from_iter_values(rows.iter().map(|(_, row, _)| row.delta))),
            ];
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        }
        writer.into_inner()
    };
    let file = encode().map_err(|source| failed()(std::io::Error::other(source)))?;
    file.commit().map_err(failed())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn written_rows_are_read_with_the_flips_of_the_pairs() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None, "nothing is recorded");
        let pair = |id: &str, flipped| TokenPair {
            id: id.to_owned(),
            prompt: vec![1],
            chosen: vec![2],
            rejected: vec![3],
            flipped,
        };
        let pairs = [pair("a", false), pair("b", true)];
        let line = |step, rows: &[(usize, f64)]| Line {
            step,
            epoch: step as f64 / 2.0,
            pairs: rows.iter().map(|&(pair, delta)| PairDelta { pair, delta }).collect(),
        };
        let steps = [line(1, &[(1, 0.0)]), line(2, &[(0, 0.5), (1, -0.25)])];
        write_parquet(&parquet_file(folder.path()), &steps, &pairs).unwrap();
        let rows = read(folder.path()).unwrap().unwrap();
        let rows: Vec<_> =
            rows.iter().map(|row| (row.step, row.pair.as_str(), row.flipped, row.delta)).collect();
        assert_eq!(rows, [(1, "b", true, 0.0), (2, "a", false, 0.5), (2, "b", true, -0.25)]);

        fs::write(parquet_file(folder.path()), "no parquet").unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("pair_deltas.parquet"), "{error}");
    }
}
