//! Table 2: the preferences of three simulated raters between two policies.

use std::collections::BTreeMap;

use experiment::{DataSource, Evaluated, LEVEL, Subject, prompt};
use human_study::{Rating, StudyReport};
use mtbench::Answer;
use sandbox::{Candidate, RaterChoice, raters};
use stats::Choice;
use trainer::recipe::LossKind;

use crate::claims::llm_and_human;
use crate::error::StudyError;
use crate::results::Results;

/// The replicate whose answers are compared: 160 pairs, as in the paper.
const REPLICATE: u64 = 0;

/// Compares DPO on the LLM's preferences with DPO on the humans'; `None` without two annotators, and outside of the
/// sandbox, where the program `agreement` makes sheets for human raters.
pub(crate) fn comparison(results: &Results<'_>) -> Result<Option<StudyReport>, StudyError> {
    let source = results.runner().source();
    if !source.is_sandbox() {
        return Ok(None);
    }
    let Some(models) = contestants(results) else { return Ok(None) };
    let [first, second] = models;
    let answers = [first.evaluation.answers()?, second.evaluation.answers()?];
    let ratings = rate(source, &answers);
    let [one, other] = models.map(|model| model_name(&model.subject));
    Ok(Some(StudyReport::new(&ratings, [&one, &other], LEVEL)?))
}

/// Returns the policies of DPO on the LLM's and on the humans' preferences.
fn contestants<'a>(results: &Results<'a>) -> Option<[&'a Evaluated; 2]> {
    let find = |annotator: &str| {
        results.scores.evaluated.iter().rfind(|e| match &e.subject {
            Subject::Baseline { .. } => false,
            Subject::Trained { cell, .. } => {
                cell.loss == LossKind::Dpo
                    && cell.annotator == annotator
                    && cell.seed == REPLICATE
                    && cell.fraction.get() == 1.0
                    && cell.flip_rate.get() == 0.0
            }
        })
    };
    let [llm, human] = llm_and_human(results)?;
    Some([find(llm)?, find(human)?])
}

fn model_name(subject: &Subject) -> String {
    match subject {
        Subject::Baseline { .. } => "SFT".to_owned(),
        Subject::Trained { cell, .. } => format!("DPO ({})", cell.annotator),
    }
}

/// Returns every rater's choice on every turn that both models answered.
fn rate(source: &DataSource, answers: &[Vec<Answer>; 2]) -> Vec<Rating> {
    let raters = raters(&source.replicate(REPLICATE).child("raters"));
    let second: BTreeMap<u64, &Answer> = answers[1].iter().map(|a| (a.question_id, a)).collect();
    let questions: BTreeMap<u64, &mtbench::Question> =
        source.questions().iter().map(|q| (q.question_id, q)).collect();
    let mut ratings = Vec::new();
    for a in &answers[0] {
        let (Some(b), Some(question)) = (second.get(&a.question_id), questions.get(&a.question_id)) else {
            continue;
        };
        for turn in 0..a.turns().len().min(b.turns().len()) {
            let prompts = [a, b].map(|answer| prompt(question, answer.turns(), turn + 1));
            let candidates = [
                Candidate { prompt: &prompts[0], answer: &a.turns()[turn] },
                Candidate { prompt: &prompts[1], answer: &b.turns()[turn] },
            ];
            ratings.extend(raters.iter().enumerate().map(|(at, rater)| Rating {
                item: format!("{}-{}", a.question_id, turn + 1),
                rater: format!("rater {}", at + 1),
                choice: choice(rater.rate(candidates[0], candidates[1])),
                category: Some(question.category.clone()),
                question: Some(a.question_id.to_string()),
            }));
        }
    }
    ratings
}

fn choice(choice: RaterChoice) -> Choice {
    match choice {
        RaterChoice::Model1 => Choice::Model1,
        RaterChoice::Model2 => Choice::Model2,
        RaterChoice::Equal => Choice::Equal,
    }
}
