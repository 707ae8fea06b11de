//! Policies that were trained elsewhere, in place of training their cells.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mtbench::{Answer, Question, question_label, read_lines};

use crate::cell::Cell;
use crate::digests::{digest, model_files};
use crate::error::ExperimentError;
use crate::grid::Grid;
use crate::setup::Setup;
use crate::source::DataSource;
use crate::store::Key;

/// The policies of a setup that were trained elsewhere.
#[derive(Debug)]
pub(crate) struct GivenPolicies(Vec<Given>);

/// A policy with its files.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) cell: Cell,
    pub(crate) files: GivenFiles,
    /// The address of its files and its cell.
    pub(crate) key: Key,
}

/// What a policy consists of.
#[derive(Debug)]
pub(crate) enum GivenFiles {
    /// A model's folder.
    Model(PathBuf),
    /// Answers to the benchmark.
    Answers(PathBuf),
}

impl GivenPolicies {
    /// Opens the policies of `setup`.
    pub(crate) fn open(setup: &Setup, source: &DataSource) -> Result<Self, ExperimentError> {
        let mut opened: Vec<Given> = Vec::new();
        for policy in &setup.policies {
            let (cell, path) = (policy.cell(), &policy.path);
            let refuse = |problem: &str| {
                ExperimentError::Unsupported(format!("study.policies, {cell}, {}: {problem}", path.display()))
            };
            if cell.seed >= setup.seeds {
                return Err(refuse("its seed must be below study.seeds, which counts from 0"));
            }
            if opened.iter().any(|other| other.cell == cell) {
                return Err(refuse("an earlier entry has the same cell; remove one of them"));
            }
            let (files, content) = if path.is_dir() {
                (GivenFiles::Model(path.clone()), digest(&model_files(path)?)?)
            } else if !path.is_file() {
                return Err(refuse("it is neither a model's folder nor a file of answers"));
            } else if source.is_sandbox() {
                return Err(refuse("the sandbox also asks held-out questions: give a model's folder"));
            } else if setup.answers.samples.get() > 1 {
                return Err(refuse("a file has one answer a question: set answers.samples to 1"));
            } else {
                answers_elsewhere(path, source.questions())?;
                (GivenFiles::Answers(path.clone()), digest(std::slice::from_ref(path))?)
            };
            let key = Key::of("given policy", &(content, &cell));
            opened.push(Given { cell, files, key });
        }
        Ok(Self(opened))
    }

    /// Returns the policy that takes the place of training `cell`.
    pub(crate) fn of(&self, cell: &Cell) -> Option<&Given> {
        self.0.iter().find(|given| given.cell == *cell)
    }

    /// Returns the cells that `grid` does not have.
    pub(crate) fn outside<'a>(&'a self, grid: &Grid) -> impl Iterator<Item = &'a Cell> {
        let cells: Vec<Cell> = grid.cells().into_iter().cloned().collect();
        self.0.iter().map(|given| &given.cell).filter(move |cell| !cells.contains(cell))
    }
}

/// Reads the answers to `questions` from a file in FastChat's format. The last answer to a question counts.
pub(crate) fn answers_elsewhere(path: &Path, questions: &[Question]) -> Result<Vec<Answer>, ExperimentError> {
    let answers: Vec<Answer> = read_lines(path)?;
    let by_question: BTreeMap<u64, Answer> =
        answers.into_iter().map(|answer| (answer.question_id, answer)).collect();
    let answer = |question: &Question| {
        let found = by_question.get(&question.question_id);
        let complete = found.filter(|answer| answer.turns().len() == question.turns.len());
        complete.cloned().ok_or_else(|| {
            ExperimentError::Unsupported(format!(
                "{} has no answer to all {} turns of question {}; complete it",
                path.display(),
                question.turns.len(),
                question_label(question.question_id)
            ))
        })
    };
    questions.iter().map(answer).collect()
}
