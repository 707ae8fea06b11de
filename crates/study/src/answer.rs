//! The answer to one question: its tables, figures, verdicts and sample answers.

use std::rc::Rc;

use experiment::{Collected, Evaluated, Failure, GOLD, Pools, Runner, Subject, note_of_failures};
use report::page::Dialogue;
use report::table::Table;

use crate::error::StudyError;
use crate::headline::{self, Headlined};
use crate::people::Rated;
use crate::printed::printed;
use crate::question::Question;
use crate::results::{Figure, Results};
use crate::study::Study;
use crate::verdicts::{self, Settled};

/// Number of sample questions in the report.
const SAMPLES: usize = 8;

/// The answer to one question.
pub(crate) struct Answered {
    pub(crate) question: &'static dyn Question,
    /// The recipe of its results, as TOML.
    pub(crate) recipe: String,
    pub(crate) tables: Vec<Table>,
    /// The paper's tables on the question.
    pub(crate) printed: Vec<Table>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) samples: Vec<Dialogue>,
    pub(crate) headlines: Vec<Headlined>,
    pub(crate) settled: Vec<Settled>,
    pub(crate) failed: Vec<Failure>,
}

impl Answered {
    pub(crate) fn new(
        study: &Study,
        question: &'static dyn Question,
        collected: &Collected,
        pools: Rc<Pools<'_>>,
        rated: Option<&Rated>,
    ) -> Result<Self, StudyError> {
        let results = Results::within(study.recipe(), study.runner(), collected, pools);
        let mut tables = question.tables(&results)?;
        if let Some(note) = note_of_failures(&collected.failed) {
            tables.iter_mut().for_each(|table| table.notes.push(note.clone()));
        }
        Ok(Self {
            question,
            recipe: trainer::recipe::to_toml(study.recipe()),
            tables,
            printed: printed(question, study.recipe())?,
            figures: question.figures(&results)?,
            samples: samples(study.runner(), &collected.evaluated)?,
            headlines: headline::measure(&results.scores, study.recipe(), question.headlines(&results)?)?,
            settled: verdicts::settle(&results.scores, study.recipe(), question.claims(&results)?, rated)?,
            failed: collected.failed.clone(),
        })
    }
}

/// Returns the first question of each category with the answers of all fully trained policies.
fn samples(runner: &Runner, evaluated: &[Evaluated]) -> Result<Vec<Dialogue>, StudyError> {
    let shown: Vec<&Evaluated> =
        evaluated.iter().filter(|e| e.subject.seed() == 0 && runner.is_final(&e.subject)).collect();
    let mut answers = Vec::new();
    for evaluated in &shown {
        answers.push(evaluated.evaluation.answers()?);
    }
    let mut dialogues = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for question in runner.source().questions() {
        if seen.contains(&question.category.as_str()) || dialogues.len() == SAMPLES {
            continue;
        }
        seen.push(&question.category);
        let mut turns = vec![("user".to_owned(), question.turns[0].clone())];
        for (evaluated, answers) in shown.iter().zip(&answers) {
            let answer = answers.iter().find(|a| a.question_id == question.question_id);
            let Some(text) = answer.and_then(|a| a.turns().first()) else { continue };
            let gold = evaluated
                .evaluation
                .scores
                .iter()
                .find(|s| (s.scorer.as_str(), s.question_id, s.turn) == (GOLD, question.question_id, 1));
            let gold = gold.and_then(|s| s.score).map_or(String::new(), |q| format!(" — gold {q:.1}"));
            turns.push((format!("{}{gold}", short_name(&evaluated.subject)), text.clone()));
        }
        dialogues.push(Dialogue { heading: question.category.clone(), turns, note: None });
    }
    Ok(dialogues)
}

fn short_name(subject: &Subject) -> String {
    match subject {
        Subject::Baseline { .. } => "SFT".to_owned(),
        Subject::Trained { cell, .. } => cell.data_and_epochs(),
    }
}
