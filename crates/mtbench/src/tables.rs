//! Scores and comparisons as tables and figures.

use report::figure::{GroupedBars, Radar, RadarSeries, Series, Svg};
use report::table::{Align, Column, Table, Value};
use seeds::Seeds;
use stats::{ClusteredScores, mean_interval};

use crate::error::Error;
use crate::pair_scores::PairScores;
use crate::question_id::{is_number, question_label};
use crate::rating::Mode;
use crate::scores::{MissingReason, ScoreRow, Scores};

/// The scores of one model, under its name.
pub type ModelScores = (String, Scores);

/// The settings of bootstrap intervals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resampling {
    /// The number of resamples.
    pub resamples: usize,
    /// The confidence level, such as 0.95.
    pub level: f64,
    /// The random streams of the resamples.
    pub seeds: Seeds,
}

impl Resampling {
    /// Ten thousand resamples at 95%.
    pub fn new(seeds: Seeds) -> Self {
        Self { resamples: 10_000, level: 0.95, seeds }
    }

    /// The mean of `rows` with its interval. Whole questions are resampled, since the turns of one question are correlated.
    /// One question gives no interval, no question a missing value.
    fn mean<'a>(
        &self,
        what: &str,
        rows: impl Iterator<Item = &'a ScoreRow>,
        decimals: usize,
    ) -> Result<Value, Error> {
        let failed = |source| Error::Statistics { what: what.to_owned(), source };
        let scores = ClusteredScores::new(rows.map(|row| (row.question_id, row.score))).map_err(failed)?;
        let Some(value) = scores.mean() else { return Ok(Value::missing("no ratings")) };
        if scores.clusters() < 2 {
            return Ok(Value::Number { value, decimals });
        }
        let mut rng = self.seeds.stream(what);
        let estimate = mean_interval(&scores, self.resamples, self.level, &mut rng).map_err(failed)?;
        Ok(Value::Interval { value, low: estimate.low, high: estimate.high, decimals })
    }
}

/// The name and the rows of a part of the scores.
type Part<'a> = (&'a str, &'a dyn Fn(&ScoreRow) -> bool);

/// First turns, second turns, and all ratings. FastChat's average is not the mean of the turns' means.
const TURNS: [Part<'static>; 3] =
    [("1", &|row| row.turn == 1), ("2", &|row| row.turn == 2), ("average", &|_| true)];

/// Returns the means of each model and turn, the highest average first. [`Mode::FastChat`] shows FastChat's figures;
/// [`Mode::Strict`] adds intervals and the numbers of rated and missing turns.
///
/// # Errors
///
/// [`Error::Statistics`] for a rating that is not finite.
pub fn score_table(
    scores: &[ModelScores],
    judge: &str,
    mode: Mode,
    resampling: &Resampling,
) -> Result<Table, Error> {
    let mut ranked: Vec<&ModelScores> = scores.iter().collect();
    let average = |scores: &ModelScores| scores.1.overall().average.unwrap_or(f64::NEG_INFINITY);
    ranked.sort_by(|a, b| average(b).total_cmp(&average(a)).then_with(|| a.0.cmp(&b.0)));
    let mut rows = Vec::new();
    for (model, scores) in ranked {
        for (turn, counts) in TURNS {
            let of_turn = || scores.rows().iter().filter(|row| counts(row));
            let missing = scores.missing().iter().filter(|m| turn == "average" || m.turn.to_string() == turn);
            if of_turn().count() + missing.clone().count() == 0 {
                continue;
            }
            let mut row = vec![Value::text(model), Value::text(turn)];
            match mode {
                Mode::FastChat => row.push(plain_mean(of_turn())),
                Mode::Strict => {
                    row.push(resampling.mean(
                        &format!("score {model} {turn}"),
                        of_turn(),
                        STRICT_DECIMALS,
                    )?);
                    row.extend([of_turn().count(), missing.count()].map(|n| Value::Count(n as u64)));
                }
            }
            rows.push(row);
        }
    }
    let mut columns = vec![
        Column::new("model", Align::Left),
        Column::new("turn", Align::Right),
        Column::new("score", Align::Right),
    ];
    let mut notes = Vec::new();
    match mode {
        Mode::FastChat => {
            let missing: usize = scores.iter().map(|(_, scores)| scores.missing().len()).sum();
            if missing > 0 {
                notes.push(format!("{missing} judgments without a rating are left out, as in FastChat."));
            }
        }
        Mode::Strict => {
            columns.extend(["rated", "missing"].map(|name| Column::new(name, Align::Right)));
            notes.push(interval_note(resampling));
        }
    }
    let repeated = scores.iter().map(|(_, scores)| scores.repeated()).sum();
    notes.extend(repeated_note(repeated, "judgments", mode));
    let title = format!("Scores by {judge}");
    Ok(Table { id: "scores".to_owned(), title, columns, rows, notes })
}

const FASTCHAT_DECIMALS: usize = 3;
const STRICT_DECIMALS: usize = 2;

fn plain_mean<'a>(rows: impl Iterator<Item = &'a ScoreRow>) -> Value {
    let (sum, count) = rows.fold((0.0, 0_u32), |(sum, count), row| (sum + row.score, count + 1));
    if count == 0 {
        return Value::missing("no ratings");
    }
    Value::Number { value: sum / f64::from(count), decimals: FASTCHAT_DECIMALS }
}

