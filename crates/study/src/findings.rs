//! What research questions come to: tables, figures, report, scores on disk.

use std::collections::BTreeSet;
use std::path::PathBuf;

use render::figure::{GroupedBars, LineSeries, Lines, SecondAxis, Series, Svg};
use render::report::{Dialogue, Report, Section};
use render::table::Table;
use render::{write_figures, write_report, write_tables};

use crate::analysis::{Analysis, Scorers, by_category};
use crate::cell::{Subject, loss_name};
use crate::coverage::Coverage;
use crate::error::StudyError;
use crate::failures::{self, Failure};
use crate::grid::Question;
use crate::recipe::JudgeSection;
use crate::results::{PolicyRow, ScoreRow, write_parquet, write_policies};
use crate::runner::{Collected, Evaluated, EvaluationId, Runner};
use crate::sweep::{Chosen, Setting};
use crate::tables::{self, acquisition, along, overfitting};
use crate::verdicts::{self, Settled};
use crate::{asked, claims, evaluate, raters};

/// Questions shown with both policies' answers in the report.
const SAMPLES: usize = 8;

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
    let report = write_report(&output, &report(runner, answers, opening))?;
    Ok(Findings { missing, verdicts, coverage, tables, report })
}

/// What one question came to.
#[derive(Clone, Debug)]
struct Answer {
    question: Question,
    recipe: String,
    tables: Vec<Table>,
    /// Name, drawing and caption.
    figures: Vec<(&'static str, Svg, &'static str)>,
    samples: Vec<Dialogue>,
    settled: Vec<Settled>,
    failed: Vec<Failure>,
}

impl Answer {
    fn new(runner: &Runner, question: Question, collected: &Collected) -> Result<Self, StudyError> {
        let Collected { evaluated, failed } = collected;
        let analysis = Analysis::new(runner.recipe(), collected);
        let mut made = Vec::new();
        let mut figures = Vec::new();
        match question {
            Question::Acquisition => {
                made.push(acquisition(&analysis)?);
                figures.push((
                    "figure-1",
                    category_figure(&analysis)?,
                    "The judge's scores by category, means over turns and seeds with 95% intervals.",
                ));
                if let Some(raters) = raters::comparison(runner, evaluated)? {
                    made.extend([raters.wins(), raters.agreement()]);
                    let caption =
                        "How often three raters prefer either policy, of all answers in a category, seed 0.";
                    figures.extend(raters.figure().map(|svg| ("figure-2", svg, caption)));
                }
                made.push(tables::beside(&analysis, question)?);
                made.extend(tables::categories(runner, &analysis)?);
                made.extend(tables::judges(&analysis)?);
            }
            Question::Strength => {
                made.push(tables::sweep(&analysis)?);
                figures.push((
                    "figure-sweep",
                    sweep_figure(&analysis)?,
                    "Quality (gold where it is known, else the judge's scores) with 95% intervals, and accuracy on held-out \
                     preferences, at each β.",
                ));
            }
            Question::Tuned => {
                if let Some(chosen) = Chosen::of(&analysis)? {
                    made.push(tables::tuned_overfitting(&analysis, &chosen)?);
                    made.push(tables::tuned_volume(&analysis, &chosen)?);
                    made.push(tables::tuned_quality(&analysis, &chosen)?);
                }
            }
            Question::Volume | Question::Quality | Question::EqualSteps | Question::RobustLosses => {
                made.push(along(&analysis, question)?);
                if matches!(question, Question::Quality | Question::RobustLosses) {
                    made.extend(tables::labels(&analysis, question)?);
                }
                made.push(tables::beside(&analysis, question)?);
            }
            Question::MixedLabels => made.extend(tables::mixed(&analysis)?),
            Question::Overfitting | Question::LongTraining => {
                made.push(overfitting(&analysis, question)?);
                let is_long = question == Question::LongTraining;
                figures.push((
                    if is_long { "figure-long" } else { "figure-5" },
                    progress_figure(&analysis, question)?,
                    "Quality (gold where it is known, else the judge's scores) and relative training loss at each checkpoint.",
                ));
            }
        }
        if let Some(note) = failures::note(failed) {
            made.iter_mut().for_each(|table| table.notes.push(note.clone()));
        }
        let recipe = trainer::recipe::to_toml(runner.recipe());
        let settled = verdicts::settle(&analysis, claims::claims(question, &analysis, &paper::tables()?)?)?;
        let (samples, failed) = (samples(runner, evaluated)?, failed.clone());
        Ok(Self { question, recipe, tables: made, figures, samples, settled, failed })
    }

