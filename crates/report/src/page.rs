//! One self-contained HTML page that says what was run and what came of it.

mod html;

use crate::figure::Svg;
use crate::table::Table;

/// A report: what matters first, then the sections, then what it takes to run it again.
///
/// Words are plain text; `` `code` `` between backticks is the only markup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The page's title.
    pub title: String,
    /// Paragraphs that say the result before anything else.
    pub lead: Vec<String>,
    /// Sections, in the order of the list of contents.
    pub sections: Vec<Section>,
    /// What it takes to run it again: recipe, versions, seeds. A value of several lines is set as source.
    pub provenance: Vec<(String, String)>,
    /// What lies beside the page: what a file holds, and where it is, seen from the page.
    pub files: Vec<(String, String)>,
}

/// One section of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// Its heading.
    pub heading: String,
    /// Paragraphs above its tables.
    pub paragraphs: Vec<String>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Figures with their captions.
    pub figures: Vec<(Svg, String)>,
    /// Sample dialogues.
    pub dialogues: Vec<Dialogue>,
    /// Things told one by one, each on a page of its own where the report is printed.
    pub pages: Vec<Page>,
}

/// One thing that a section tells by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// What it is about.
    pub heading: String,
    /// Paragraphs above its tables.
    pub paragraphs: Vec<String>,
    /// Tables. Their ids are no anchors.
    pub tables: Vec<Table>,
    /// Figures with their captions.
    pub figures: Vec<(Svg, String)>,
}

/// A conversation to be read, not counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dialogue {
    /// What it is: a category, a policy.
    pub heading: String,
    /// `(speaker, text)` in order; line breaks are kept.
    pub turns: Vec<(String, String)>,
    /// A remark below, such as its scores.
    pub note: Option<String>,
}

impl Report {
    /// The page: one file without scripts or outside resources, for screens light and dark and for paper.
    pub fn to_html(&self) -> String {
        html::render(self)
    }
}
