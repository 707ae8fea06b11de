//! Single answers that people rate from 1 to 10: blinded sheets, their key, and the ratings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom as _;
use seeds::Seeds;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::comparison::check_raters;
use crate::files::{csv_text, read, rows, write};
use crate::key::{KEY_FILE, file_stem, spreadsheet_cell, turns_in_cell};
use crate::sheet::page;

/// The best rating; the worst is 1.
const SCALE: u8 = 10;

const INSTRUCTIONS: &str = "You will see a question and an answer to it. Rate how much the answer helps, from 1 (not at all) to 10 \
    (it could not be better): whether it is correct, does what was asked, and is clear. Longer is not better.";

/// An answer to one turn of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerToRate {
    /// The policy, as scores name it.
    pub arm: String,
    /// Its training seed.
    pub seed: String,
    /// The question, as scores name it.
    pub question: String,
    /// The turn, from 1.
    pub turn: usize,
    /// The question's category.
    pub category: String,
    /// The user's messages up to this turn.
    pub prompts: Vec<String>,
    /// The policy's messages up to this turn.
    pub answers: Vec<String>,
}

/// One rater's sheet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RatingSheet {
    /// The id of the sheet, under which ratings are stored and returned.
    pub study: String,
    /// The rater's name.
    pub rater: String,
    /// The instructions.
    pub instructions: String,
    /// The best rating.
    pub scale: u8,
    /// The answers, in display order.
    pub items: Vec<RatingItem>,
}

/// One answer of a sheet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RatingItem {
    /// The item's name in the returned file.
    pub item: String,
    /// The category, shown above the answer.
    pub category: String,
    /// The user's messages by turn; the last one is answered.
    pub prompts: Vec<String>,
    /// One answer: a message per turn; the last one is rated.
    pub answers: [Vec<String>; 1],
}

/// The key of rating sheets. Keep it away from the raters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatingKey {
    /// The sheets, by rater.
    rated: BTreeMap<String, RatedSheet>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RatedSheet {
    study: String,
    items: Vec<Rated>,
}

/// The answer behind an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rated {
    arm: String,
    seed: String,
    question: String,
    turn: usize,
}

/// Sheets for all raters, and their key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatingSheets {
    /// One sheet per rater.
    pub sheets: Vec<RatingSheet>,
    /// The key.
    pub key: RatingKey,
}

/// One rater's rating of one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerRating {
    /// The policy.
    pub arm: String,
    /// Its training seed.
    pub seed: String,
    /// The question.
    pub question: String,
    /// The turn, from 1.
    pub turn: usize,
    /// The rater.
    pub rater: String,
    /// The rating, from 1 to 10.
    pub score: f64,
}

/// Creates one sheet for each of `raters`, and the key.
///
/// Each rater has a random order of questions and, within a question, of policies, with the turns in sequence.
///
/// # Errors
///
/// [`Error::Rater`] as for comparisons; [`Error::NothingToCompare`] without answers.
pub fn rating_sheets(
    answers: &[AnswerToRate],
    raters: &[String],
    seeds: &Seeds,
) -> Result<RatingSheets, Error> {
    check_raters(raters)?;
    if answers.is_empty() {
        return Err(Error::NothingToCompare);
    }
    let mut sheets = Vec::new();
    let mut rated = BTreeMap::new();
    for rater in raters {
        let shown = order(answers, &seeds.child("rating-sheet").child(rater));
        let mut hasher = blake3::Hasher::new();
        hasher.update(rater.as_bytes());
        for answer in &shown {
            hasher.update(format!("{answer:?}").as_bytes());
        }
        let study = hasher.finalize().to_hex()[..16].to_owned();
        let item = |(place, answer): (usize, &&AnswerToRate)| RatingItem {
            item: place.to_string(),
            category: answer.category.clone(),
            prompts: answer.prompts.clone(),
            answers: [answer.answers.clone()],
        };
        sheets.push(RatingSheet {
            study: study.clone(),
            rater: rater.clone(),
            instructions: INSTRUCTIONS.to_owned(),
            scale: SCALE,
            items: (1..).zip(&shown).map(item).collect(),
        });
        let items = shown.iter().map(|answer| Rated {
            arm: answer.arm.clone(),
            seed: answer.seed.clone(),
            question: answer.question.clone(),
            turn: answer.turn,
        });
        rated.insert(rater.clone(), RatedSheet { study, items: items.collect() });
    }
    Ok(RatingSheets { sheets, key: RatingKey { rated } })
}

fn order<'a>(answers: &'a [AnswerToRate], seeds: &Seeds) -> Vec<&'a AnswerToRate> {
    let mut questions: Vec<&str> = answers.iter().map(|answer| answer.question.as_str()).collect();
    questions.sort_unstable();
    questions.dedup();
    questions.shuffle(&mut seeds.stream("order"));
    let mut shown = Vec::new();
    for question in questions {
        let of_question = || answers.iter().filter(|answer| answer.question == question);
        let policies: BTreeSet<(&str, &str)> =
            of_question().map(|answer| (answer.arm.as_str(), answer.seed.as_str())).collect();
        let mut policies: Vec<(&str, &str)> = policies.into_iter().collect();
        policies.shuffle(&mut seeds.child("policies").stream(question));
        for (arm, seed) in policies {
            let mut turns: Vec<&AnswerToRate> =
                of_question().filter(|answer| answer.arm == arm && answer.seed == seed).collect();
            turns.sort_by_key(|answer| answer.turn);
            shown.extend(turns);
        }
    }
    shown
}

