//! Scores on disk.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use experiment::results::{ResultsError, ScoreRow, read_parquet, write_parquet};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::reader::{FileReader, SerializedFileReader};
use proptest::prelude::*;

fn row(question_id: u64, score: Option<f64>) -> ScoreRow {
    ScoreRow {
        cell: "c0ffee".into(),
        annotator: "human".into(),
        slice: String::new(),
        loss: "dpo".into(),
        beta: 0.1,
        label_smoothing: 0.0,
        logp_reduction: String::new(),
        fraction: 1.0,
        flip_rate: 0.25,
        learning_rate: 1e-4,
        epochs: 3,
        seed: u64::MAX,
        step: 282,
        progress: 0.75,
        sample: 1,
        question_set: "sandbox".into(),
        question_id,
        category: "writing".into(),
        turn: 2,
        scorer: "gold".into(),
        score,
        characters: 240,
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("plain names"))
        .collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn rows_read_back_as_they_were_written(rows in proptest::collection::vec(any_row(), 0..40)) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("results.parquet");
        write_parquet(&path, &rows).expect("written");
        prop_assert_eq!(read_parquet(&path).expect("read"), rows);
    }
}

#[test]
fn rows_of_more_than_one_batch_keep_their_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("results.parquet");
    let rows: Vec<_> = (0..70_000).map(|id| row(id, (id % 7 != 0).then_some(5.0))).collect();
    write_parquet(&path, &rows).expect("written");
    assert_eq!(read_parquet(&path).expect("read"), rows);
}

#[test]
fn the_same_rows_are_the_same_bytes_and_replace_the_old_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("results.parquet");
    let rows: Vec<_> = (0..100).map(|id| row(id, Some(5.5))).collect();
    write_parquet(&path, &rows[..1]).expect("written");
    write_parquet(&path, &rows).expect("written");
    let first = fs::read(&path).expect("read");
    write_parquet(&path, &rows).expect("written");
    assert_eq!(fs::read(&path).expect("read"), first);
    assert_eq!(names(dir.path()), ["results.parquet"], "no temporary file stays");
}

#[test]
fn strings_are_dictionaries_and_pages_are_snappy() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("results.parquet");
    write_parquet(&path, &(0..1000).map(|id| row(id, None)).collect::<Vec<_>>()).expect("written");
    let reader = SerializedFileReader::new(File::open(&path).expect("open")).expect("parquet");
    let group = reader.metadata().row_group(0);
    assert_eq!(group.num_columns(), 22);
    for column in group.columns() {
        assert_eq!(column.compression(), Compression::SNAPPY);
        if column.column_path().string() == "cell" {
            assert!(column.dictionary_page_offset().is_some());
        }
    }
}

#[test]
fn files_that_hold_something_else_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("results.parquet");

    assert!(matches!(read_parquet(&path), Err(ResultsError::Io { action: "read", .. })));

    fs::write(&path, b"PAR1 but no more").expect("written");
    let error = read_parquet(&path).expect_err("damaged");
    assert!(matches!(error, ResultsError::Parquet { .. }));
    assert!(error.to_string().contains("results.parquet"));

    write_columns(&path, vec![("cell", Arc::new(StringArray::from(vec!["a"])))]);
    assert!(matches!(read_parquet(&path), Err(ResultsError::MissingColumn { column: "annotator", .. })));

    write_columns(&path, vec![("cell", Arc::new(Float64Array::from(vec![1.0])))]);
    let error = read_parquet(&path).expect_err("another kind").to_string();
    assert!(error.contains("\"cell\"") && error.contains("holds Float64, expected Utf8"), "{error}");

    write_columns(&path, vec![("cell", Arc::new(StringArray::from(vec![Some("a"), None])))]);
    assert!(matches!(read_parquet(&path), Err(ResultsError::NullValue { column: "cell", row: 1, .. })));
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("missing").join("results.parquet");
    let error = write_parquet(&path, &[]).expect_err("no folder");
    assert!(error.to_string().contains("missing"), "{error}");
}

fn write_columns(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays).expect("columns of one length");
    assert_ne!(batch.schema().field(0).data_type(), &DataType::Null);
    let mut writer =
        ArrowWriter::try_new(File::create(path).expect("created"), schema, None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

fn any_row() -> impl Strategy<Value = ScoreRow> {
    let text = || "\\PC{0,8}";
    let names = (text(), text(), text(), text(), text(), text(), text());
    let settings = (-1e9..1e9f64, 0.0..0.5, 0.0..1.0, 0.0..1.0, any::<f64>());
    let places = (any::<u64>(), any::<u64>(), 0.0..1.0, any::<u64>(), any::<u8>(), any::<u64>());
    (names, settings, places, proptest::option::of(any::<f64>())).prop_map(
        |(names, settings, places, score)| {
            let (cell, annotator, slice, loss, question_set, category, scorer) = names;
            let (beta, label_smoothing, fraction, flip_rate, learning_rate) = settings;
            let (seed, step, progress, question_id, turn, characters) = places;
            let sample = u64::from(turn) + 1;
            let logp_reduction = ["", "sum", "mean"][turn as usize % 3].to_owned();
            ScoreRow {
                cell,
                annotator,
                slice,
                loss,
                beta,
                label_smoothing,
                logp_reduction,
                fraction,
                flip_rate,
                learning_rate,
                epochs: step % 11,
                seed,
                step,
                progress,
                sample,
                question_set,
                question_id,
                category,
                turn,
                scorer,
                score,
                characters,
            }
        },
    )
}
