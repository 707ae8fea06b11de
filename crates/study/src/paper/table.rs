//! The tables as printed.

use serde::Deserialize;

use super::Error;

/// A table with its cells as printed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperTable {
    /// Its number in the paper.
    pub number: usize,
    /// Its caption.
    pub caption: String,
    /// Headers; nested ones joined by commas.
    pub columns: Vec<String>,
    /// Cells, row by row.
    pub rows: Vec<Vec<String>>,
    /// Corrections of broken print.
    pub notes: Vec<String>,
}

const FILES: [&str; 14] = [
    include_str!("../../../../docs/paper/table-01.toml"),
    include_str!("../../../../docs/paper/table-02.toml"),
    include_str!("../../../../docs/paper/table-03.toml"),
    include_str!("../../../../docs/paper/table-04.toml"),
    include_str!("../../../../docs/paper/table-05.toml"),
    include_str!("../../../../docs/paper/table-06.toml"),
    include_str!("../../../../docs/paper/table-07.toml"),
    include_str!("../../../../docs/paper/table-08.toml"),
    include_str!("../../../../docs/paper/table-09.toml"),
    include_str!("../../../../docs/paper/table-10.toml"),
    include_str!("../../../../docs/paper/table-11.toml"),
    include_str!("../../../../docs/paper/table-12.toml"),
    include_str!("../../../../docs/paper/table-13.toml"),
    include_str!("../../../../docs/paper/table-14.toml"),
];

/// Returns Tables 1 to 14, in order.
///
/// # Errors
///
/// [`Error::File`] and [`Error::Ragged`] for a damaged file under `docs/paper`.
pub fn tables() -> Result<Vec<PaperTable>, Error> {
    (1..).zip(FILES).map(|(number, text)| parse(number, text)).collect()
}

fn parse(number: usize, text: &str) -> Result<PaperTable, Error> {
    let table: PaperTable = toml::from_str(text).map_err(|source| Error::File { number, source })?;
    let columns = table.columns.len();
    match table.rows.iter().position(|row| row.len() != columns) {
        Some(row) => Err(Error::Ragged { number, row: row + 1, cells: table.rows[row].len(), columns }),
        None => Ok(table),
    }
}

impl PaperTable {
    /// Returns the labels of the rows: the first column.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(|row| row.first()).map(String::as_str)
    }

    /// Returns the numbers of a column, without percent signs.
    ///
    /// # Errors
    ///
    /// [`Error::NoColumn`], [`Error::NoNumber`].
    pub fn column(&self, header: &str) -> Result<Vec<f64>, Error> {
        let found = self.columns.iter().position(|column| column == header);
        let index =
            found.ok_or_else(|| Error::NoColumn { number: self.number, column: header.to_owned() })?;
        let number = |(row, cells): (usize, &Vec<String>)| {
            let cell = &cells[index];
            cell.trim_end_matches('%').parse().map_err(|_| Error::NoNumber {
                number: self.number,
                row: row + 1,
                column: header.to_owned(),
                cell: cell.clone(),
            })
        };
        self.rows.iter().enumerate().map(number).collect()
    }

    /// Returns the indices and headers of the columns of scores.
    pub(crate) fn score_columns(&self) -> impl Iterator<Item = (usize, &str)> {
        let scores = match self.number {
            1 | 3 | 4 | 5 | 8..=14 => &self.columns[1..],
            _ => &[],
        };
        (1..)
            .zip(scores)
            .map(|(index, name)| (index, name.as_str()))
            .filter(|(_, name)| !name.ends_with("Training Loss"))
    }
}