impl RatingSheets {
    /// Writes `key.json`, and `sheet-RATER.html` and `sheet-RATER.csv` for every rater, into `dir`. Returns the paths, the
    /// key's first. In a spreadsheet, raters fill in the column `score` with numbers from 1 to 10.
    ///
    /// # Errors
    ///
    /// [`Error::Write`]; [`Error::Key`] if `dir` has the key of other sheets, which would become unreadable.
    pub fn write(&self, dir: &Path) -> Result<Vec<PathBuf>, Error> {
        let path = dir.join(KEY_FILE);
        if path.exists() && RatingKey::read(&path).ok().as_ref() != Some(&self.key) {
            let problem =
                "it belongs to other sheets, whose ratings it reads; choose another folder".to_owned();
            return Err(Error::Key { path, problem });
        }
        fs::create_dir_all(dir).map_err(|source| Error::Write { path: dir.to_owned(), source })?;
        let json =
            serde_json::to_string_pretty(&self.key).expect("a key has string keys and plain values only");
        write(&path, &(json + "\n"))?;
        let mut written = vec![path];
        for sheet in &self.sheets {
            let stem = format!("sheet-{}", file_stem(&sheet.rater));
            let html = page("Rate answers", &sheet.rater, sheet);
            for (ending, text) in [("html", html), ("csv", spreadsheet(sheet))] {
                let path = dir.join(format!("{stem}.{ending}"));
                write(&path, &text)?;
                written.push(path);
            }
        }
        Ok(written)
    }
}

fn spreadsheet(sheet: &RatingSheet) -> String {
    let header = ["study", "rater", "item", "category", "conversation", "answer", "score"];
    let row = |item: &RatingItem| {
        [
            sheet.study.clone(),
            sheet.rater.clone(),
            item.item.clone(),
            item.category.clone(),
            spreadsheet_cell(turns_in_cell(&item.prompts)),
            spreadsheet_cell(turns_in_cell(&item.answers[0])),
            String::new(),
        ]
    };
    csv_text(header, sheet.items.iter().map(row))
}

impl RatingKey {
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

    /// Returns whether the file is a key of rating sheets, not of comparisons.
    pub fn is_key(path: &Path) -> bool {
        Self::read(path).is_ok()
    }

    /// Reads raters' files, from the page or a spreadsheet, and finds the answer behind each item.
    ///
    /// # Errors
    ///
    /// [`Error::Read`]; [`Error::Row`] for a row of another sheet, an unknown item, a duplicate, or a score outside of 1
    /// to 10; [`Error::Sheet`] for a file of an unknown rater, a second file of a rater, or items without a score.
    pub fn unblind(&self, paths: &[PathBuf]) -> Result<Vec<AnswerRating>, Error> {
        let mut seen: BTreeMap<String, &Path> = BTreeMap::new();
        let mut ratings = Vec::new();
        for path in paths {
            let rows = rows(path, &read(path)?, ["study", "rater", "item", "score"], 4)?;
            let refuse = |problem: String| Error::Sheet { path: path.clone(), problem };
            let Some((_, [_, rater, ..])) = rows.first() else {
                return Err(refuse("holds no ratings".to_owned()));
            };
            let sheet = self.rated.get(rater).ok_or_else(|| {
                let known = self.rated.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                refuse(format!("rater {rater:?} has no sheet in this study; it has {known}"))
            })?;
            if let Some(other) = seen.insert(rater.clone(), path) {
                return Err(refuse(format!("{rater} handed in {} already", other.display())));
            }
            ratings.extend(sheet.unblind(path, rater, &rows)?);
        }
        Ok(ratings)
    }
}

impl RatedSheet {
    fn unblind(
        &self,
        path: &Path,
        rater: &str,
        rows: &[(u64, [String; 4])],
    ) -> Result<Vec<AnswerRating>, Error> {
        let mut scores: BTreeMap<usize, f64> = BTreeMap::new();
        for (line, [study, of_rater, item, score]) in rows {
            let at = |problem: String| Error::Row { path: path.to_owned(), line: *line, problem };
            if *study != self.study || of_rater != rater {
                let problem =
                    format!("belongs to sheet {study:?} of {of_rater:?}, not to {:?} of {rater}", self.study);
                return Err(at(problem));
            }
            let last = self.items.len();
            let place: usize = item
                .parse()
                .ok()
                .filter(|place| (1..=last).contains(place))
                .ok_or_else(|| at(format!("item {item:?} is none of 1 to {last}")))?;
            if score.is_empty() {
                continue;
            }
            let value = score
                .replace(',', ".")
                .parse()
                .ok()
                .filter(|value| (1.0..=f64::from(SCALE)).contains(value))
                .ok_or_else(|| at(format!("score {score:?}: write a number from 1 to {SCALE}")))?;
            if scores.insert(place, value).is_some() {
                return Err(at(format!("item {place} is rated twice; keep one of the rows")));
            }
        }
        let open: Vec<usize> = (1..=self.items.len()).filter(|place| !scores.contains_key(place)).collect();
        if let Some(first) = open.first() {
            let problem = format!("{rater} left {} items open, the first is item {first}", open.len());
            return Err(Error::Sheet { path: path.to_owned(), problem });
        }
        let rating = |(place, score): (usize, f64)| {
            let Rated { arm, seed, question, turn } = self.items[place - 1].clone();
            AnswerRating { arm, seed, question, turn, rater: rater.to_owned(), score }
        };
        Ok(scores.into_iter().map(rating).collect())
    }
}

/// Returns ratings as CSV, in the columns that `study compare --ratings` reads.
pub fn answer_ratings_csv(ratings: &[AnswerRating]) -> String {
    let row = |rating: &AnswerRating| {
        let AnswerRating { arm, seed, question, turn, rater, score } = rating;
        [arm.clone(), seed.clone(), question.clone(), turn.to_string(), rater.clone(), score.to_string()]
    };
    csv_text(["arm", "seed", "question", "turn", "rater", "score"], ratings.iter().map(row))
}
