//! A page on which one person compares pairs of answers: one file that works from a disk, without a network.
//!
//! The page knows "answer 1" and "answer 2" and nothing of who wrote them. Choices are kept in the browser as they are
//! made and handed back as a small CSV file, `study,rater,item,choice` with the choices `1`, `2` and `=`.
//!
//! For tests, `#keys=1,2,=` in the address presses these keys once the page has loaded, and the file that would be
//! downloaded stands in the page's element `ratings`.

use report::escape;
use serde::Serialize;

const STYLE: &str = include_str!("sheet/sheet.css");
const SCRIPT: &str = include_str!("sheet/sheet.js");

/// Keeps the page to itself, whatever the answers say.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// What one person is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComparisonSheet {
    /// Identifies the sheet: choices are kept and handed back under it.
    pub study: String,
    /// The person's name.
    pub rater: String,
    /// What to look at, in a sentence or two.
    pub instructions: String,
    /// The pairs, in the order in which they are shown.
    pub items: Vec<ComparisonItem>,
}

/// One pair of answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComparisonItem {
    /// Its name in the file that is handed back.
    pub item: String,
    /// What kind of question it is, shown above it.
    pub category: String,
    /// What the user said, turn by turn; the last is what is answered.
    pub prompts: Vec<String>,
    /// Either side's answers, one a turn; the last is what is compared.
    pub answers: [Vec<String>; 2],
}

impl ComparisonSheet {
    /// The page.
    pub fn to_html(&self) -> String {
        // `<` cannot stand in a script element's text, where `</script` would end it.
        let data = serde_json::to_string(self)
            .expect("a sheet has string keys and plain values only")
            .replace('<', "\\u003c");
        let title = escape(&format!("Compare answers: {}", self.rater));
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{BODY}\
             <script type=\"application/json\" id=\"sheet\">{data}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
        )
    }
}

const BODY: &str = include_str!("sheet/body.html");
