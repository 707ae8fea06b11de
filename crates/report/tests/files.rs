//! Tables, figures and the report on disk.

use std::fs;
use std::path::Path;

use report::figure::GroupedBars;
use report::page::Report;
use report::table::{Align, Column, Format, Table, Value};
use report::{ReportError, write_figures, write_report, write_tables};

fn table(id: &str) -> Table {
    Table {
        id: id.into(),
        title: "Scores".into(),
        columns: vec![Column::new("Policy", Align::Left)],
        rows: vec![vec![Value::text("SFT")]],
        notes: vec![],
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

#[test]
fn tables_figures_and_the_report_have_their_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("runs/rq1");
    let figure = GroupedBars {
        title: "Bars".into(),
        y_label: "Score".into(),
        y_range: (1.0, 10.0),
        groups: vec![],
        series: vec![],
    };
    write_tables(&out, &[table("table-1"), table("table-2")]).expect("written");
    write_figures(&out, &[("categories".into(), figure.to_svg())]).expect("written");
    let report = write_report(&out, &Report::default()).expect("written");
    assert_eq!(names(&out), ["figures", "report.html", "tables"]);
    assert_eq!(
        names(&out.join("tables")),
        ["table-1.csv", "table-1.md", "table-1.tex", "table-2.csv", "table-2.md", "table-2.tex"]
    );
    let csv = fs::read_to_string(out.join("tables/table-1.csv")).expect("read");
    assert_eq!(csv, table("table-1").render(Format::Csv));
    let svg = fs::read_to_string(out.join("figures/categories.svg")).expect("read");
    assert_eq!(svg, figure.to_svg().as_str());
    assert_eq!(fs::read_to_string(report).expect("read"), Report::default().to_html());
}

#[test]
fn names_that_are_no_file_names_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    for id in ["", "../escape", "a/b", "a\\b", ".hidden", "a b"] {
        let error = write_tables(dir.path(), &[table("table-1"), table(id)]).expect_err("a bad name");
        assert!(matches!(error, ReportError::FileName { .. }), "{id:?}: {error}");
    }
    let error =
        write_tables(dir.path(), &[table("table-1"), table("Table-1")]).expect_err("one file for two");
    assert!(matches!(error, ReportError::SameName { .. }), "{error}");
    assert!(names(dir.path()).is_empty());
}
