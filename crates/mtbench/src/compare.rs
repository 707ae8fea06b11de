//! Two models on the same questions: paired differences, win rates, and effects of length and position.

use std::collections::{BTreeMap, BTreeSet};

use report::table::{Align, Column, Table, Value};
use stats::{
    ClusteredScores, CrossedScores, Observation, Over, Plan, Tally, mean_interval,
    paired_difference_interval, sign_test, wilson_interval,
};

use crate::answer::Answer;
use crate::error::Error;
use crate::pair::{PairJudgment, Winner};
use crate::pair_scores::counted;
use crate::rating::Mode;
use crate::tables::{ModelScores, Resampling, repeated_note};

/// The power at which the minimal detectable difference is computed.
const POWER: f64 = 0.8;

/// One turn with ratings of both models.
#[derive(Clone, Debug)]
struct PairedTurn {
    question_id: u64,
    category: String,
    turn: u8,
    /// All ratings of either model: several where judgments repeat in FastChat's mode, or several judges share a file.
    scores: [Vec<f64>; 2],
}

impl PairedTurn {
    fn difference(&self) -> Difference {
        let [first, second] = self.scores.each_ref().map(|scores| mean(scores));
        Difference { question_id: self.question_id, turn: self.turn, points: first - second }
    }
}

fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len() as f64
}

/// The lead of the first model in one turn, in points.
#[derive(Clone, Copy, Debug)]
struct Difference {
    question_id: u64,
    turn: u8,
    points: f64,
}

/// Returns the differences of the two models' scores over turns with ratings of both, by turn and by category.
///
/// Each row has the mean difference with an interval that resamples questions, the numbers of questions on which either
/// model has the higher mean, and the p-value of the sign test. Every rating counts that counts in
/// [`score_table`](crate::score_table), so that both agree in either mode.
///
/// # Errors
///
/// [`Error::Statistics`] if there is nothing to compare.
pub fn difference_table(
    first: &ModelScores,
    second: &ModelScores,
    judge: &str,
    mode: Mode,
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
        "A question is won by the higher mean of its turns; an equal one is half a win in the win rate."
            .to_owned(),
        "One p-value in twenty is below 0.05 by chance alone.".to_owned(),
    ];
    let differences = paired.iter().map(PairedTurn::difference).collect::<Vec<_>>();
    notes.extend(detectable(&differences, resampling.level));
    if left_out > 0 {
        notes.push(format!("{left_out} turns with a rating of one model only are left out."));
    }
    notes.extend(repeated_note(first.1.repeated() + second.1.repeated(), "judgments", mode));
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
        let scores = |turn: &&'a PairedTurn| {
            let question_id = turn.question_id;
            turn.scores[at].iter().map(move |score| (question_id, *score))
        };
        ClusteredScores::new(turns.iter().flat_map(scores)).map_err(failed)
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
        _ => Value::missing("no turn has ratings of both models"),
    };
    let mut by_question: BTreeMap<u64, f64> = BTreeMap::new();
    for turn in &turns {
        *by_question.entry(turn.question_id).or_default() += turn.difference().points;
    }
    let count = |counts: fn(&f64) -> bool| by_question.values().filter(|sum| counts(sum)).count() as u64;
    let tally = Tally {
        wins_model_1: count(|sum| *sum > 0.0),
        wins_model_2: count(|sum| *sum < 0.0),
        ties: count(|sum| *sum == 0.0),
    };
    let win_rate = tally.adjusted_win_rate().map_or_else(
        || Value::missing("no turn has ratings of both models"),
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

/// The minimal detectable difference of the questions with all their turns; `None` if they are too few.
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
        "Minimal detectable difference ({:.0}% power) of {questions} questions: {smallest:.2} points.",
        100.0 * POWER
    ))
}

/// Turns with ratings of both models, and the number of turns with ratings of one.
fn paired(first: &ModelScores, second: &ModelScores) -> (Vec<PairedTurn>, usize) {
    let by_turn = |scores: &ModelScores| {
        let mut by_turn: BTreeMap<(u64, u8), Vec<f64>> = BTreeMap::new();
        for row in scores.1.rows() {
            by_turn.entry((row.question_id, row.turn)).or_default().push(row.score);
        }
        by_turn
    };
    let (one, two) = (by_turn(first), by_turn(second));
    let categories: BTreeMap<u64, &str> =
        first.1.rows().iter().map(|row| (row.question_id, row.category.as_str())).collect();
    let both: Vec<PairedTurn> = one
        .iter()
        .filter_map(|(&(question_id, turn), scores)| {
            let scores = [scores.clone(), two.get(&(question_id, turn))?.clone()];
            let category = categories.get(&question_id).copied().unwrap_or_default().to_owned();
            Some(PairedTurn { question_id, category, turn, scores })
        })
        .collect();
    let all: BTreeSet<_> = one.keys().chain(two.keys()).collect();
    let left_out = all.len() - both.len();
    (both, left_out)
}

