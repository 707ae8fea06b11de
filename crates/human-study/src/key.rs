//! The key of blinded sheets, which converts raters' files to ratings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stats::Choice;

use crate::files::{csv_text, read, rows, write};
use crate::sheet::{ComparisonItem, ComparisonSheet};
use crate::{Error, Rating};

/// One of the two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The model of the first answer file.
    #[serde(rename = "model_1")]
    Model1,
    /// The model of the second answer file.
    #[serde(rename = "model_2")]
    Model2,
}

/// One item as shown to a rater.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// The item's name: question and turn, such as `81-1`.
    pub item: String,
    /// The question.
    pub question: u64,
    /// Its category.
    pub category: String,
    /// The model of answer 1.
    pub first: Side,
}

/// The key of a study. Keep it away from the raters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The models' names.
    pub models: [String; 2],
    pub(crate) sheets: BTreeMap<String, KeySheet>,
}

/// One rater's sheet, in the order of its items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeySheet {
    pub(crate) study: String,
    pub(crate) shown: Vec<Shown>,
}

/// Sheets for all raters, and their key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudySheets {
    /// One sheet per rater.
    pub sheets: Vec<ComparisonSheet>,
    /// The key.
    pub key: Key,
}

pub(crate) const KEY_FILE: &str = "key.json";

impl StudySheets {
    /// Writes `key.json`, and `sheet-RATER.html` and `sheet-RATER.csv` for every rater, into `dir`. Returns the paths,
    /// the key's first. In a spreadsheet, raters fill in the column `choice` with 1, 2 or =. The word `equal` also
    /// works, if the spreadsheet takes = for a formula.
    ///
    /// # Errors
    ///
    /// [`Error::Write`]; [`Error::Key`] if `dir` has the key of other sheets, which would become unreadable.
    pub fn write(&self, dir: &Path) -> Result<Vec<PathBuf>, Error> {
        let path = dir.join(KEY_FILE);
        if path.exists() && Key::read(&path)? != self.key {
            let problem =
                "it belongs to other sheets, whose ratings it reads; choose another folder".to_owned();
            return Err(Error::Key { path, problem });
        }
        fs::create_dir_all(dir).map_err(|source| Error::Write { path: dir.to_owned(), source })?;
        let mut json =
            serde_json::to_string_pretty(&self.key).expect("a key has string keys and plain values only");
        json.push('\n');
        write(&path, &json)?;
        let mut written = vec![path];
        for sheet in &self.sheets {
            let stem = format!("sheet-{}", file_stem(&sheet.rater));
            for (ending, text) in [("html", sheet.to_html()), ("csv", spreadsheet(sheet))] {
                let path = dir.join(format!("{stem}.{ending}"));
                write(&path, &text)?;
                written.push(path);
            }
        }
        Ok(written)
    }
}

/// Returns a rater's name in the form used in file names.
pub(crate) fn file_stem(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() { c.to_lowercase().collect() } else { "-".to_owned() };
    name.chars().map(plain).collect()
}

fn spreadsheet(sheet: &ComparisonSheet) -> String {
    let header = ["study", "rater", "item", "category", "conversation", "answer_1", "answer_2", "choice"];
    let (turns, cell) = (turns_in_cell, spreadsheet_cell);
    let row = |item: &ComparisonItem| {
        [
            sheet.study.clone(),
            sheet.rater.clone(),
            item.item.clone(),
            item.category.clone(),
            cell(turns(&item.prompts)),
            cell(turns(&item.answers[0])),
            cell(turns(&item.answers[1])),
            String::new(),
        ]
    };
    csv_text(header, sheet.items.iter().map(row))
}

/// Returns the messages of a conversation as one text.
pub(crate) fn turns_in_cell(texts: &[String]) -> String {
    match texts {
        [only] => only.clone(),
        _ => (1..)
            .zip(texts)
            .map(|(turn, text)| format!("[turn {turn}] {text}"))
            .collect::<Vec<_>>()
            .join("\n\n"),
    }
}

