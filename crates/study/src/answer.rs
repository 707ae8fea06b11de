//! What one question came to: its tables, figures, verdicts and sample answers.

use report::figure::Svg;
use report::page::Dialogue;
use report::table::Table;

use crate::analysis::Analysis;
use crate::cell::Subject;
use crate::error::StudyError;
use crate::failures::{self, Failure};
use crate::grid::Question;
use crate::printed::printed;
use crate::runner::{Collected, Evaluated, Runner};
use crate::sweep::Chosen;
use crate::tables::{self, acquisition, along, overfitting};
use crate::verdicts::{self, Settled};
use crate::{claims, evaluate, figures, raters};

/// Questions shown with both policies' answers in the report.
const SAMPLES: usize = 8;

/// Name, drawing and caption.
type Figure = (&'static str, Svg, &'static str);

/// What one question came to.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) question: Question,
    /// The recipe that it was asked under.
    pub(crate) recipe: String,
    pub(crate) tables: Vec<Table>,
    /// What the paper prints beside them.
    pub(crate) printed: Vec<Table>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) samples: Vec<Dialogue>,
    pub(crate) settled: Vec<Settled>,
    pub(crate) failed: Vec<Failure>,
}

impl Answer {
    pub(crate) fn new(
        runner: &Runner,
        question: Question,
        collected: &Collected,
    ) -> Result<Self, StudyError> {
        let Collected { evaluated, failed } = collected;
        let analysis = Analysis::new(runner.recipe(), collected);
        let mut made = Vec::new();
        let mut drawn = Vec::new();
        match question {
            Question::Acquisition => {
                made.push(acquisition(&analysis)?);
                drawn.push((
                    "figure-1",
                    figures::categories(&analysis)?,
                    "The judge's scores by category, means over turns and seeds with 95% intervals.",
                ));
                if let Some(raters) = raters::comparison(runner, evaluated)? {
                    made.extend([raters.wins(), raters.agreement()]);
                    let caption =
                        "How often three raters prefer either policy, of all answers in a category, seed 0.";
                    drawn.extend(raters.figure().map(|svg| ("figure-2", svg, caption)));
                }
                made.push(tables::beside(&analysis, question)?);
                made.extend(tables::categories(runner, &analysis)?);
                made.extend(tables::judges(&analysis)?);
            }
            Question::Strength => {
                made.push(tables::sweep(&analysis)?);
                drawn.push((
                    "figure-sweep",
                    figures::sweep(&analysis)?,
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
                if question.runs_along_noise() {
                    made.extend(tables::labels(&analysis, question)?);
                }
                made.push(tables::beside(&analysis, question)?);
                drawn.extend(curves(&analysis, question)?);
            }
            Question::MixedLabels => made.extend(tables::mixed(&analysis)?),
            Question::Overfitting | Question::LongTraining => {
                made.push(overfitting(&analysis, question)?);
                let is_long = question == Question::LongTraining;
                drawn.push((
                    if is_long { "figure-long" } else { "figure-5" },
                    figures::progress(&analysis, question)?,
                    "Quality (gold where it is known, else the judge's scores) and relative training loss at each checkpoint.",
                ));
            }
        }
        if let Some(note) = failures::note(failed) {
            made.iter_mut().for_each(|table| table.notes.push(note.clone()));
        }
        let recipe = trainer::recipe::to_toml(runner.recipe());
        let settled = verdicts::settle(&analysis, claims::claims(question, &analysis, &paper::tables()?)?)?;
        Ok(Self {
            question,
            recipe,
            tables: made,
            printed: printed(question, runner.recipe())?,
            figures: drawn,
            samples: samples(runner, evaluated)?,
            settled,
            failed: failed.clone(),
        })
    }
}

/// Quality along volume or noise, and by category where the paper shows it.
fn curves(analysis: &Analysis<'_>, question: Question) -> Result<Vec<Figure>, StudyError> {
    let (curve, bars) = match question {
        Question::Volume => ("figure-3-curve", Some("figure-3")),
        Question::Quality => ("figure-4-curve", Some("figure-4")),
        Question::EqualSteps => ("figure-steps", None),
        _ => ("figure-robust", None),
    };
    let caption =
        "Quality (gold where it is known, else the judge's scores) at each level, with 95% intervals.";
    let mut drawn = vec![(curve, figures::along(analysis, question)?, caption)];
    if let (Some(name), Some(svg)) = (bars, figures::comparisons(analysis, question)?) {
        drawn.push((
            name,
            svg,
            "The judge's scores by category at the levels that the paper compares, with 95% intervals.",
        ));
    }
    Ok(drawn)
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
