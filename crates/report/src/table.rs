//! Tables of typed values.
//!
//! A [`Table`] stores intervals and differences as such, so that each format can adapt: a terminal aligns brackets, LaTeX
//! has a minus sign, CSV has each bound in its own column at full precision.
//!
//! ```
//! use report::table::{Align, Column, Format, Table, Value};
//!
//! let table = Table {
//!     id: "table-1".into(),
//!     title: "Score by policy".into(),
//!     columns: vec![Column::new("Policy", Align::Left), Column::new("Score", Align::Right)],
//!     rows: vec![
//!         vec![Value::text("SFT"), Value::Interval { value: 5.5, low: 5.25, high: 5.75, decimals: 2 }],
//!         vec![Value::text("DPO"), Value::missing("training diverged")],
//!     ],
//!     notes: vec![],
//! };
//! assert_eq!(
//!     table.render(Format::Csv),
//!     "Policy,Score,Score low,Score high\nSFT,5.5,5.25,5.75\nDPO,,,\n"
//! );
//! ```

mod csv;
mod html;
mod latex;
mod layout;
mod markdown;
mod plain;
mod value;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ReportError;

pub(crate) use html::{scrollable, table_html};
pub(crate) use layout::caption;
pub use value::Value;

/// A titled table with typed cells.
///
/// Short rows are padded with empty cells; rows longer than `columns` have columns without a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its file name and anchor, such as `table-1`.
    pub id: String,
    /// The title, in one line.
    pub title: String,
    /// Headers, left to right.
    pub columns: Vec<Column>,
    /// Cells, row by row.
    pub rows: Vec<Vec<Value>>,
    /// Notes below the table. The reasons of missing values and the mark of differences are added automatically.
    pub notes: Vec<String>,
}

/// One column's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The column's own header.
    pub header: String,
    /// A header that spans this column and its neighbors with the same group.
    pub group: Option<String>,
    /// The alignment of cells and header.
    pub align: Align,
}

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// Left: names.
    Left,
    /// Center: short marks.
    Center,
    /// Right: numbers.
    Right,
}

/// A format of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// Aligned columns for a terminal.
    #[serde(rename = "text")]
    Text,
    /// A GitHub-flavored pipe table.
    #[serde(rename = "md")]
    Markdown,
    /// One plain rectangular table at full precision, without title and notes.
    #[serde(rename = "csv")]
    Csv,
    /// A `table` environment, which requires the packages `booktabs` and `graphicx`.
    #[serde(rename = "tex")]
    Latex,
    /// The typed values as JSON.
    #[serde(rename = "json")]
    Json,
}

impl Table {
    /// Returns the table for a terminal of `width` columns: words of its text columns and notes wrap.
    pub fn render_within(&self, width: usize) -> String {
        plain::render_within(self, width)
    }

    /// Returns the table as text, which ends in one newline. A number that is not finite is shown as missing.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Text => plain::render(self),
            Format::Markdown => markdown::render(self),
            Format::Csv => csv::render(self),
            Format::Latex => latex::render(self),
            Format::Json => {
                let mut json = serde_json::to_string_pretty(self)
                    .expect("a table has string keys and plain values only");
                json.push('\n');
                json
            }
        }
    }
}

impl Column {
    /// Returns a column without a group.
    pub fn new(header: impl Into<String>, align: Align) -> Self {
        Self { header: header.into(), group: None, align }
    }

    /// Returns a column in a group.
    pub fn grouped(group: impl Into<String>, header: impl Into<String>, align: Align) -> Self {
        Self { header: header.into(), group: Some(group.into()), align }
    }
}

impl Format {
    /// All formats, in the order in which help texts list them.
    pub const ALL: [Self; 5] = [Self::Text, Self::Markdown, Self::Csv, Self::Latex, Self::Json];

    /// Returns its name on the command line, which is also the extension of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "md",
            Self::Csv => "csv",
            Self::Latex => "tex",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = ReportError;

    fn from_str(given: &str) -> Result<Self, ReportError> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == given)
            .ok_or_else(|| ReportError::UnknownFormat { given: given.to_owned() })
    }
}
