//! What research questions come to: tables, figures, report, scores on disk.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ::report::table::Table;
use ::report::{write_figures, write_report, write_tables};

use crate::analysis::Analysis;
use crate::answer::Answer;
use crate::coverage::Coverage;
use crate::error::StudyError;
use crate::grid::Question;
use crate::results::{PolicyRow, ScoreRow, write_parquet, write_policies};
use crate::runner::{Evaluated, EvaluationId, Runner};
use crate::verdicts::{self, Settled};
use crate::{asked, failures, report};

/// What research questions come to.
#[derive(Debug)]
pub struct Findings {
    /// Which policies could not be had, and why; none where all are there.
    pub missing: Option<Table>,
    /// What becomes of the claims that the questions speak of; none where nothing is compared.
    pub verdicts: Option<Table>,
    /// How often intervals hold the truth, over all questions of the folder; none where it is not known.
    pub coverage: Option<Table>,
    /// The tables of the questions, in the paper's order.
    pub tables: Vec<Table>,
    /// The page that says what was run and what came of it.
    pub report: PathBuf,
}

/// Makes tables and figures of `questions`, all of which were run, and writes them to the study's output folder. Report,
/// `results.parquet` and `policies.parquet` there then hold every question that was answered in the folder under this study's recipe.
///
/// # Errors
///
/// Where a statistic is not defined for the grid, or a file cannot be read or written.
pub fn conclude(runner: &Runner, questions: &[Question]) -> Result<Findings, StudyError> {
    let output = runner.output();
    for &question in questions {
        asked::record(&output, question, runner.recipe())?;
    }
    let mut tables = Vec::new();
    let mut answers: Vec<Answer> = Vec::new();
    let mut rows = Rows::default();
    let mut coverage = Coverage::default();
    for question in Question::ALL {
        let Some((runner, collected)) = asked::answered(runner, question)? else { continue };
        rows.extend(&runner, &collected.evaluated);
        coverage.add(&Analysis::new(runner.recipe(), &collected))?;
        let answer = Answer::new(&runner, question, &collected)?;
        if questions.contains(&question) {
            write_tables(&output, &answer.tables)?;
            let svgs = answer.figures.iter().map(|(name, svg, _)| ((*name).to_owned(), svg.clone()));
            write_figures(&output, &svgs.collect::<Vec<_>>())?;
            tables.extend(answer.tables.clone());
        }
        answers.push(answer);
    }
    let settled = |of: &[Question]| -> Vec<Settled> {
        let these = answers.iter().filter(|answer| of.contains(&answer.question));
        these.flat_map(|answer| answer.settled.clone()).collect()
    };
    let coverage = coverage.table(runner.recipe())?;
    let missing = |of: &[Question]| -> Option<Table> {
        let these = answers.iter().filter(|answer| of.contains(&answer.question));
        failures::table(&these.flat_map(|answer| answer.failed.clone()).collect::<Vec<_>>())
    };
    let opening: Vec<Table> = missing(&Question::ALL)
        .into_iter()
        .chain(verdicts::table(runner.recipe(), &settled(&Question::ALL)))
        .chain(coverage.clone())
        .collect();
    write_tables(&output, &opening)?;
    let missing = missing(questions);
    let verdicts = verdicts::table(runner.recipe(), &settled(questions));
    write_parquet(&output.join("results.parquet"), &rows.scores)?;
    write_policies(&output.join("policies.parquet"), &rows.policies)?;
    let report = write_report(&output, &report::report(runner, answers, opening))?;
    Ok(Findings { missing, verdicts, coverage, tables, report })
}

/// Rows of `results.parquet` and `policies.parquet`, each subject's once, whatever number of questions it serves.
#[derive(Default)]
struct Rows {
    scores: Vec<ScoreRow>,
    policies: Vec<PolicyRow>,
    seen: BTreeSet<EvaluationId>,
}

impl Rows {
    fn extend(&mut self, runner: &Runner, evaluated: &[Evaluated]) {
        for subject in evaluated {
            if self.seen.insert(subject.id()) {
                self.scores.extend(subject.rows(runner.recipe()));
                self.policies.push(subject.policy(runner.recipe()));
            }
        }
    }
}
