//! Two models' answers to the same questions, and the blinded sheets for raters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mtbench::{Answer, Question, question_label, read_lines};
use rand::seq::SliceRandom as _;
use seeds::Seeds;

use crate::key::{Key, KeySheet, Shown, Side, StudySheets};
use crate::sheet::{ComparisonItem, ComparisonSheet};
use crate::{Error, ratings::item_name};

/// The instructions of a sheet.
const INSTRUCTIONS: &str = "You will see a question and two answers to it. Choose the answer that helps more: that is \
    correct, does what was asked, and is clear. Longer is not better. If you cannot tell, call them equal.";

/// Answers of two models, item by item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    models: [String; 2],
    items: Vec<Item>,
}

/// One turn of one question, answered by both models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The question's key.
    pub question: u64,
    /// The turn, from 1.
    pub turn: usize,
    /// The question's category.
    pub category: String,
    /// The user's messages up to this turn.
    pub prompts: Vec<String>,
    /// Either model's messages up to this turn.
    pub answers: [Vec<String>; 2],
}

impl Comparison {
    /// Reads questions and two answer files in FastChat's format, and pairs the answers. The last answer to a question
    /// counts.
    ///
    /// As in FastChat, a model is the name of its file. Two files of the same name are distinguished by their `model_id`.
    ///
    /// # Errors
    ///
    /// [`Error::Bench`] for files that cannot be read, and those of [`new`](Self::new).
    pub fn read(questions: &Path, first: &Path, second: &Path) -> Result<Self, Error> {
        let questions: Vec<Question> = read_lines(questions)?;
        let answers: [Vec<Answer>; 2] = [read_lines(first)?, read_lines(second)?];
        let comparison = Self::new(&questions, &answers[0], &answers[1])?;
        let name = |path: &Path| path.file_stem().map(|stem| stem.display().to_string());
        Ok(match (name(first), name(second)) {
            (Some(one), Some(other)) if one != other => Self { models: [one, other], ..comparison },
            _ => comparison,
        })
    }

    /// Pairs two models' answers, in the questions' order. Questions without answers are left out.
    ///
    /// # Errors
    ///
    /// [`Error::NotComparable`] for a question that only one model answered, that has no text, or whose answers have
    /// different numbers of turns; [`Error::NothingToCompare`].
    pub fn new(questions: &[Question], first: &[Answer], second: &[Answer]) -> Result<Self, Error> {
        let by_question = |answers: &[Answer]| -> BTreeMap<u64, Vec<String>> {
            answers.iter().map(|answer| (answer.question_id, answer.turns().to_vec())).collect()
        };
        let sides = [by_question(first), by_question(second)];
        let texts: BTreeMap<u64, &Question> = questions.iter().map(|q| (q.question_id, q)).collect();
        let refuse = |question: u64, problem: String| Error::NotComparable {
            question: question_label(question),
            problem,
        };
        for question in sides.iter().flat_map(BTreeMap::keys) {
            if !texts.contains_key(question) {
                return Err(refuse(*question, "is answered, but is not among the questions".to_owned()));
            }
        }
        let mut items = Vec::new();
        for question in questions {
            let id = question.question_id;
            let (one, other) = match (sides[0].get(&id), sides[1].get(&id)) {
                (Some(one), Some(other)) => (one, other),
                (None, None) => continue,
                (None, _) => return Err(refuse(id, "the first file has no answer".to_owned())),
                (_, None) => return Err(refuse(id, "the second file has no answer".to_owned())),
            };
            let turns = question.turns.len();
            if one.len() != turns || other.len() != turns {
                let problem = format!("has {turns} turns, answered by {} and {}", one.len(), other.len());
                return Err(refuse(id, problem));
            }
            items.extend((1..=turns).map(|turn| Item {
                question: id,
                turn,
                category: question.category.clone(),
                prompts: question.turns[..turn].to_vec(),
                answers: [one[..turn].to_vec(), other[..turn].to_vec()],
            }));
        }
        let name = |answers: &[Answer]| answers.first().map(|answer| answer.model_id.clone());
        let (Some(one), Some(other), false) = (name(first), name(second), items.is_empty()) else {
            return Err(Error::NothingToCompare);
        };
        Ok(Self { models: [one, other], items })
    }

