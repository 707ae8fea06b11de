//! Headlines: plain questions, each with the one comparison that answers it.
//!
//! The claims of a question test each annotator and loss. A headline is about all of them at once, and comes first.

use experiment::{Analysis, Scorers, Setup};
use report::figure::{Forest, ForestRow, Svg};
use report::table::{Align, Column, Table, Value};

use crate::claims::{Answers, Claim, Expectation, Headline};
use crate::error::StudyError;
use crate::recipe::StudyRecipe;
use crate::required::Required;
use crate::tested::{Measured, difference, signed};
use crate::verdict::{Verdict, on_claim};
use crate::verdicts::{self, Settled};

/// The id of the table of answers.
pub const ANSWERS: &str = "answers";

const UNDECIDED: &str = "undecided";
/// The beginnings of answers that are words; others are names, such as those of annotators.
const ANSWERS_IN_WORDS: [&str; 5] = ["yes", "no", "neither", "either", UNDECIDED];

/// A headline with its measurements.
#[derive(Clone, Debug)]
pub(crate) struct Headlined {
    question: &'static str,
    of_own_data: &'static str,
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

    /// Returns the row of the figure; `None` if it is not measured.
    fn forest_row(&self) -> Option<ForestRow> {
        let settled = self.settled.as_ref()?;
        let Measured { estimate, level, .. } = &settled.judge;
        let interval = estimate.interval(*level).ok()?;
        Some(ForestRow {
            name: self.question.to_owned(),
            note: self.comparison.clone(),
            difference: (estimate.value, interval.low, interval.high),
            truth: settled.gold.as_ref().map(|gold| gold.estimate.value),
            answer: self.answer(settled).to_owned(),
        })
    }

    /// Returns the answer in a sentence, with its number, interval and truth; `None` if it is not measured.
    pub(crate) fn sentence(&self) -> Option<String> {
        let settled = self.settled.as_ref()?;
        let Measured { estimate, level, .. } = &settled.judge;
        let interval = estimate.interval(*level).ok()?;
        let [value, low, high] = [estimate.value, interval.low, interval.high].map(signed);
        let questions = match self.question == self.of_own_data {
            true => self.question.to_owned(),
            false => format!("{} {}", self.of_own_data, self.question),
        };
        let answer = capitalized(self.answer(settled));
        let truth = settled.gold.as_ref();
        let truth =
            truth.map_or_else(String::new, |gold| format!("; the truth is {}", signed(gold.estimate.value)));
        let required = settled.required.as_ref().filter(|_| self.answer(settled) == UNDECIDED);
        let required =
            required.map_or_else(String::new, |required| format!(" To decide: {}.", required.in_short()));
        Some(format!(
            "{questions} {answer}: {} is {value} points [{low}, {high}]{truth}.{required}",
            self.comparison
        ))
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

fn capitalized(word: &str) -> String {
    let mut characters = word.chars();
    let first = characters.next().filter(|_| ANSWERS_IN_WORDS.iter().any(|answer| word.starts_with(answer)));
    first.map_or_else(|| word.to_owned(), |first| first.to_uppercase().chain(characters).collect())
}

/// Measures the headlines of a question, with a correction for all of them.
pub(crate) fn measure(
    analysis: &Analysis<'_>,
    recipe: &StudyRecipe,
    headlines: Vec<Headline<'_>>,
) -> Result<Vec<Headlined>, StudyError> {
    let (mut measured, mut claims) = (Vec::new(), Vec::new());
    for Headline { question, of_own_data, comparison, contrast, control, answers } in headlines {
        claims.push(Claim { control, ..Claim::new("", comparison.clone(), contrast) });
        measured.push(Headlined { question, of_own_data, comparison, answers, settled: None });
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

/// Returns the figure of the answers; `None` if nothing is measured.
pub(crate) fn figure(recipe: &StudyRecipe, headlines: &[Headlined]) -> Option<Svg> {
    let rows: Vec<ForestRow> = headlines.iter().filter_map(Headlined::forest_row).collect();
    let has_truth = rows.iter().any(|row| row.truth.is_some());
    let figure = Forest {
        title: format!("Answers from {}", size(recipe)),
        x_label: "Difference, points".into(),
        value_label: "Difference as judged, with its 95% interval".into(),
        truth_label: has_truth.then(|| "Truth".into()),
        rows,
    };
    (!figure.rows.is_empty()).then(|| figure.to_svg())
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
        let (recipe, headlines) = headlines(seeds, margin, means);
        table(&recipe, &headlines).unwrap()
    }

    fn headlines(seeds: u64, margin: f64, means: &[f64]) -> (StudyRecipe, Vec<Headlined>) {
        let settings = [format!("study.seeds={seeds}"), format!("study.margin={margin}")];
        let recipe = StudyRecipe::preset(Preset::Paper, &settings).unwrap();
        let setup = recipe.setup();
        let collected = checkpoints(&setup, seeds, means);
        let headline = |checkpoint| Headline {
            question: "Is it better?",
            of_own_data: "At which one?",
            comparison: format!("{checkpoint} − 0"),
            contrast: Contrast::difference(at(checkpoint), at(0)),
            control: None,
            answers: Answers::new("yes", "worse", "no"),
        };
        let analysis = Analysis::new(&setup, &collected);
        // No policy has the last checkpoint.
        let headlines = measure(&analysis, &recipe, (1..=means.len()).map(headline).collect()).unwrap();
        (recipe, headlines)
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
    fn a_sentence_has_question_answer_number_and_interval() {
        let (_, headlines) = headlines(2, 0.2, &[5.0, 6.0, 5.0]);
        let sentences: Vec<Option<String>> = headlines.iter().map(Headlined::sentence).collect();
        let first = sentences[0].as_ref().unwrap();
        assert!(first.starts_with("At which one? Is it better? Yes: 1 − 0 is +1.00 points [+"), "{first}");
        let second = sentences[1].as_ref().unwrap();
        assert!(second.ends_with("No: 2 − 0 is −0.03 points [−0.13, +0.07]."), "{second}");
        assert_eq!(sentences[2], None, "no policy, no sentence");
        let (_, open) = self::headlines(2, 0.01, &[5.0, 5.0]);
        let open = open[0].sentence().unwrap();
        assert!(open.contains("Undecided: 1 − 0") && open.contains(" To decide: "), "{open}");
        assert_eq!(["no, they harm", "gpt-4"].map(capitalized), ["No, they harm", "gpt-4"]);
    }

    #[test]
    fn the_figure_has_a_row_for_each_measured_answer() {
        let (recipe, measured) = headlines(2, 0.2, &[5.0, 6.0, 5.0]);
        let svg = figure(&recipe, &measured).unwrap();
        assert!(svg.as_str().contains("Is it better? 1 − 0: +1.00 [+"), "{svg}");
        assert!(svg.as_str().contains(": no.") && !svg.as_str().contains("3 − 0"), "{svg}");
        assert_eq!(figure(&recipe, &[]), None);
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
