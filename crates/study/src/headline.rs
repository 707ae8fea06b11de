//! Headlines: plain questions, each with the one comparison that answers it.
//!
//! The claims of a question test each annotator and loss. A headline is about all of them at once, and comes first.

use experiment::{Analysis, Scorers, Setup};
use report::table::{Align, Column, Table, Value};

use crate::claims::{Answers, Claim, Expectation, Headline};
use crate::error::StudyError;
use crate::recipe::StudyRecipe;
use crate::required::Required;
use crate::tested::{difference, signed};
use crate::verdict::{Verdict, on_claim};
use crate::verdicts::{self, Settled};

/// The id of the table of answers.
pub const ANSWERS: &str = "answers";

const UNDECIDED: &str = "undecided";

/// A headline with its measurements.
#[derive(Clone, Debug)]
pub(crate) struct Headlined {
    question: &'static str,
    comparison: String,
    answers: Answers,
    /// `None` if the study lacks some of its policies.
    settled: Option<Settled>,
}

impl Headlined {
    fn answer(&self, settled: &Settled) -> &str {
        match on_claim(&settled.judge.shown, Expectation::Unclaimed) {
            Verdict::Equivalent => &self.answers.absent,
            Verdict::Found if settled.judge.shown.is_higher => &self.answers.higher,
            Verdict::Found => &self.answers.lower,
            _ => UNDECIDED,
        }
    }

    /// Returns the kind of error that the ground truth shows in the answer.
    fn error(&self) -> Option<String> {
        let settled = self.settled.as_ref()?;
        let is_error = match settled.verdict {
            Verdict::FalsePositive => true,
            // An answer within the margin finds no effect on purpose.
            Verdict::FalseNegative => self.answer(settled) == UNDECIDED,
            _ => false,
        };
        is_error.then(|| format!("{} ({})", self.comparison, settled.verdict))
    }

    fn row(&self, has_truth: bool) -> Vec<Value> {
        let mut row = vec![Value::text(self.question), Value::text(&self.comparison)];
        match &self.settled {
            Some(settled) => {
                row.push(difference(&settled.judge));
                row.extend(settled.gold.as_ref().map(|gold| Value::text(signed(gold.estimate.value))));
                row.push(Value::text(self.answer(settled)));
            }
            None => {
                let missing = Value::missing("the study lacks policies of this comparison");
                row.extend(vec![missing; if has_truth { 2 } else { 1 }]);
                row.push(Value::text("not measured"));
            }
        }
        row
    }

    /// Returns a sentence on the sample that would decide an open answer.
    fn required(&self) -> Option<String> {
        let settled = self.settled.as_ref().filter(|settled| self.answer(settled) == UNDECIDED)?;
        let required = settled.required.as_ref().map(Required::in_short)?;
        Some(format!("{} ({required})", self.comparison))
    }

    /// Returns what the second judge finds, if its verdict differs from the first judge's.
    fn second(&self) -> Option<String> {
        let settled = self.settled.as_ref()?;
        let (measured, verdict) =
            settled.second.as_ref().filter(|(_, verdict)| *verdict != settled.verdict)?;
        Some(format!("{} {} ({verdict})", self.comparison, signed(measured.estimate.value)))
    }
}

/// Measures the headlines of a question, with a correction for all of them.
pub(crate) fn measure(
    analysis: &Analysis<'_>,
    recipe: &StudyRecipe,
    headlines: Vec<Headline<'_>>,
) -> Result<Vec<Headlined>, StudyError> {
    let (mut measured, mut claims) = (Vec::new(), Vec::new());
    for Headline { question, comparison, contrast, control, answers } in headlines {
        claims.push(Claim { control, ..Claim::new("", comparison.clone(), contrast) });
        measured.push(Headlined { question, comparison, answers, settled: None });
    }
    for settled in verdicts::settle(analysis, recipe, claims, None)? {
        let own = measured.iter_mut().find(|headline| headline.comparison == settled.comparison);
        own.into_iter().for_each(|headline| headline.settled = Some(settled.clone()));
    }
    Ok(measured)
}

/// Returns the table of answers; `None` without headlines.
pub(crate) fn table(recipe: &StudyRecipe, headlines: &[Headlined]) -> Option<Table> {
    let settled = || headlines.iter().filter_map(|headline| headline.settled.as_ref());
    let has_truth = settled().any(|settled| settled.gold.is_some());
    let left = |name: &str| Column::new(name, Align::Left);
    let right = |name: &str| Column::new(name, Align::Right);
    let mut columns = vec![left("Question"), left("Comparison"), right("Difference")];
    columns.extend(has_truth.then(|| right("Truth")));
    columns.push(left("Answer"));
    let setup = recipe.setup();
    let table = Table {
        id: ANSWERS.into(),
        title: format!("Answers from {}", size(recipe)),
        columns,
        rows: headlines.iter().map(|headline| headline.row(has_truth)).collect(),
        notes: notes(recipe, &setup, headlines, has_truth),
    };
    (!headlines.is_empty()).then_some(table)
}

