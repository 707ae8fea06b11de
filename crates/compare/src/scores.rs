//! Scores of all sources, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::form::{Context, Form, Found, Policies, Policy};
use crate::place::{Place, Row};
use crate::{Error, Source, reading};

/// Scores of several arms on questions, by one scorer or more.
#[derive(Debug, Default)]
pub struct Scores {
    pub(crate) arms: Names,
    pub(crate) scorers: Names,
    pub(crate) seeds: Names,
    pub(crate) questions: Names,
    pub(crate) turns: Names,
    samples: Names,
    /// The category of each question, if it has one.
    pub(crate) categories: BTreeMap<usize, String>,
    fingerprints: BTreeMap<usize, String>,
    pub(crate) rows: Vec<Score>,
    /// The position of each score.
    seen: BTreeMap<[usize; 6], (usize, Place)>,
    files: Vec<PathBuf>,
    notes: Vec<String>,
}

/// A score, with the indices of its names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Score {
    pub(crate) arm: usize,
    pub(crate) scorer: usize,
    pub(crate) seed: usize,
    pub(crate) question: usize,
    pub(crate) turn: usize,
    /// `None` if the tool recorded that there is no score.
    pub(crate) score: Option<f64>,
    pub(crate) characters: Option<f64>,
}

/// Returns the arm of each training run of a study's `results.parquet`, by its address in the column `cell`.
///
/// # Errors
///
/// Those of [`read_scores`].
pub fn study_arms(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let policies = study_policies(path)?;
    let mut arms = BTreeMap::new();
    reading::for_each(path, |_, row| {
        if let (Some(serde_json::Value::String(cell)), Some(arm)) = (row.get("cell"), policies.name(&row)) {
            arms.insert(cell.clone(), arm.to_owned());
        }
        Ok(())
    })?;
    Ok(arms)
}

/// Names in the order of their first appearance.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: Vec<String>,
    places: BTreeMap<String, usize>,
}

