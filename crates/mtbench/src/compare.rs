//! Two models on the same questions: paired differences, win rates, and what else may have moved the judge.

use std::collections::{BTreeMap, BTreeSet};

use report::table::{Align, Column, Table, Value};
use stats::{
    ClusteredScores, CrossedScores, Observation, Over, Plan, Tally, mean_interval,
    paired_difference_interval, sign_test, wilson_interval,
};

use crate::pair_scores::counted;
use crate::tables::{ModelScores, Resampling};
use crate::{Answer, Error, Mode, PairJudgment, PairVerdict, parse_pair_verdict};

/// The chance of finding a difference at which a design is called able to see it.
const POWER: f64 = 0.8;

/// One turn that both models have a rating of.
#[derive(Clone, Debug)]
struct PairedTurn {
    question_id: u64,
    category: String,
    turn: u8,
    scores: [f64; 2],
}

impl PairedTurn {
    fn difference(&self) -> Difference {
        Difference { question_id: self.question_id, turn: self.turn, points: self.scores[0] - self.scores[1] }
    }
}

/// By how many points the first model is ahead in one turn.
#[derive(Clone, Copy, Debug)]
struct Difference {
    question_id: u64,
    turn: u8,
    points: f64,
}

/// How the first model's scores differ from the second's, over all turns that both have a rating of, by turn and by
/// category: the mean difference with an interval that resamples questions, and on how many questions either model has the
/// higher mean, with the p-value of the sign test.
///
/// # Errors
///
/// [`Error::Statistics`] where there is nothing to compare.
pub fn difference_table(
    first: &ModelScores,
    second: &ModelScores,
    judge: &str,
    resampling: &Resampling,
) -> Result<Table, Error> {
    let (paired, left_out) = paired(first, second);
    let mut rows = vec![difference_row("all", paired.iter(), resampling)?];
    for turn in [1, 2] {
        rows.push(difference_row(
            &format!("turn {turn}"),
            paired.iter().filter(|p| p.turn == turn),
            resampling,
        )?);
    }
    for category in first.1.categories() {
        let part = paired.iter().filter(|p| p.category == *category);
        rows.push(difference_row(category, part, resampling)?);
    }
    let columns = vec![
        Column::new("part", Align::Left),
        Column::new("turns", Align::Right),
        Column::new("difference", Align::Right),
        Column::grouped("questions", "won", Align::Right),
        Column::grouped("questions", "lost", Align::Right),
        Column::grouped("questions", "equal", Align::Right),
        Column::new("win rate", Align::Right),
        Column::new("sign test p", Align::Right),
    ];
    let mut notes = vec![
        format!(
            "Differences are {} minus {}, with {:.0}% intervals that resample whole questions.",
            first.0,
            second.0,
            100.0 * resampling.level
        ),
        "A question is won by the higher mean of its turns; in the win rate an equal one counts as half."
            .to_owned(),
        "Of so many comparisons, expect one p-value in twenty below 0.05 by chance alone.".to_owned(),
    ];
    let differences = paired.iter().map(PairedTurn::difference).collect::<Vec<_>>();
    notes.extend(detectable(&differences, resampling.level));
    if left_out > 0 {
        notes.push(format!("{left_out} turns that only one model has a rating of are left out."));
    }
    let title = format!("{} and {}, scored by {judge}", first.0, second.0);
    Ok(Table { id: "differences".to_owned(), title, columns, rows, notes })
}

fn difference_row<'a>(
    part: &str,
    turns: impl Iterator<Item = &'a PairedTurn>,
    resampling: &Resampling,
) -> Result<Vec<Value>, Error> {
    let turns: Vec<&PairedTurn> = turns.collect();
    let failed = |source| Error::Statistics { what: format!("the difference of {part}"), source };
    let side = |at: usize| {
        ClusteredScores::new(turns.iter().map(|turn| (turn.question_id, turn.scores[at]))).map_err(failed)
    };
    let (first, second) = (side(0)?, side(1)?);
    let difference = match (first.mean(), second.mean()) {
        (Some(one), Some(two)) if first.clusters() < 2 => Value::Number { value: one - two, decimals: 2 },
        (Some(_), Some(_)) => {
            let mut rng = resampling.seeds.stream(&format!("difference {part}"));
            let (resamples, level) = (resampling.resamples, resampling.level);
            let estimate =
                paired_difference_interval(&first, &second, resamples, level, &mut rng).map_err(failed)?;
            Value::Difference { value: estimate.value, low: estimate.low, high: estimate.high, decimals: 2 }
        }
        _ => Value::missing("no turn has a rating of both models"),
    };
    let mut by_question: BTreeMap<u64, f64> = BTreeMap::new();
    for turn in &turns {
        *by_question.entry(turn.question_id).or_default() += turn.scores[0] - turn.scores[1];
    }
    let count = |counts: fn(&f64) -> bool| by_question.values().filter(|sum| counts(sum)).count() as u64;
    let tally = Tally {
        wins_model_1: count(|sum| *sum > 0.0),
        wins_model_2: count(|sum| *sum < 0.0),
        ties: count(|sum| *sum == 0.0),
    };
    let win_rate = tally.adjusted_win_rate().map_or_else(
        || Value::missing("no turn has a rating of both models"),
        |value| Value::Percent { value, decimals: 0 },
    );
    Ok(vec![
        Value::text(part),
        Value::Count(turns.len() as u64),
        difference,
        Value::Count(tally.wins_model_1),
        Value::Count(tally.wins_model_2),
        Value::Count(tally.ties),
        win_rate,
        Value::Number { value: tally.sign_test().p_value, decimals: 3 },
    ])
}

