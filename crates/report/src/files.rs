//! Tables, figures and pages on disk. Writes are atomic, and the same values give the same bytes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::ReportError;
use crate::figure::Svg;
use crate::page::Report;
use crate::table::{Format, Table};

/// Writes `tables/ID.md`, `tables/ID.csv` and `tables/ID.tex` below `dir` for every table.
///
/// # Errors
/// [`ReportError::FileName`] or [`ReportError::SameName`] before anything is written, [`ReportError::Io`] afterwards.
pub fn write_tables(dir: &Path, tables: &[Table]) -> Result<(), ReportError> {
    check_names(tables.iter().map(|table| table.id.as_str()))?;
    let dir = dir.join("tables");
    for table in tables {
        for format in [Format::Markdown, Format::Csv, Format::Latex] {
            let path = dir.join(format!("{}.{format}", table.id));
            write_file(&path, table.render(format).as_bytes())?;
        }
    }
    Ok(())
}

/// Writes `figures/NAME.svg` below `dir` for every figure.
///
/// # Errors
/// [`ReportError::FileName`] or [`ReportError::SameName`] before anything is written, [`ReportError::Io`] afterwards.
pub fn write_figures(dir: &Path, figures: &[(String, Svg)]) -> Result<(), ReportError> {
    check_names(figures.iter().map(|(name, _)| name.as_str()))?;
    let dir = dir.join("figures");
    for (name, svg) in figures {
        write_file(&dir.join(format!("{name}.svg")), svg.as_str().as_bytes())?;
    }
    Ok(())
}

/// Writes `report.html` into `dir` and returns its path.
///
/// # Errors
/// [`ReportError::Io`].
pub fn write_report(dir: &Path, report: &Report) -> Result<PathBuf, ReportError> {
    let path = dir.join("report.html");
    write_file(&path, report.to_html().as_bytes())?;
    Ok(path)
}

/// Writes a page, such as that of a [`Browser`](crate::browse::Browser).
///
/// # Errors
/// [`ReportError::Io`].
pub fn write_page(path: &Path, html: &str) -> Result<(), ReportError> {
    write_file(path, html.as_bytes())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    files::write(path, bytes).map_err(|source| ReportError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// Checks that names are valid file names and differ in more than case, which some file systems ignore.
fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), ReportError> {
    let mut seen = BTreeSet::new();
    for name in names {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(ReportError::FileName { name: name.to_owned() });
        }
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(ReportError::SameName { name: name.to_owned() });
        }
    }
    Ok(())
}
