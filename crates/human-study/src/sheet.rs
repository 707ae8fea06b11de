//! An HTML page for comparing pairs of answers: one file that works offline.
//!
//! The page contains "answer 1" and "answer 2" without the names of the models. The browser stores choices as they are
//! made. The rater returns them as a small CSV file, `study,rater,item,choice` with the choices `1`, `2` and `=`.
//!
//! For tests, `#keys=1,2,=` in the address simulates these keys once the page has loaded. The page's element `ratings`
//! then contains the file for download.

use report::escape;
use serde::Serialize;

const STYLE: &str = include_str!("sheet/sheet.css");
const SCRIPT: &str = include_str!("sheet/sheet.js");

/// Blocks all network access, whatever the answers contain.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// The content of one rater's sheet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComparisonSheet {
    /// The id of the sheet, under which choices are stored and returned.
    pub study: String,
    /// The rater's name.
    pub rater: String,
    /// The instructions, one or two sentences.
    pub instructions: String,
    /// The pairs, in display order.
    pub items: Vec<ComparisonItem>,
}

/// One pair of answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComparisonItem {
    /// The item's name in the returned file.
    pub item: String,
    /// The category, shown above the pair.
    pub category: String,
    /// The user's messages by turn; the last one is answered.
    pub prompts: Vec<String>,
    /// Each side's answers, one per turn; the last ones are compared.
    pub answers: [Vec<String>; 2],
}

impl ComparisonSheet {
    /// Renders the page.
    pub fn to_html(&self) -> String {
        page("Compare answers", &self.rater, self)
    }
}

/// Renders a page for one rater. The script reads `data`.
pub(crate) fn page(title: &str, rater: &str, data: &impl Serialize) -> String {
    // `<` is escaped, since `</script>` would end the script element.
    let data = serde_json::to_string(data)
        .expect("a sheet has string keys and plain values only")
        .replace('<', "\\u003c");
    let title = escape(&format!("{title}: {rater}"));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{BODY}\
         <script type=\"application/json\" id=\"sheet\">{data}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

const BODY: &str = include_str!("sheet/body.html");