/// The number of rows that a later row supersedes, and their treatment.
pub(crate) fn repeated_note(repeated: usize, rows: &str, mode: Mode) -> Option<String> {
    let treatment = match mode {
        Mode::FastChat => "count, too, as in FastChat",
        Mode::Strict => "are left out",
    };
    (repeated > 0).then(|| format!("{repeated} {rows} with a later one of the same turn {treatment}."))
}

fn interval_note(resampling: &Resampling) -> String {
    format!(
        "{:.0}% intervals resample whole questions ({} times).",
        100.0 * resampling.level,
        resampling.resamples
    )
}

/// Returns the means of each model, category and turn.
///
/// # Errors
///
/// As [`score_table`].
pub fn category_table(
    scores: &[ModelScores],
    judge: &str,
    mode: Mode,
    resampling: &Resampling,
) -> Result<Table, Error> {
    let mut rows = Vec::new();
    for (model, scores) in scores {
        for category in scores.categories() {
            let mut row = vec![Value::text(model), Value::text(category)];
            for (turn, counts) in TURNS {
                let part = scores.rows().iter().filter(|row| row.category == *category && counts(row));
                row.push(match mode {
                    Mode::FastChat => plain_mean(part),
                    Mode::Strict => {
                        resampling.mean(&format!("score {model} {category} {turn}"), part, STRICT_DECIMALS)?
                    }
                });
            }
            let means = scores.category(category);
            row.extend([means.rated, means.missing].map(|n| Value::Count(n as u64)));
            rows.push(row);
        }
    }
    let names = ["turn 1", "turn 2", "average", "rated", "missing"];
    let columns = [Column::new("model", Align::Left), Column::new("category", Align::Left)];
    let columns = columns.into_iter().chain(names.map(|name| Column::new(name, Align::Right))).collect();
    let notes = if mode == Mode::Strict { vec![interval_note(resampling)] } else { Vec::new() };
    let title = format!("Scores by {judge}, category and turn");
    Ok(Table { id: "categories".to_owned(), title, columns, rows, notes })
}