    fn sections(self) -> [Section; 2] {
        let claimed = self.settled.iter().filter_map(Settled::sentence).collect::<Vec<_>>();
        [
            Section {
                heading: self.question.title().to_owned(),
                paragraphs: [self.question.lead().to_owned()].into_iter().chain(claimed).collect(),
                tables: self.tables,
                figures: self
                    .figures
                    .into_iter()
                    .map(|(_, svg, caption)| (svg, caption.to_owned()))
                    .collect(),
                ..Section::default()
            },
            Section {
                heading: format!("{}: sample answers", self.question.short_title()),
                paragraphs: vec!["The first question of each category, first turn, seed 0.".into()],
                dialogues: self.samples,
                ..Section::default()
            },
        ]
    }
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

/// The page of all questions that were answered in one folder.
fn report(runner: &Runner, answers: Vec<Answer>, opening: Vec<Table>) -> Report {
    // One recipe serves them all, unless a question was asked at values of its own.
    let mut recipes: Vec<(String, String)> = Vec::new();
    for answer in &answers {
        let name = answer.question.short_title();
        match recipes.iter_mut().find(|(_, recipe)| *recipe == answer.recipe) {
            Some((names, _)) => *names += &format!(", {name}"),
            None => recipes.push((format!("Recipe of {name}"), answer.recipe.clone())),
        }
    }
    let others: [(String, String); 2] = [
        ("World".into(), runner.world().key().as_str().to_owned()),
        ("Version".into(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let settled: Vec<Settled> = answers.iter().flat_map(|answer| answer.settled.clone()).collect();
    let verdicts = Section {
        heading: "Verdicts".into(),
        paragraphs: vec![verdicts::tally(&settled)],
        tables: opening,
        ..Section::default()
    };
    let questions = answers.into_iter().flat_map(Answer::sections);
    Report {
        title: "What preference data do to a policy".into(),
        lead: vec![lead(runner)],
        sections: [verdicts]
            .into_iter()
            .filter(|section| !section.tables.is_empty())
            .chain(questions)
            .collect(),
        provenance: recipes.into_iter().chain(others).collect(),
    }
}

fn lead(runner: &Runner) -> String {
    let recipe = runner.recipe();
    if runner.world().is_sandbox() {
        return "This is the sandbox: an offline world whose true quality (gold) is known, so that judges can be compared \
                with it."
            .to_owned();
    }
    format!(
        "{} on the preferences of {}, judged by {} on {} questions of MT-Bench.",
        recipe.model.path,
        recipe.data.path,
        recipe.judge.all().map(JudgeSection::name).collect::<Vec<_>>().join(" and "),
        runner.world().questions().len()
    )
}

impl Question {
    /// What stands before the colon of its title.
    fn short_title(self) -> &'static str {
        self.title().split(':').next().unwrap_or_default()
    }

    fn title(self) -> &'static str {
        match self {
            Self::Acquisition => "RQ1: how preferences were acquired",
            Self::Volume => "RQ2: how many preferences",
            Self::Quality => "RQ3: how noisy the labels",
            Self::Overfitting => "RQ4: how long to train",
            Self::Strength => "Appendix A.1: how strong the pull to the reference",
            Self::Tuned => "Tables 8 and 9: at the tuned β",
            Self::EqualSteps => "Beyond RQ2: volume at equal steps",
            Self::RobustLosses => "Beyond RQ3: losses made for flipped labels",
            Self::LongTraining => "Beyond RQ4: training for too long",
            Self::MixedLabels => "Beyond RQ1: mixed labels, and where annotators agree",
        }
    }

    fn lead(self) -> &'static str {
        match self {
            Self::Acquisition => {
                "One supervised policy, optimised on the same pairs as different annotators label them."
            }
            Self::Volume => "The same policy, optimised on nested shares of the pairs.",
            Self::Quality => "The same policy, optimised on labels of which a share is swapped at random.",
            Self::Overfitting => "Training loss and scores at checkpoints of the same runs.",
            Self::Strength => "Four settings at every β, and which β each would choose.",
            Self::Tuned => "Volume, noise and checkpoints at the β that the sweep chooses.",
            Self::EqualSteps => {
                "Nested shares of the pairs, smaller ones gone through more often: as many optimiser steps for all."
            }
            Self::RobustLosses => {
                "DPO, cDPO, robust DPO and KTO on labels of which a share is swapped at random."
            }
            Self::MixedLabels => {
                "Two annotators' labels of the same pairs: each alone, mixed record by record, and on the records where both say the \
                 same or not."
            }
            Self::LongTraining => {
                "The runs of RQ4 for more epochs; the paper suspects that its two to three were too few to overfit."
            }
        }
    }
}

/// Figure 1: the judge's scores by category, a colour for each trained condition.
fn category_figure(analysis: &Analysis<'_>) -> Result<Svg, StudyError> {
    let scorer = &Scorers::of(analysis.recipe).judge;
    let mut groups: Vec<String> = Vec::new();
    let scores = analysis.evaluated.iter().flat_map(|evaluated| &evaluated.evaluation.scores);
    for score in scores.filter(|score| score.question_set == scorer.question_set) {
        if !groups.contains(&score.category) {
            groups.push(score.category.clone());
        }
    }
    let mut series =
        vec![("SFT".to_owned(), by_category(analysis, scorer, &|s| matches!(s, Subject::Baseline { .. }))?)];
    for annotator in &analysis.recipe.study.annotators {
        for &loss in Question::Acquisition.losses(&analysis.recipe.study) {
            let keep = |subject: &Subject| match subject {
                Subject::Baseline { .. } => false,
                Subject::Trained { cell, .. } => {
                    cell.annotator == *annotator && cell.loss == loss && cell.flip_rate.get() == 0.0
                }
            };
            series
                .push((format!("{} ({annotator})", loss_name(loss)), by_category(analysis, scorer, &keep)?));
        }
    }
    let series = series
        .into_iter()
        .map(|(name, means)| Series { name, values: groups.iter().map(|g| means.get(g).copied()).collect() })
        .collect();
    let figure = GroupedBars {
        title: "Judged scores by category".into(),
        y_label: "score, 1 to 10".into(),
        y_range: (1.0, 10.0),
        groups,
        series,
    };
    Ok(figure.to_svg())
}

/// Quality and training loss against the share of training done.
fn progress_figure(analysis: &Analysis<'_>, question: Question) -> Result<Svg, StudyError> {
    let scorers = Scorers::of(analysis.recipe);
    let (scorer, y_label) = match &scorers.gold {
        Some([_, beyond]) => (beyond, "gold quality on further questions"),
        None => (&scorers.judge, "score, 1 to 10"),
    };
    let shares = &analysis.recipe.train.checkpoints;
    let mut series = Vec::new();
    let mut losses = Vec::new();
    for annotator in &analysis.recipe.study.annotators {
        for &loss in question.losses(&analysis.recipe.study) {
            let name = format!("{} ({annotator})", loss_name(loss));
            let mut quality = Vec::new();
            let mut training = Vec::new();
            for (at, share) in shares.iter().enumerate() {
                let keep = |subject: &Subject| match subject {
                    Subject::Baseline { .. } => false,
                    Subject::Trained { cell, checkpoint } => {
                        *checkpoint == at && cell.annotator == *annotator && cell.loss == loss
                    }
                };
                if let Some(mean) = analysis.mean(scorer, &keep)? {
                    quality.push((*share, mean.value, Some((mean.low, mean.high))));
                }
                if let Some(value) = analysis.training_loss(&keep) {
                    training.push((*share, value, None));
                }
            }
            // Losses of different kinds have different scales: each is shown relative to its first value.
            let first = training.first().map_or(1.0, |(_, value, _)| *value);
            let relative = training.into_iter().map(|(x, value, none)| (x, value / first, none)).collect();
            series.push(LineSeries { name: name.clone(), points: quality });
            losses.push(LineSeries { name: format!("loss of {name}"), points: relative });
        }
    }
    let figure = Lines {
        title: "Quality and training loss as training goes on".into(),
        x_label: "share of training".into(),
        y_label: y_label.into(),
        y_range: None,
        x_ticks: shares.iter().map(|s| (*s, format!("{}%", crate::cell::percent(*s)))).collect(),
        series,
        second: Some(SecondAxis {
            y_label: "training loss, relative to its first quarter".into(),
            y_range: None,
            series: losses,
        }),
    };
    Ok(figure.to_svg())
}

/// Quality and held-out accuracy against β.
fn sweep_figure(analysis: &Analysis<'_>) -> Result<Svg, StudyError> {
    let scorers = Scorers::of(analysis.recipe);
    let (scorer, y_label) = match &scorers.gold {
        Some([_, beyond]) => (beyond, "gold quality on further questions"),
        None => (&scorers.judge, "score, 1 to 10"),
    };
    let betas = &analysis.recipe.study.sweep_betas;
    let mut series = Vec::new();
    let mut accuracies = Vec::new();
    for setting in Setting::all() {
        let name = tables::name(setting);
        let points = tables::points(analysis, scorer, setting)?;
        let accuracy = points.iter().filter_map(|(x, ..)| {
            let beta = betas.iter().find(|beta| beta.get().log10() == *x)?;
            let keep = |subject: &Subject| setting.holds(analysis, subject, *beta);
            Some((*x, analysis.held_out(&keep, |metrics| Some(metrics.accuracy))?, None))
        });
        accuracies.push(LineSeries { name: format!("accuracy of {name}"), points: accuracy.collect() });
        series.push(LineSeries { name, points });
    }
    accuracies.retain(|line| !line.points.is_empty());
    let figure = Lines {
        title: "Quality and held-out accuracy by β".into(),
        x_label: "β, on a logarithmic scale".into(),
        y_label: y_label.into(),
        y_range: None,
        x_ticks: betas.iter().map(|beta| (beta.get().log10(), beta.get().to_string())).collect(),
        series,
        second: (!accuracies.is_empty()).then(|| SecondAxis {
            y_label: "accuracy on held-out preferences".into(),
            y_range: None,
            series: accuracies,
        }),
    };
    Ok(figure.to_svg())
}

/// The first question of each category with the answers of the baseline and of the trained policies.
fn samples(runner: &Runner, evaluated: &[Evaluated]) -> Result<Vec<Dialogue>, StudyError> {
    let shown: Vec<&Evaluated> =
        evaluated.iter().filter(|e| e.subject.seed() == 0 && runner.is_final(&e.subject)).collect();
    let mut answers = Vec::new();
    for evaluated in &shown {
        answers.push(evaluated.evaluation.answers()?);
    }
    let mut dialogues = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for question in runner.world().questions() {
        if seen.contains(&question.category.as_str()) || dialogues.len() == SAMPLES {
            continue;
        }
        seen.push(&question.category);
        let mut turns = vec![("user".to_owned(), question.turns[0].clone())];
        for (evaluated, answers) in shown.iter().zip(&answers) {
            let answer = answers.iter().find(|a| a.question_id == question.question_id);
            let Some(text) = answer.and_then(|a| a.turns().first()) else { continue };
            let gold = evaluated.evaluation.scores.iter().find(|s| {
                (s.scorer.as_str(), s.question_id, s.turn) == (evaluate::GOLD, question.question_id, 1)
            });
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