/// How small a difference the questions with all their turns can show; `None` where they are too few to tell.
fn detectable(differences: &[Difference], level: f64) -> Option<String> {
    let mut turns_of: BTreeMap<u64, usize> = BTreeMap::new();
    for difference in differences {
        *turns_of.entry(difference.question_id).or_default() += 1;
    }
    let all_turns = turns_of.values().copied().max()?;
    let whole = differences.iter().filter(|difference| turns_of[&difference.question_id] == all_turns);
    let observations = whole.map(|difference| Observation {
        seed: 0,
        question: difference.question_id,
        turn: u64::from(difference.turn),
        repeat: 0,
        score: difference.points,
    });
    let components = CrossedScores::new(observations).and_then(|scores| scores.components()).ok()?;
    let plan = Plan { variances: components.variances(), over: Over::Questions, level };
    let smallest = plan.minimal_detectable_difference(components.design, POWER).ok()?;
    let questions = components.design.questions;
    Some(format!(
        "What {questions} questions can show: a true difference of {smallest:.2} points is found four times in five."
    ))
}

/// Turns that both models have a rating of, and how many only one has. Of several judges' ratings the last counts.
fn paired(first: &ModelScores, second: &ModelScores) -> (Vec<PairedTurn>, usize) {
    let by_turn = |scores: &ModelScores| -> BTreeMap<(u64, u8), f64> {
        scores.1.rows().iter().map(|row| ((row.question_id, row.turn), row.score)).collect()
    };
    let (one, two) = (by_turn(first), by_turn(second));
    let categories: BTreeMap<u64, &str> =
        first.1.rows().iter().map(|row| (row.question_id, row.category.as_str())).collect();
    let both: Vec<PairedTurn> = one
        .iter()
        .filter_map(|(&(question_id, turn), &score)| {
            let scores = [score, *two.get(&(question_id, turn))?];
            let category = categories.get(&question_id).copied().unwrap_or_default().to_owned();
            Some(PairedTurn { question_id, category, turn, scores })
        })
        .collect();
    let all: BTreeSet<_> = one.keys().chain(two.keys()).collect();
    let left_out = all.len() - both.len();
    (both, left_out)
}

/// Whether the judge may have paid for length: how long the answers are, how often the longer one has the higher score, and
/// the difference of scores that is left at equal length.
///
/// The last is the intercept of a straight line through score difference over the logarithm of the lengths' ratio. Its
/// interval resamples questions and takes the line's slope as known.
///
/// # Errors
///
/// [`Error::Statistics`] where there is nothing to compare.
pub fn length_table(
    first: &ModelScores,
    second: &ModelScores,
    answers: [&[Answer]; 2],
    resampling: &Resampling,
) -> Result<Table, Error> {
    let what = || "the difference at equal length".to_owned();
    let failed = |source| Error::Statistics { what: what(), source };
    let lengths = answers.map(|answers| {
        let turns = answers.iter().flat_map(|answer| {
            (1_u8..)
                .zip(answer.turns())
                .map(move |(turn, text)| ((answer.question_id, turn), text.chars().count()))
        });
        turns.collect::<BTreeMap<_, _>>()
    });
    let (paired, _) = paired(first, second);
    let points: Vec<(f64, Difference)> = paired
        .iter()
        .filter_map(|turn| {
            let length = |of: usize| Some(1.0 + *lengths[of].get(&(turn.question_id, turn.turn))? as f64);
            Some(((length(0)? / length(1)?).ln(), turn.difference()))
        })
        .collect();
    let slope = slope(&points);
    let longer_wins = points.iter().filter(|(x, d)| x * d.points > 0.0).count() as u64;
    let longer_loses = points.iter().filter(|(x, d)| x * d.points < 0.0).count() as u64;
    let at_equal_length: Vec<Difference> =
        points.iter().map(|(x, d)| Difference { points: d.points - slope * x, ..*d }).collect();
    let by_question = at_equal_length.iter().map(|d| (d.question_id, d.points));
    let scores = ClusteredScores::new(by_question).map_err(failed)?;
    let controlled = if scores.clusters() < 2 {
        Value::missing("fewer than two questions")
    } else {
        let mut rng = resampling.seeds.stream("length-controlled difference");
        let estimate =
            mean_interval(&scores, resampling.resamples, resampling.level, &mut rng).map_err(failed)?;
        Value::Difference { value: estimate.value, low: estimate.low, high: estimate.high, decimals: 2 }
    };
    let mean_length = |of: usize| match lengths[of].len() {
        0 => Value::missing("no answers"),
        count => {
            Value::Number { value: lengths[of].values().sum::<usize>() as f64 / count as f64, decimals: 0 }
        }
    };
    let row = |name: String, value: Value| vec![Value::text(name), value];
    let rows = vec![
        row(format!("mean length of {}, characters", first.0), mean_length(0)),
        row(format!("mean length of {}, characters", second.0), mean_length(1)),
        row("turns in which the longer answer has the higher score".to_owned(), Value::Count(longer_wins)),
        row("turns in which it has the lower one".to_owned(), Value::Count(longer_loses)),
        row(
            "p of that under no preference".to_owned(),
            Value::Number { value: sign_test(longer_wins, longer_loses).p_value, decimals: 3 },
        ),
        row(
            "points for an answer twice as long".to_owned(),
            Value::Number { value: slope * std::f64::consts::LN_2, decimals: 2 },
        ),
        row(format!("difference at equal length, {} minus {}", first.0, second.0), controlled),
    ];
    let columns = vec![Column::new("length", Align::Left), Column::new("value", Align::Right)];
    let mut notes = vec![
        "Better answers may be longer for good reasons: this shows what goes together, not what causes what."
            .to_owned(),
    ];
    notes.extend(
        detectable(&at_equal_length, resampling.level).map(|note| format!("At equal length: {note}")),
    );
    Ok(Table { id: "length".to_owned(), title: "Length and score".to_owned(), columns, rows, notes })
}

