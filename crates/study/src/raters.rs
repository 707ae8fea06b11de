//! Table 2: which of two policies three raters prefer.

use std::collections::BTreeMap;

use human_study::{Rating, StudyReport};
use mtbench::Answer;
use sandbox::{Candidate, RaterChoice, raters};
use stats::Choice;
use trainer::recipe::LossKind;

use crate::analysis::LEVEL;
use crate::cell::Subject;
use crate::error::StudyError;
use crate::evaluate::prompt;
use crate::runner::{Evaluated, Runner};

/// The replicate whose answers are compared: 160 pairs, as many as the paper's raters saw.
const REPLICATE: u64 = 0;

/// What the raters say of DPO on the LLM's preferences against DPO on the humans', answer by answer.
///
/// `None` where the study has no two annotators to compare, and outside of the sandbox.
pub(crate) fn comparison(
    runner: &Runner,
    evaluated: &[Evaluated],
) -> Result<Option<StudyReport>, StudyError> {
    // Whoever studies a model of their own asks persons: the program `agreement` makes the sheets.
    if !runner.world().is_sandbox() {
        return Ok(None);
    }
    let Some(models) = contestants(runner, evaluated) else { return Ok(None) };
    let [first, second] = models;
    let answers = [first.evaluation.answers()?, second.evaluation.answers()?];
    let ratings = rate(runner, &answers);
    let [one, other] = models.map(|model| model_name(&model.subject));
    Ok(Some(StudyReport::new(&ratings, [&one, &other], LEVEL)?))
}

/// DPO on `gpt-4-turbo` and on `human` where both are in the study, else on its first two annotators.
fn contestants<'a>(runner: &Runner, evaluated: &'a [Evaluated]) -> Option<[&'a Evaluated; 2]> {
    let annotators = &runner.recipe().study.annotators;
    let has = |name: &str| annotators.iter().any(|a| a == name);
    let pair = if has("gpt-4-turbo") && has("human") {
        ["gpt-4-turbo", "human"]
    } else {
        [annotators.first()?.as_str(), annotators.get(1)?.as_str()]
    };
    let find = |annotator: &str| {
        evaluated.iter().rfind(|e| match &e.subject {
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
    Some([find(pair[0])?, find(pair[1])?])
}

fn model_name(subject: &Subject) -> String {
    match subject {
        Subject::Baseline { .. } => "SFT".to_owned(),
        Subject::Trained { cell, .. } => format!("DPO ({})", cell.annotator),
    }
}

/// Every rater's choice on every turn that both models answered.
fn rate(runner: &Runner, answers: &[Vec<Answer>; 2]) -> Vec<Rating> {
    let world = runner.world();
    let raters = raters(&world.replicate(REPLICATE).child("raters"));
    let second: BTreeMap<u64, &Answer> = answers[1].iter().map(|a| (a.question_id, a)).collect();
    let questions: BTreeMap<u64, &mtbench::Question> =
        world.questions().iter().map(|q| (q.question_id, q)).collect();
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
