//! The conclusion of a study: tables, figures, report and scores on disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use experiment::results::{PolicyRow, ResultsError, ScoreRow, write_parquet, write_policies};
use experiment::{Analysis, Collected, Evaluated, EvaluationId, Pools, Setup, table_of_failures};
use report::table::Table;
use report::{write_figures, write_report, write_tables};

use crate::answer::Answered;
use crate::components::components;
use crate::coverage::Coverage;
use crate::error::StudyError;
use crate::headline::{self, ANSWERS, Headlined};
use crate::people::Rated;
use crate::question::Question;
use crate::study::Study;
use crate::verdicts::{self, Settled};
use crate::{manifest, summary};

/// The findings of a study.
#[derive(Debug)]
pub struct Findings {
    /// Failed policies with their reasons; `None` without failures.
    pub failed: Option<Table>,
    /// The answers to the plain questions; `None` without any.
    pub answers: Option<Table>,
    /// The verdicts on claims; `None` without claims.
    pub verdicts: Option<Table>,
    /// The verdicts' differences as people's ratings correct them; `None` without ratings.
    pub people: Option<Table>,
    /// The variance components over all questions of the folder; `None` with one seed.
    pub components: Option<Table>,
    /// The coverage of intervals over all questions of the folder; `None` without ground truth.
    pub coverage: Option<Table>,
    /// The tables of the questions, in the paper's order.
    pub tables: Vec<Table>,
    /// The file of the report.
    pub report: PathBuf,
    /// The error of a study with failed policies.
    pub incomplete: Option<StudyError>,
}

/// Writes tables and figures of `asked`, whose grids are complete. Report, `results.parquet` and `policies.parquet` then
/// contain all finished questions of the folder with the same recipe.
///
/// # Errors
///
/// If a statistic is not defined, or a file cannot be read or written.
pub fn conclude(study: &Study, asked: &[&dyn Question]) -> Result<Findings, StudyError> {
    let output = study.runner().output();
    for question in asked {
        manifest::record(&output, *question, study.recipe())?;
    }
    let mut tables = Vec::new();
    let mut answers: Vec<Answered> = Vec::new();
    let mut rows = Rows::default();
    let mut coverage = Coverage::default();
    let is_asked =
        |question: &dyn Question| asked.iter().any(|other| other.about().name == question.about().name);
    let mut answered: Vec<(&'static dyn Question, Study, Collected)> = Vec::new();
    for &question in study.questions() {
        let stored = manifest::answered(study, question)?;
        answered.extend(stored.map(|(study, collected)| (question, study, collected)));
    }
    // All differences of the folder share the variance between seeds.
    let all = answered.iter().flat_map(|(.., collected)| &collected.evaluated);
    let pools = Rc::new(Pools::new(study.runner().setup(), all));
    answered
        .iter()
        .for_each(|(_, study, collected)| rows.extend(study.runner().setup(), &collected.evaluated));
    let results = rows.write(&output)?;
    let rated = Rated::read(study.recipe(), study.runner().source().questions(), &results)?;
    for (question, study, collected) in &answered {
        let (question, setup) = (*question, study.runner().setup());
        coverage.add(&Analysis::within(setup, collected, Rc::clone(&pools)))?;
        let answer = Answered::new(study, question, collected, Rc::clone(&pools), rated.as_ref())?;
        if is_asked(question) {
            write_tables(&output, &answer.tables)?;
            let svgs = answer.figures.iter().map(|figure| (figure.name.to_owned(), figure.svg.clone()));
            write_figures(&output, &svgs.collect::<Vec<_>>())?;
            tables.extend(answer.tables.clone());
        }
        answers.push(answer);
    }
    let setup = study.runner().setup();
    let coverage = coverage.table(setup)?;
    let components = components(setup, &pools)?;
    let settled =
        |of: &[&Answered]| -> Vec<Settled> { of.iter().flat_map(|answer| answer.settled.clone()).collect() };
    let failed = |of: &[&Answered]| {
        table_of_failures(&of.iter().flat_map(|answer| answer.failed.clone()).collect::<Vec<_>>())
    };
    let headlines = |of: &[&Answered]| -> Vec<Headlined> {
        of.iter().flat_map(|answer| answer.headlines.clone()).collect()
    };
    let all: Vec<&Answered> = answers.iter().collect();
    let opening: Vec<Table> = failed(&all)
        .into_iter()
        .chain(headline::table(study.recipe(), &headlines(&all)))
        .chain(verdicts::table(study.recipe(), &settled(&all)))
        .chain(verdicts::people_table(setup, &settled(&all)))
        .chain(components.clone())
        .chain(coverage.clone())
        .collect();
    write_tables(&output, &opening)?;
    let picture = headline::figure(study.recipe(), &headlines(&all));
    write_figures(&output, &Vec::from_iter(picture.clone().map(|svg| (ANSWERS.to_owned(), svg))))?;
    let these: Vec<&Answered> = answers.iter().filter(|answer| is_asked(answer.question)).collect();
    let (failed, verdicts) = (failed(&these), verdicts::table(study.recipe(), &settled(&these)));
    let headlines = headline::table(study.recipe(), &headlines(&these));
    let people = verdicts::people_table(setup, &settled(&these));
    let report = write_report(&output, &summary::report(study, answers, picture, opening))?;
    Ok(Findings {
        failed,
        answers: headlines,
        verdicts,
        people,
        components,
        coverage,
        tables,
        report,
        incomplete: None,
    })
}

/// Rows of `results.parquet` and `policies.parquet`, each subject once.
#[derive(Default)]
struct Rows {
    scores: Vec<ScoreRow>,
    policies: Vec<PolicyRow>,
    seen: BTreeSet<EvaluationId>,
}

impl Rows {
    fn extend(&mut self, setup: &Setup, evaluated: &[Evaluated]) {
        for subject in evaluated {
            if self.seen.insert(subject.id()) {
                self.scores.extend(subject.rows(setup));
                self.policies.push(subject.policy(setup));
            }
        }
    }

    /// Writes both files with their checksums; returns the file of scores.
    fn write(&self, output: &Path) -> Result<PathBuf, StudyError> {
        let unwritten = |source| ResultsError::Io { action: "write", path: output.to_owned(), source };
        files::unseal(output).map_err(unwritten)?;
        let names = ["results.parquet", "policies.parquet"].map(str::to_owned);
        let scores = output.join(&names[0]);
        write_parquet(&scores, &self.scores)?;
        write_policies(&output.join(&names[1]), &self.policies)?;
        files::seal_files(output, files::MANIFEST, &names).map_err(unwritten)?;
        Ok(scores)
    }
}