/// Returns the wins of two models in the comparisons of `judgments`, with an interval that resamples questions; `None`
/// without a comparison of the two.
///
/// # Errors
///
/// [`Error::Statistics`].
pub fn comparison_table(
    [first, second]: [&str; 2],
    judgments: &[PairJudgment],
    judge: &str,
    mode: Mode,
    resampling: &Resampling,
) -> Result<Option<Table>, Error> {
    let of_both = |row: &&PairJudgment| {
        let models = (row.model_1.as_str(), row.model_2.as_str());
        models == (first, second) || models == (second, first)
    };
    let all: Vec<&PairJudgment> = judgments.iter().filter(of_both).collect();
    if all.is_empty() {
        return Ok(None);
    }
    // 1 for a comparison that the first model won, 0 for one that it lost.
    let won = |row: &&PairJudgment| match (row.winner(), row.model_1 == first) {
        (Winner::Error, _) => None,
        (Winner::Tie, _) => Some((row.question_id, 0.5)),
        (Winner::Model1, is_first) => Some((row.question_id, f64::from(u8::from(is_first)))),
        (Winner::Model2, is_first) => Some((row.question_id, f64::from(u8::from(!is_first)))),
    };
    let counted = counted(&all, mode);
    let shares: Vec<(u64, f64)> = counted.iter().filter_map(won).collect();
    let count = |share: f64| Value::Count(shares.iter().filter(|(_, won)| *won == share).count() as u64);
    let row = |name: String, value: Value| vec![Value::text(&name), value];
    let rows = vec![
        row(format!("won by {first}"), count(1.0)),
        row(format!("won by {second}"), count(0.0)),
        row("ties".to_owned(), count(0.5)),
        row("without a verdict".to_owned(), Value::Count((counted.len() - shares.len()) as u64)),
        row(format!("win rate of {first}"), win_rate(&shares, resampling)?),
    ];
    let columns = vec![Column::new("comparisons", Align::Left), Column::new("value", Align::Right)];
    let mut notes = vec![format!(
        "A tie is half a win. The {:.0}% interval resamples whole questions.",
        100.0 * resampling.level
    )];
    let repeated = all.len() - self::counted(&all, Mode::Strict).len();
    notes.extend(repeated_note(repeated, "comparisons", mode));
    let title = format!("{first} and {second}, compared by {judge}");
    Ok(Some(Table { id: "wins".to_owned(), title, columns, rows, notes }))
}

fn win_rate(shares: &[(u64, f64)], resampling: &Resampling) -> Result<Value, Error> {
    let failed = |source| Error::Statistics { what: "the win rate".to_owned(), source };
    let scores = ClusteredScores::new(shares.iter().copied()).map_err(failed)?;
    let Some(value) = scores.mean() else { return Ok(Value::missing("no comparison has a verdict")) };
    if scores.clusters() < 2 {
        return Ok(Value::Number { value, decimals: 2 });
    }
    let mut rng = resampling.seeds.stream("win rate");
    let estimate =
        mean_interval(&scores, resampling.resamples, resampling.level, &mut rng).map_err(failed)?;
    Ok(Value::Interval { value, low: estimate.low, high: estimate.high, decimals: 2 })
}

/// Returns the relation of length and score: mean lengths, the number of turns in which the longer answer has the higher
/// score, and the difference of scores at equal length.
///
/// The last is the intercept of a straight line through score difference over the logarithm of the lengths' ratio. Its
/// interval resamples questions and takes the line's slope as known.
///
/// # Errors
///
/// [`Error::Statistics`] if there is nothing to compare.
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
    let mut notes =
        vec!["Better answers may be longer for good reasons: this is a correlation, not a cause.".to_owned()];
    notes.extend(
        detectable(&at_equal_length, resampling.level).map(|note| format!("At equal length: {note}")),
    );
    Ok(Table { id: "length".to_owned(), title: "Length and score".to_owned(), columns, rows, notes })
}

/// The least-squares slope of score differences over the logarithms of lengths' ratios; 0 if all ratios are equal.
fn slope(points: &[(f64, Difference)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, Difference)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, d) = (mean(|(x, _)| *x), mean(|(_, d)| d.points));
    let covariance: f64 = points.iter().map(|(at, of)| (at - x) * (of.points - d)).sum();
    let variance: f64 = points.iter().map(|(at, _)| (at - x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

/// Position bias: the dependence of a judge's verdicts on the order of the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionBias {
    /// Comparisons in which both games have the same winner, or are both ties.
    pub consistent: u64,
    /// Comparisons in which the first position won both games.
    pub first: u64,
    /// Comparisons in which the second position won both games.
    pub second: u64,
    /// Comparisons in which exactly one game is a tie.
    pub half_tied: u64,
    /// Comparisons in which a game has no verdict.
    pub without_verdict: u64,
}

impl PositionBias {
    /// Counts `judgments` by their recorded winners; repeated ones as `mode` says.
    pub fn new(judgments: &[PairJudgment], mode: Mode) -> Self {
        let mut bias = Self::default();
        for judgment in counted(&judgments.iter().collect::<Vec<_>>(), mode) {
            let count = match (judgment.g1_winner, judgment.g2_winner) {
                (Winner::Error, _) | (_, Winner::Error) => &mut bias.without_verdict,
                // Model 1 is in the first position in game 1 and in the second position in game 2.
                (Winner::Model1, Winner::Model2) => &mut bias.first,
                (Winner::Model2, Winner::Model1) => &mut bias.second,
                (first, second) if first == second => &mut bias.consistent,
                _ => &mut bias.half_tied,
            };
            *count += 1;
        }
        bias
    }

    /// Returns the counts, with the share of consistent comparisons and its Wilson interval.
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
            row("the first position won both games", Value::Count(self.first)),
            row("the second position won both games", Value::Count(self.second)),
            row("a tie in one order only", Value::Count(self.half_tied)),
            row("no verdict in one or both games", Value::Count(self.without_verdict)),
            row("share with the same winner", share),
            row(
                "p of first against second position",
                Value::Number { value: sign_test(self.first, self.second).p_value, decimals: 3 },
            ),
        ];
        let columns = vec![Column::new("comparisons", Align::Left), Column::new("value", Align::Right)];
        let title = format!("Position bias of {judge}");
        Table { id: "position".to_owned(), title, columns, rows, notes: Vec::new() }
    }
}