    /// Returns the models' names.
    pub fn models(&self) -> &[String; 2] {
        &self.models
    }

    /// Returns the items.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Creates one sheet for each of `raters`, and the key.
    ///
    /// Each rater has a random order of questions, with a question's turns in sequence. Each model is first on half of the
    /// questions, drawn for each rater, so that position bias favors neither. The same comparison, raters and seeds give
    /// the same sheets.
    ///
    /// # Errors
    ///
    /// [`Error::Rater`] without raters, and for names that are empty, contain a line break, or differ only in case or
    /// punctuation.
    pub fn sheets(&self, raters: &[String], seeds: &Seeds) -> Result<StudySheets, Error> {
        check_raters(raters)?;
        let mut key = Key { models: self.models.clone(), sheets: BTreeMap::new() };
        let mut sheets = Vec::new();
        let fingerprint = self.fingerprint();
        for rater in raters {
            let seeds = seeds.child("sheet").child(rater);
            let shown = self.order(&seeds);
            let mut hasher = blake3::Hasher::new();
            hasher.update(&fingerprint).update(rater.as_bytes());
            for Shown { item, first, .. } in &shown {
                hasher.update(format!("\0{item}{first:?}").as_bytes());
            }
            let study = hasher.finalize().to_hex()[..16].to_owned();
            let items = (1..).zip(&shown).map(|(place, shown)| self.blinded(place, shown)).collect();
            sheets.push(ComparisonSheet {
                study: study.clone(),
                rater: rater.clone(),
                instructions: INSTRUCTIONS.to_owned(),
                items,
            });
            key.sheets.insert(rater.clone(), KeySheet { study, shown });
        }
        Ok(StudySheets { sheets, key })
    }

    /// Returns the items in one rater's order, with the first side of each.
    fn order(&self, seeds: &Seeds) -> Vec<Shown> {
        let mut questions: Vec<u64> = self.items.iter().map(|item| item.question).collect();
        questions.dedup();
        questions.shuffle(&mut seeds.stream("order"));
        let half = questions.len() / 2;
        let mut sides = vec![Side::Model1; half];
        sides.resize(questions.len(), Side::Model2);
        sides.shuffle(&mut seeds.stream("sides"));
        let shown = |(question, side): (&u64, &Side)| -> Vec<Shown> {
            let of_question = self.items.iter().filter(|item| item.question == *question);
            of_question
                .map(|item| Shown {
                    item: item_name(item.question, item.turn),
                    question: item.question,
                    category: item.category.clone(),
                    first: *side,
                })
                .collect()
        };
        questions.iter().zip(&sides).flat_map(shown).collect()
    }

    fn blinded(&self, place: usize, shown: &Shown) -> ComparisonItem {
        let found = self.items.iter().find(|item| item_name(item.question, item.turn) == shown.item);
        let item = found.expect("the order lists this comparison's items");
        let [one, other] = item.answers.clone();
        ComparisonItem {
            item: place.to_string(),
            category: item.category.clone(),
            prompts: item.prompts.clone(),
            answers: match shown.first {
                Side::Model1 => [one, other],
                Side::Model2 => [other, one],
            },
        }
    }

    /// Returns a hash of the sheets' texts. Another wording is another study.
    fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for item in &self.items {
            let texts = item.prompts.iter().chain(&item.answers[0]).chain(&item.answers[1]);
            hasher.update(&item.question.to_le_bytes());
            for text in texts {
                hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }
}

/// Names become file names, also on systems that ignore case.
pub(crate) fn check_raters(raters: &[String]) -> Result<(), Error> {
    let mut taken = BTreeSet::new();
    if raters.is_empty() {
        return Err(Error::Rater { name: String::new(), problem: "name one rater or more" });
    }
    for name in raters {
        let refuse = |problem| Err(Error::Rater { name: name.clone(), problem });
        if name.trim() != name || !name.chars().any(char::is_alphanumeric) {
            return refuse("a name has a letter or digit, and no spaces around it");
        }
        if name.chars().any(char::is_control) {
            return refuse("a name has no line break");
        }
        if !taken.insert(crate::key::file_stem(name)) {
            return refuse(
                "is too close to another rater's name; let them differ by more than case or punctuation",
            );
        }
    }
    Ok(())
}