/// The least-squares slope of score differences over the logarithms of lengths' ratios; 0 where all ratios are equal.
fn slope(points: &[(f64, Difference)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, Difference)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, d) = (mean(|(x, _)| *x), mean(|(_, d)| d.points));
    let covariance: f64 = points.iter().map(|(at, of)| (at - x) * (of.points - d)).sum();
    let variance: f64 = points.iter().map(|(at, _)| (at - x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

/// How a judge's verdicts depend on who is shown first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionBias {
    /// Comparisons in which both games have the same winner, or are both ties.
    pub consistent: u64,
    /// Comparisons in which whoever was shown first won both games.
    pub first: u64,
    /// Comparisons in which whoever was shown second won both games.
    pub second: u64,
    /// Comparisons of which one game is a tie and the other is not.
    pub half_tied: u64,
    /// Comparisons of which a game has no verdict.
    pub without_verdict: u64,
}

impl PositionBias {
    /// Counts `judgments`, read in `mode`.
    pub fn new(judgments: &[PairJudgment], mode: Mode) -> Self {
        let mut bias = Self::default();
        for judgment in counted(judgments, mode) {
            let verdicts =
                [&judgment.g1_judgment, &judgment.g2_judgment].map(|text| parse_pair_verdict(text, mode));
            let count = match verdicts {
                [None, _] | [_, None] => &mut bias.without_verdict,
                [Some(PairVerdict::A), Some(PairVerdict::A)] => &mut bias.first,
                [Some(PairVerdict::B), Some(PairVerdict::B)] => &mut bias.second,
                [Some(PairVerdict::Tie), Some(PairVerdict::Tie)] => &mut bias.consistent,
                [Some(PairVerdict::Tie), _] | [_, Some(PairVerdict::Tie)] => &mut bias.half_tied,
                _ => &mut bias.consistent,
            };
            *count += 1;
        }
        bias
    }

    /// The counts as a table, with the share of consistent comparisons and its interval by Wilson.
    pub fn table(&self, judge: &str, level: f64) -> Table {
        let all = self.consistent + self.first + self.second + self.half_tied;
        let share = wilson_interval(self.consistent, all, level).map_or_else(
            |_| Value::missing("no comparisons"),
            |interval| Value::Interval {
                value: self.consistent as f64 / all as f64,
                low: interval.low,
                high: interval.high,
                decimals: 2,
            },
        );
        let row = |name: &str, value: Value| vec![Value::text(name), value];
        let rows = vec![
            row("same winner in both orders", Value::Count(self.consistent)),
            row("the first place won both games", Value::Count(self.first)),
            row("the second place won both games", Value::Count(self.second)),
            row("a tie in one order only", Value::Count(self.half_tied)),
            row("no verdict in one or both games", Value::Count(self.without_verdict)),
            row("share with the same winner", share),
            row(
                "p of first against second place",
                Value::Number { value: sign_test(self.first, self.second).p_value, decimals: 3 },
            ),
        ];
        let columns = vec![Column::new("comparisons", Align::Left), Column::new("value", Align::Right)];
        let title = format!("What the order does to {judge}");
        Table { id: "position".to_owned(), title, columns, rows, notes: Vec::new() }
    }
}
