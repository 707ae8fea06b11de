//! Reports: self-contained HTML pages.

mod html;

use crate::figure::Svg;
use crate::table::Table;

/// A report: the lead, then the sections, then the provenance.
///
/// Text is plain; `` `code` `` between backticks is the only markup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The page's title.
    pub title: String,
    /// The first paragraphs, with the result.
    pub lead: Vec<String>,
    /// Sections, in the order of the list of contents.
    pub sections: Vec<Section>,
    /// What a rerun needs: recipe, versions, seeds. A value of several lines is shown as source.
    pub provenance: Vec<(String, String)>,
    /// Descriptions and relative paths of accompanying files.
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
    /// Subsections, each on its own page in print.
    pub pages: Vec<Page>,
}

/// A subsection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Its heading.
    pub heading: String,
    /// Paragraphs above its tables.
    pub paragraphs: Vec<String>,
    /// Tables, without anchors.
    pub tables: Vec<Table>,
    /// Figures with their captions.
    pub figures: Vec<(Svg, String)>,
}

/// A sample conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dialogue {
    /// Its heading: a category or a policy.
    pub heading: String,
    /// `(speaker, text)` in order; line breaks are kept.
    pub turns: Vec<(String, String)>,
    /// A remark below, such as its scores.
    pub note: Option<String>,
}

impl Report {
    /// Returns the page: one file without scripts or outside resources, for light and dark screens and for print.
    pub fn to_html(&self) -> String {
        html::render(self)
    }
}