impl Names {
    fn place(&mut self, name: &str) -> usize {
        if let Some(&place) = self.places.get(name) {
            return place;
        }
        self.names.push(name.to_owned());
        self.places.insert(name.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    pub(crate) fn all(&self) -> &[String] {
        &self.names
    }
}

/// Reads the scores of all sources.
///
/// # Errors
///
/// [`Error::Read`], [`Error::Parquet`], [`Error::File`] for a file in no known form, [`Error::Row`] for a row without a
/// valid score, a second score of the same answer, or a question with another text or category than before.
pub fn read_scores(sources: &[Source]) -> Result<Scores, Error> {
    let mut scores = Scores::default();
    for source in sources {
        for path in source.files()? {
            scores.add_file(&path, source)?;
        }
    }
    Ok(scores)
}

impl Scores {
    /// Returns the arms, in the order of their appearance.
    pub fn arms(&self) -> &[String] {
        self.arms.all()
    }

    /// Returns the scorers, in the order of their appearance.
    pub fn scorers(&self) -> &[String] {
        self.scorers.all()
    }

    /// Returns what was read, by file: the form, the number of scores, and the columns that were ignored.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the questions with their categories, in the order of their appearance.
    pub fn question_categories(&self) -> Vec<(String, Option<String>)> {
        let category = |(at, name): (usize, &String)| (name.clone(), self.categories.get(&at).cloned());
        self.questions.all().iter().enumerate().map(category).collect()
    }

    /// Returns the names of a score's answer.
    pub(crate) fn answer(&self, row: &Score) -> [String; 4] {
        let names = [
            (&self.arms, row.arm),
            (&self.seeds, row.seed),
            (&self.questions, row.question),
            (&self.turns, row.turn),
        ];
        names.map(|(names, at)| names.all()[at].clone())
    }

    fn add_file(&mut self, path: &Path, source: &Source) -> Result<(), Error> {
        self.files.push(path.to_owned());
        let before = self.rows.len();
        let mut form = None;
        let mut ignored: BTreeSet<String> = BTreeSet::new();
        let mut policies = Policies::default();
        reading::for_each(path, |place, row| {
            if form.is_none() {
                form = Some(form_of(path, &row, source)?);
                if form == Some(Form::Study) {
                    policies = study_policies(path)?;
                }
            }
            let Some(form) = form else { return Ok(()) };
            ignored.extend(row.keys().filter(|column| !form.knows(column)).cloned());
            let context = Context { path, has_arm: source.arm.is_some(), policies: &policies };
            let at = |problem| Error::Row { path: path.to_owned(), place, problem };
            for found in form.scores(&row, &context).map_err(at)? {
                self.add(found, source, place)?;
            }
            Ok(())
        })?;
        let Some(form) = form else {
            return Err(Error::File { path: path.to_owned(), problem: "there are no rows".to_owned() });
        };
        let mut note = format!("{}: {}, {} scores", path.display(), form.name(), self.rows.len() - before);
        if !ignored.is_empty() {
            let names: Vec<String> = ignored.iter().map(|name| format!("`{name}`")).collect();
            note += &format!("; ignored columns: {}", names.join(", "));
        }
        self.notes.push(note);
        Ok(())
    }

    fn add(&mut self, found: Found, source: &Source, place: Place) -> Result<(), Error> {
        let file = self.files.len() - 1;
        let at = |path: &Path, problem| Error::Row { path: path.to_owned(), place, problem };
        let or_only = |name: Option<String>| name.unwrap_or_default();
        let scorer = or_only(found.scorer);
        let arm = source.arm.clone().unwrap_or(found.arm);
        let seed = source.seed.clone().unwrap_or(or_only(found.seed));
        let (turn, sample) = (or_only(found.turn), or_only(found.sample));
        let row = Score {
            arm: self.arms.place(&arm),
            scorer: self.scorers.place(&scorer),
            seed: self.seeds.place(&seed),
            question: self.questions.place(&found.question),
            turn: self.turns.place(&turn),
            score: found.score,
            characters: found.characters,
        };
        let path = &self.files[file];
        let key = [row.arm, row.scorer, row.seed, row.question, row.turn, self.samples.place(&sample)];
        if let Some((file, first)) = self.seen.insert(key, (file, place)) {
            let first = match &self.files[file] {
                earlier if earlier == path => first.to_string(),
                earlier => format!("{}, {first}", earlier.display()),
            };
            let problem = format!(
                "arm {arm:?} has a score on question {:?} already, in {first}; keep one of them, or add the columns \
                 that distinguish them: `seed`, `sample`, `turn`, `scorer`",
                found.question
            );
            return Err(at(path, problem));
        }
        for (known, found, what) in [
            (&mut self.categories, found.category, "category"),
            (&mut self.fingerprints, found.fingerprint, "text (`doc_hash`)"),
        ] {
            let Some(value) = found else { continue };
            let earlier = known.entry(row.question).or_insert_with(|| value.clone());
            if *earlier != value {
                let question = &self.questions.all()[row.question];
                let problem = format!(
                    "question {question:?} has another {what} here, {value:?}, than before, {earlier:?}"
                );
                return Err(at(path, problem));
            }
        }
        self.rows.push(row);
        Ok(())
    }
}

fn form_of(path: &Path, row: &Row, source: &Source) -> Result<Form, Error> {
    Form::of(row, source.arm.is_some()).ok_or_else(|| {
        let columns: Vec<String> = row.keys().map(|name| format!("`{name}`")).collect();
        Error::File {
            path: path.to_owned(),
            problem: format!(
                "has no columns `arm`, `question` and `score`, and is no file of a study, lm-evaluation-harness, \
                 inspect_ai or FastChat; its columns are {}",
                columns.join(", ")
            ),
        }
    })
}

fn study_policies(path: &Path) -> Result<Policies, Error> {
    let mut policies = BTreeSet::new();
    reading::for_each(path, |_, row| {
        policies.extend(Policy::of(&row));
        Ok(())
    })?;
    Ok(Policies::new(policies))
}