/// Returns a text that a spreadsheet does not take for a formula.
pub(crate) fn spreadsheet_cell(text: String) -> String {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@') => format!(" {text}"),
        _ => text,
    }
}

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Key`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let problem =
            |error: serde_json::Error| Error::Key { path: path.to_owned(), problem: error.to_string() };
        serde_json::from_str(&read(path)?).map_err(problem)
    }

    /// Returns the raters with sheets.
    pub fn raters(&self) -> impl Iterator<Item = &str> {
        self.sheets.keys().map(String::as_str)
    }

    /// Reads raters' files, from the page or a spreadsheet, and converts each choice to a model.
    ///
    /// # Errors
    ///
    /// [`Error::Read`]; [`Error::Row`] for a row of another sheet, an unknown item, a duplicate, or a choice other than
    /// 1, 2 and =. [`Error::Sheet`] for a file of an unknown rater, a second file of a rater, or missing items.
    pub fn unblind(&self, paths: &[PathBuf]) -> Result<Vec<Rating>, Error> {
        let mut seen: BTreeMap<String, &Path> = BTreeMap::new();
        let mut ratings = Vec::new();
        for path in paths {
            let text = read(path)?;
            let rows = rows(path, &text, ["study", "rater", "item", "choice"], 4)?;
            let refuse = |problem: String| Error::Sheet { path: path.clone(), problem };
            let Some((_, [_, rater, ..])) = rows.first() else {
                return Err(refuse("holds no ratings".to_owned()));
            };
            let sheet = self.sheets.get(rater).ok_or_else(|| {
                let known = self.raters().collect::<Vec<_>>().join(", ");
                refuse(format!("rater {rater:?} has no sheet in this study; it has {known}"))
            })?;
            if let Some(other) = seen.insert(rater.clone(), path) {
                return Err(refuse(format!("{rater} handed in {} already", other.display())));
            }
            ratings.extend(unblind_sheet(path, rater, sheet, &rows)?);
        }
        Ok(ratings)
    }
}

fn unblind_sheet(
    path: &Path,
    rater: &str,
    sheet: &KeySheet,
    rows: &[(u64, [String; 4])],
) -> Result<Vec<Rating>, Error> {
    let at = |line: u64, problem: String| Error::Row { path: path.to_owned(), line, problem };
    let mut open: BTreeSet<usize> = (1..=sheet.shown.len()).collect();
    let mut ratings = Vec::new();
    for (line, [study, of_rater, item, choice]) in rows {
        if *study != sheet.study || of_rater != rater {
            let problem = format!(
                "belongs to sheet {study:?} of {of_rater:?}, this study's sheet of {rater} is {:?}; hand in the file \
                 of the sheet that was made with this key",
                sheet.study
            );
            return Err(at(*line, problem));
        }
        let last = sheet.shown.len();
        let place: usize = item
            .parse()
            .ok()
            .filter(|place| (1..=last).contains(place))
            .ok_or_else(|| at(*line, format!("item {item:?} is none of 1 to {last}")))?;
        if choice.is_empty() {
            continue;
        }
        if !open.remove(&place) {
            return Err(at(*line, format!("item {place} is rated twice; keep one of the rows")));
        }
        let shown = &sheet.shown[place - 1];
        let choice = match (choice.as_str(), shown.first) {
            ("1", Side::Model1) | ("2", Side::Model2) => Choice::Model1,
            ("2", Side::Model1) | ("1", Side::Model2) => Choice::Model2,
            ("=" | "equal", _) => Choice::Equal,
            _ => return Err(at(*line, format!("choice {choice:?}: write 1, 2, = or equal"))),
        };
        ratings.push(Rating {
            item: shown.item.clone(),
            rater: rater.to_owned(),
            choice,
            category: Some(shown.category.clone()),
            question: Some(shown.question.to_string()),
        });
    }
    if let Some(first) = open.first() {
        let problem = format!("{rater} left {} items open, the first is item {first}", open.len());
        return Err(Error::Sheet { path: path.to_owned(), problem });
    }
    ratings.sort_by(|a, b| a.item.cmp(&b.item));
    Ok(ratings)
}
