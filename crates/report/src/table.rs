//! Tables of results, kept as typed values until somebody asks for text.
//!
//! A [`Table`] knows that a cell is an interval or a difference, so every rendering can do right by it: a terminal
//! aligns the brackets, LaTeX sets a minus sign, CSV gives each bound a column of its own at full precision.
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

pub(crate) use html::table_html;
pub(crate) use layout::caption;
pub use value::Value;

/// A titled table with typed cells.
///
/// A row shorter than the others is filled up with empty cells; a row longer than `columns` gets columns without a
/// header. Nothing is dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its name as a file and as an anchor, such as `table-1`.
    pub id: String,
    /// What it shows, in one line.
    pub title: String,
    /// Headers, left to right.
    pub columns: Vec<Column>,
    /// Cells, row by row.
    pub rows: Vec<Vec<Value>>,
    /// What a reader must know to read it right. Reasons of missing values and the mark of clear differences are
    /// explained without being listed here.
    pub notes: Vec<String>,
}

/// One column's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The column's own header.
    pub header: String,
    /// A header that spans this column and its neighbours with the same group.
    pub group: Option<String>,
    /// How cells and header stand in the column.
    pub align: Align,
}

/// How cells stand in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// Flush left: names.
    Left,
    /// Centred: short marks.
    Center,
    /// Flush right: numbers.
    Right,
}

/// What a table can be rendered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// Aligned columns for a terminal.
    #[serde(rename = "text")]
    Text,
    /// A GitHub-flavoured pipe table.
    #[serde(rename = "md")]
    Markdown,
    /// One plain rectangular table at full precision, without title and notes.
    #[serde(rename = "csv")]
    Csv,
    /// A `table` environment; wants the packages `booktabs` and `graphicx`.
    #[serde(rename = "tex")]
    Latex,
    /// The typed values themselves.
    #[serde(rename = "json")]
    Json,
}

impl Table {
    /// The table as text, ending in one newline. A number that is not finite is shown as missing.
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
    /// A column that stands in no group.
    pub fn new(header: impl Into<String>, align: Align) -> Self {
        Self { header: header.into(), group: None, align }
    }

    /// A column under a header that spans its neighbours with the same group.
    pub fn grouped(group: impl Into<String>, header: impl Into<String>, align: Align) -> Self {
        Self { header: header.into(), group: Some(group.into()), align }
    }
}

impl Format {
    /// All formats, in the order in which help texts list them.
    pub const ALL: [Self; 5] = [Self::Text, Self::Markdown, Self::Csv, Self::Latex, Self::Json];

    /// Its name on a command line, which is also the extension of its files.
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
