//! Table 2: which of two policies three raters prefer.

use std::collections::BTreeMap;

use mtbench::Answer;
use render::table::{Align, Column, Table, Value};
use sandbox::{Candidate, RaterChoice, raters};
use stats::{Choice, Kappa, Split, SplitPolicy, Tally, choice_counts, fleiss_kappa, majority_vote};
use trainer::recipe::LossKind;

use crate::cell::{Subject, percent};
use crate::error::StudyError;
use crate::evaluate::prompt;
use crate::runner::{Evaluated, Runner};
use crate::tables::LEVEL;

/// The replicate whose answers are compared: 160 pairs, as many as the paper's raters saw.
const REPLICATE: u64 = 0;

/// Table 2: DPO on the LLM's preferences against DPO on the humans', answer by answer.
///
/// `None` where the study has no two annotators to compare.
pub(crate) fn comparison(runner: &Runner, evaluated: &[Evaluated]) -> Result<Option<Table>, StudyError> {
    let Some(models) = contestants(runner, evaluated) else { return Ok(None) };
    let [first, second] = models;
    let answers = [first.evaluation.answers()?, second.evaluation.answers()?];
    let choices = rate(runner, &answers);
    let votes =
        majority_vote(&choices, SplitPolicy::default()).map_err(StudyError::stats("majority vote"))?;
    let tally = votes.tally();
    let agreement =
        fleiss_kappa(&choice_counts(&choices)).map_err(StudyError::stats("agreement of the raters"))?;
    let names = models.map(|model| model_name(&model.subject));
    Ok(Some(table(&names, &tally, agreement.kappa, choices.len(), votes.splits(Split::ThreeWay))?))
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

/// Every rater's choice on every turn that both models answered: `[items][raters]`.
fn rate(runner: &Runner, answers: &[Vec<Answer>; 2]) -> Vec<Vec<Choice>> {
    let world = runner.world();
    let raters = raters(&world.replicate(REPLICATE).child("raters"));
    let second: BTreeMap<u64, &Answer> = answers[1].iter().map(|a| (a.question_id, a)).collect();
    let questions: BTreeMap<u64, &mtbench::Question> =
        world.questions.iter().map(|q| (q.question_id, q)).collect();
    let mut choices = Vec::new();
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
            choices.push(raters.iter().map(|r| choice(r.rate(candidates[0], candidates[1]))).collect());
        }
    }
    choices
}

fn choice(choice: RaterChoice) -> Choice {
    match choice {
        RaterChoice::Model1 => Choice::Model1,
        RaterChoice::Model2 => Choice::Model2,
        RaterChoice::Equal => Choice::Equal,
    }
}

fn table(
    names: &[String; 2],
    tally: &Tally,
    kappa: Kappa,
    items: usize,
    splits: usize,
) -> Result<Table, StudyError> {
    let mut rows = Vec::new();
    for (name, tally) in names.iter().zip([*tally, tally.swapped()]) {
        let rate = tally.win_rate_interval(LEVEL).map_err(StudyError::stats("win rate"))?;
        let share = |value: f64| 100.0 * value;
        rows.push(vec![
            Value::text(name),
            Value::Count(tally.wins_model_1),
            Value::Count(tally.ties),
            Value::Interval {
                value: share(tally.win_rate().unwrap_or_default()),
                low: share(rate.low),
                high: share(rate.high),
                decimals: 1,
            },
        ]);
    }
    let kappa = match kappa.value() {
        Some(kappa) => format!("Fleiss' κ of the three raters: {kappa:.2}."),
        None => "Fleiss' κ is undefined: every rater chose the same every time.".to_owned(),
    };
    let test = tally.sign_test();
    let notes = vec![
        kappa,
        format!(
            "{items} pairs of answers (each question's two turns, seed {REPLICATE}), majority of three; 1–1–1 counts as a \
             tie ({splits} times). Win rate: wins over all pairs, ties included. Brackets: {}% Wilson intervals.",
            percent(LEVEL)
        ),
        format!("Could chance do this? Exact sign test of the decisive answers: {}.", p_value(test.p_value)),
    ];
    Ok(Table {
        id: "table-2".into(),
        title: "Which policy three raters prefer".into(),
        columns: vec![
            Column::new("Model", Align::Left),
            Column::new("Wins", Align::Right),
            Column::new("Ties", Align::Right),
            Column::new("Win rate, %", Align::Right),
        ],
        rows,
        notes,
    })
}

/// A p-value as papers print it.
fn p_value(p: f64) -> String {
    if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") }
}
