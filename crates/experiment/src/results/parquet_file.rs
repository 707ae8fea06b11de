//! The parquet file of scores.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float64Type, UInt8Type, UInt64Type};
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::columns::{self, BATCH_ROWS, Column, Get};
use super::{ResultsError, ScoreRow};

/// Writes scores in order, with dictionaries for strings and Snappy compression.
///
/// # Errors
/// [`ResultsError::Io`] or [`ResultsError::Parquet`].
pub fn write_parquet(path: &Path, rows: &[ScoreRow]) -> Result<(), ResultsError> {
    columns::write(path, &score_columns(), rows)
}

/// Reads scores in the file's order. Unknown columns are ignored.
///
/// # Errors
/// [`ResultsError::Io`], [`ResultsError::Parquet`] for a damaged file, [`ResultsError::MissingColumn`],
/// [`ResultsError::ColumnKind`] or [`ResultsError::NullValue`] for one that holds something else.
pub fn read_parquet(path: &Path) -> Result<Vec<ScoreRow>, ResultsError> {
    let damaged = |source| ResultsError::Parquet { action: "read", path: path.to_owned(), source };
    let unreadable = |source| ResultsError::Io { action: "read", path: path.to_owned(), source };
    files::check_file(path).map_err(unreadable)?;
    let file = File::open(path).map_err(unreadable)?;
    // The Arrow schema that a writer may add would give categories another type than text.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
        .map_err(damaged)?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|source| damaged(source.into()))?;
        Columns { path, batch: &batch, first_row: rows.len() }.append_to(&mut rows)?;
    }
    Ok(rows)
}

fn score_columns() -> Vec<Column<ScoreRow>> {
    vec![
        Column::new("cell", Get::Text(|row| &row.cell)),
        Column::new("annotator", Get::Text(|row| &row.annotator)),
        Column::new("slice", Get::Text(|row| &row.slice)),
        Column::new("loss", Get::Text(|row| &row.loss)),
        Column::new("beta", Get::Float(|row| row.beta)),
        Column::new("label_smoothing", Get::Float(|row| row.label_smoothing)),
        Column::new("logp_reduction", Get::Text(|row| &row.logp_reduction)),
        Column::new("fraction", Get::Float(|row| row.fraction)),
        Column::new("flip_rate", Get::Float(|row| row.flip_rate)),
        Column::new("learning_rate", Get::Float(|row| row.learning_rate)),
        Column::new("epochs", Get::Whole(|row| row.epochs)),
        Column::new("seed", Get::Whole(|row| row.seed)),
        Column::new("step", Get::Whole(|row| row.step)),
        Column::new("progress", Get::Float(|row| row.progress)),
        Column::new("sample", Get::Whole(|row| row.sample)),
        Column::new("question_set", Get::Text(|row| &row.question_set)),
        Column::new("question_id", Get::Whole(|row| row.question_id)),
        Column::new("category", Get::Text(|row| &row.category)),
        Column::new("turn", Get::Small(|row| row.turn)),
        Column::new("scorer", Get::Text(|row| &row.scorer)),
        Column::new("score", Get::FloatOrNull(|row| row.score)),
        Column::new("characters", Get::Whole(|row| row.characters)),
    ]
}

/// One batch of a file, with the context of error messages.
struct Columns<'a> {
    path: &'a Path,
    batch: &'a RecordBatch,
    first_row: usize,
}

impl<'a> Columns<'a> {
    fn append_to(&self, rows: &mut Vec<ScoreRow>) -> Result<(), ResultsError> {
        let cell = self.text("cell")?;
        let annotator = self.text("annotator")?;
        let slice = self.text("slice")?;
        let loss = self.text("loss")?;
        let beta = self.number::<Float64Type>("beta")?;
        let label_smoothing = self.number::<Float64Type>("label_smoothing")?;
        // Files of earlier versions have one reduction.
        let logp_reduction = match self.batch.column_by_name("logp_reduction") {
            Some(_) => Some(self.text("logp_reduction")?),
            None => None,
        };
        let fraction = self.number::<Float64Type>("fraction")?;
        let flip_rate = self.number::<Float64Type>("flip_rate")?;
        let learning_rate = self.number::<Float64Type>("learning_rate")?;
        let epochs = self.number::<UInt64Type>("epochs")?;
        let seed = self.number::<UInt64Type>("seed")?;
        let step = self.number::<UInt64Type>("step")?;
        let progress = self.number::<Float64Type>("progress")?;
        // Files of earlier versions have one sample.
        let samples = match self.batch.column_by_name("sample") {
            Some(_) => self.number::<UInt64Type>("sample")?.to_vec(),
            None => vec![0; self.batch.num_rows()],
        };
        let question_set = self.text("question_set")?;
        let question_id = self.number::<UInt64Type>("question_id")?;
        let category = self.text("category")?;
        let turn = self.number::<UInt8Type>("turn")?;
        let scorer = self.text("scorer")?;
        let score = self.column("score", &DataType::Float64)?.as_primitive::<Float64Type>();
        let characters = self.number::<UInt64Type>("characters")?;
        rows.extend((0..self.batch.num_rows()).map(|at| ScoreRow {
            cell: cell.value(at).to_owned(),
            annotator: annotator.value(at).to_owned(),
            slice: slice.value(at).to_owned(),
            loss: loss.value(at).to_owned(),
            beta: beta[at],
            label_smoothing: label_smoothing[at],
            logp_reduction: logp_reduction.map_or_else(String::new, |of| of.value(at).to_owned()),
            fraction: fraction[at],
            flip_rate: flip_rate[at],
            learning_rate: learning_rate[at],
            epochs: epochs[at],
            seed: seed[at],
            step: step[at],
            progress: progress[at],
            sample: samples[at],
            question_set: question_set.value(at).to_owned(),
            question_id: question_id[at],
            category: category.value(at).to_owned(),
            turn: turn[at],
            scorer: scorer.value(at).to_owned(),
            score: score.is_valid(at).then(|| score.value(at)),
            characters: characters[at],
        }));
        Ok(())
    }

    fn text(&self, name: &'static str) -> Result<&'a StringArray, ResultsError> {
        Ok(self.complete(name, &DataType::Utf8)?.as_string())
    }

    fn number<T: ArrowPrimitiveType>(&self, name: &'static str) -> Result<&'a [T::Native], ResultsError> {
        Ok(self.complete(name, &T::DATA_TYPE)?.as_primitive::<T>().values())
    }

    /// Returns a column without nulls.
    fn complete(&self, name: &'static str, kind: &DataType) -> Result<&'a dyn Array, ResultsError> {
        let column = self.column(name, kind)?;
        match (0..column.len()).find(|&row| column.is_null(row)) {
            None => Ok(column),
            Some(row) => Err(ResultsError::NullValue {
                path: self.path.to_owned(),
                column: name,
                row: self.first_row + row,
            }),
        }
    }

    fn column(&self, name: &'static str, kind: &DataType) -> Result<&'a dyn Array, ResultsError> {
        let path = || self.path.to_owned();
        let column = self
            .batch
            .column_by_name(name)
            .ok_or_else(|| ResultsError::MissingColumn { path: path(), column: name })?;
        if column.data_type() != kind {
            return Err(ResultsError::ColumnKind {
                path: path(),
                column: name,
                expected: kind.to_string(),
                found: column.data_type().to_string(),
            });
        }
        Ok(column.as_ref())
    }
}
