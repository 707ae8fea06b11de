//! `docs/study.md` names the columns that are written, with their kinds, in their order.

use std::fs::File;
use std::path::Path;

use arrow_schema::DataType;
use experiment::results::{write_parquet, write_policies};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const DOCS: &str = include_str!("../../../docs/study.md");

/// The rows of the table below the heading of `file`: column and kind.
fn documented(file: &str) -> Vec<(String, String)> {
    let section =
        DOCS.split("\n## ").find(|section| section.starts_with(&format!("`{file}`"))).expect("a section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())
    })
    .collect()
}

fn written(path: &Path) -> Vec<(String, String)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("open")).expect("parquet");
    let columns = reader.schema().fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Utf8 => "text",
            DataType::Float64 => "float64",
            DataType::UInt64 => "uint64",
            DataType::UInt8 => "uint8",
            other => panic!("{other} is documented nowhere"),
        };
        let null = if field.is_nullable() { " or null" } else { "" };
        (field.name().clone(), format!("{kind}{null}"))
    });
    columns.collect()
}

#[test]
fn the_documented_columns_are_the_written_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |file: &str| folder.path().join(file);
    write_parquet(&path("results.parquet"), &[]).expect("written");
    write_policies(&path("policies.parquet"), &[]).expect("written");
    for file in ["results.parquet", "policies.parquet"] {
        assert_eq!(documented(file), written(&path(file)), "{file}");
    }
}