/// Returns the turns without a rating that counts, with the reasons.
pub fn missing_table(scores: &[ModelScores], judge: &str) -> Table {
    let rows = scores.iter().flat_map(|(model, scores)| {
        scores.missing().iter().map(move |missing| {
            vec![
                Value::text(model),
                match is_number(missing.question_id) {
                    true => Value::Count(missing.question_id),
                    false => Value::text(&question_label(missing.question_id)),
                },
                Value::text(&missing.category),
                Value::Count(missing.turn.into()),
                Value::text(match missing.reason {
                    MissingReason::NoRating => "no rating in the judgment",
                    MissingReason::OffScale => "rating off the scale of 1 to 10",
                    MissingReason::Failed => "judge call failed",
                    MissingReason::NotJudged => "not judged",
                }),
            ]
        })
    });
    let columns = vec![
        Column::new("model", Align::Left),
        Column::new("question", Align::Right),
        Column::new("category", Align::Left),
        Column::new("turn", Align::Right),
        Column::new("reason", Align::Left),
    ];
    let title = format!("Turns without a rating by {judge}");
    Table { id: "missing".to_owned(), title, columns, rows: rows.collect(), notes: Vec::new() }
}

/// Returns wins, losses and ties of each model, with FastChat's three rates. `scores` were counted in `mode`.
pub fn pair_table(scores: &PairScores, judge: &str, mode: Mode) -> Table {
    let rate = |value: Option<f64>| match value {
        Some(value) => Value::Number { value, decimals: FASTCHAT_DECIMALS },
        None => Value::missing("no comparisons"),
    };
    let rows = scores.rows.iter().map(|row| {
        vec![
            Value::text(&row.model),
            Value::Count(row.win),
            Value::Count(row.loss),
            Value::Count(row.tie),
            rate(row.win_rate()),
            rate(row.loss_rate()),
            rate(row.win_rate_adjusted()),
        ]
    });
    let names = ["win", "loss", "tie", "win_rate", "loss_rate", "win_rate_adjusted"];
    let columns = std::iter::once(Column::new("model", Align::Left))
        .chain(names.map(|name| Column::new(name, Align::Right)))
        .collect();
    let mut notes = vec!["A tie counts as half a win in win_rate_adjusted.".to_owned()];
    if scores.dropped > 0 {
        notes.push(format!("{} comparisons without a verdict are left out.", scores.dropped));
    }
    notes.extend(repeated_note(scores.repeated, "comparisons", mode));
    let title = format!("Comparisons by {judge}");
    Table { id: "comparisons".to_owned(), title, columns, rows: rows.collect(), notes }
}

/// The scale of the figures.
const SCALE: (f64, f64) = (0.0, 10.0);

/// Returns the means of categories as a radar, one line a model.
pub fn radar(scores: &[ModelScores], judge: &str) -> Svg {
    let axes = categories(scores);
    let series = scores.iter().map(|(model, scores)| RadarSeries {
        name: model.clone(),
        values: axes.iter().map(|category| scores.category(category).average).collect(),
    });
    Radar {
        title: format!("Scores by {judge}"),
        value_label: "mean score".to_owned(),
        range: SCALE,
        series: series.collect(),
        axes,
    }
    .to_svg()
}

/// Returns the means of categories as bars with intervals, one color a model.
///
/// # Errors
///
/// As [`score_table`].
pub fn bars(scores: &[ModelScores], judge: &str, resampling: &Resampling) -> Result<Svg, Error> {
    let groups = categories(scores);
    let mut series = Vec::new();
    for (model, scores) in scores {
        let mut values = Vec::new();
        for category in &groups {
            let rows = scores.rows().iter().filter(|row| row.category == *category);
            let what = format!("score {model} {category} average");
            values.push(match resampling.mean(&what, rows, STRICT_DECIMALS)? {
                Value::Interval { value, low, high, .. } => Some((value, low, high)),
                Value::Number { value, .. } => Some((value, f64::NAN, f64::NAN)),
                _ => None,
            });
        }
        series.push(Series { name: model.clone(), values });
    }
    let title = format!("Scores by {judge} and category");
    let y_label = format!("Mean score, with {:.0}% intervals", 100.0 * resampling.level);
    Ok(GroupedBars { title, y_label, y_range: SCALE, groups, series }.to_svg())
}

/// The categories of all models, in the order of the questions.
fn categories(scores: &[ModelScores]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for category in scores.iter().flat_map(|(_, scores)| scores.categories()) {
        if !all.contains(category) {
            all.push(category.clone());
        }
    }
    all
}
