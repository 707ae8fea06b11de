//! Power of the paper's design: one run per cell, 80 questions, and spreads of published GPT-4 judgments.

use report::table::{Align, Column, Table, Value};
use stats::{Design, Over, Plan, PlannedTest, Source, StudySize, VarianceParts, Variances};

use super::Error;

/// Questions of MT-Bench.
const QUESTIONS: usize = 80;
/// Standard deviations, question by question, of the difference between two runs of a Mistral-7B model that GPT-4 judges:
/// the smallest, a middle and the largest one. Each question has the mean of its two turns.
pub(super) const DEVIATIONS: [f64; 3] = [1.9, 2.3, 2.7];
const LEVEL: f64 = 0.95;
const POWER: f64 = 0.8;

/// Computes the power of the paired t-test at 5% for a difference over 80 questions whose paired scores have this standard
/// deviation.
///
/// # Errors
///
/// [`Error::Stats`] for numbers that are not finite.
pub fn power(difference: f64, deviation: f64) -> Result<f64, Error> {
    let variances = Variances { question: deviation * deviation, ..Variances::default() };
    let plan = Plan { variances, over: Over::Questions, level: LEVEL };
    Ok(plan.power(difference, Design { seeds: 1, questions: QUESTIONS, turns: 1, repeats: 1 })?)
}

/// Computes the number of questions at which the test has 80% power; `None` beyond 100,000.
///
/// # Errors
///
/// [`Error::Stats`] for a difference of 0.
pub fn questions_needed(difference: f64, deviation: f64) -> Result<Option<usize>, Error> {
    let size = StudySize { seeds: 1, questions: QUESTIONS, samples: 1 };
    let question = deviation * deviation;
    let parts = VarianceParts { question, seed: 0.0, fixed: 0.0, sampling: 0.0, size, seed_df: 1.0 };
    let test = PlannedTest { level: LEVEL, power: POWER, comparisons: 1 };
    let required = test.required_samples(difference, &parts)?;
    Ok(required
        .iter()
        .find(|required| required.source == Source::Questions)
        .and_then(|required| required.number))
}

/// Returns the power and the required questions of the paper's differences.
pub(super) fn table(differences: &[(&str, f64)]) -> Result<Table, Error> {
    let mut rows = Vec::new();
    for (name, difference) in differences {
        for deviation in DEVIATIONS {
            rows.push(vec![
                Value::text(*name),
                Value::Number { value: *difference, decimals: 3 },
                Value::Number { value: deviation, decimals: 1 },
                Value::Percent { value: power(difference.abs(), deviation)?, decimals: 0 },
                match questions_needed(*difference, deviation)? {
                    Some(number) => Value::Count(number as u64),
                    None => Value::missing("more than 100,000"),
                },
            ]);
        }
    }
    let right = |name: &str| Column::new(name, Align::Right);
    Ok(Table {
        id: "power".to_owned(),
        title: "Power of one run per cell on 80 questions".to_owned(),
        columns: vec![
            Column::new("Difference", Align::Left),
            right("Points"),
            right("Paired s.d."),
            right("Power"),
            right("Questions for 80%"),
        ],
        rows,
        notes: vec![
            "Two-sided t-tests at 5%, without a correction for the number of comparisons, for these very runs."
                .to_owned(),
            "A claim about training needs several seeds on top.".to_owned(),
        ],
    })
}