fn size(recipe: &StudyRecipe) -> String {
    let (seeds, questions) = (recipe.study.seeds, recipe.study.questions);
    format!("{seeds} {} × {questions} questions", if seeds == 1 { "seed" } else { "seeds" })
}

fn notes(recipe: &StudyRecipe, setup: &Setup, headlines: &[Headlined], has_truth: bool) -> Vec<String> {
    let scorers = Scorers::of(setup);
    let over = if recipe.study.seeds == 1 { "questions" } else { "questions and seeds" };
    let mut meaning = format!(
        "Differences: means over annotators and losses, with 95% t-intervals over {over}. An effect within ±{} points is none.",
        recipe.study.margin.get()
    );
    if has_truth {
        meaning +=
            &format!(" Truth: gold quality on {} held-out questions.", recipe.sandbox.further_questions);
    }
    if recipe.study.seeds == 1 {
        meaning += " With one seed the answers are about these policies only.";
    }
    let mut notes = vec![meaning];
    let errors: Vec<String> = headlines.iter().filter_map(Headlined::error).collect();
    if !errors.is_empty() {
        notes.push(format!("Compared with the truth: {}.", errors.join("; ")));
    }
    let second: Vec<String> = headlines.iter().filter_map(Headlined::second).collect();
    if let Some(scorer) = scorers.second.filter(|_| !second.is_empty()) {
        notes.push(format!("{}: {}.", scorer.title, second.join("; ")));
    }
    let required: Vec<String> = headlines.iter().filter_map(Headlined::required).collect();
    if !required.is_empty() {
        notes.push(format!("Required to decide, at 80% power: {}.", required.join("; ")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contrast::Contrast;
    use crate::fixtures::{at, checkpoints};
    use crate::recipe::Preset;

    /// Returns the answers to whether each later checkpoint is better than the first, for checkpoints with these means.
    fn answered(seeds: u64, margin: f64, means: &[f64]) -> Table {
        let settings = [format!("study.seeds={seeds}"), format!("study.margin={margin}")];
        let recipe = StudyRecipe::preset(Preset::Paper, &settings).unwrap();
        let setup = recipe.setup();
        let collected = checkpoints(&setup, seeds, means);
        let headline = |checkpoint| Headline {
            question: "Is it better?",
            comparison: format!("{checkpoint} − 0"),
            contrast: Contrast::difference(at(checkpoint), at(0)),
            control: None,
            answers: Answers::new("yes", "worse", "no"),
        };
        let analysis = Analysis::new(&setup, &collected);
        // No policy has the last checkpoint.
        let headlines = measure(&analysis, &recipe, (1..=means.len()).map(headline).collect()).unwrap();
        table(&recipe, &headlines).unwrap()
    }

    fn answers(table: &Table) -> Vec<&Value> {
        table.rows.iter().map(|row| row.last().unwrap()).collect()
    }

    #[test]
    fn answers_are_those_of_the_tests() {
        let table = answered(2, 0.2, &[5.0, 6.0, 4.0, 5.0]);
        let expected = ["yes", "worse", "no", "not measured"].map(Value::text);
        assert_eq!(answers(&table), expected.iter().collect::<Vec<_>>());
        assert!(matches!(table.rows[3][2], Value::Missing(_)));
    }

    #[test]
    fn an_open_answer_has_a_required_sample() {
        let table = answered(2, 0.01, &[5.0, 5.0]);
        assert_eq!(answers(&table)[0], &Value::text("undecided"));
        let required = table.notes.last().unwrap();
        assert!(required.starts_with("Required to decide, at 80% power: 1 − 0 ("), "{required}");
    }

    #[test]
    fn answers_of_one_seed_are_about_its_policies() {
        let table = answered(1, 0.2, &[5.0, 6.0]);
        assert_eq!(table.title, "Answers from 1 seed × 80 questions");
        assert!(table.notes[0].contains("about these policies only"), "{:?}", table.notes);
    }

    #[test]
    fn answers_fit_a_terminal() {
        let text = answered(2, 0.2, &[5.0, 6.0, 4.0, 5.0]).render_within(80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
