//! Agreement of the judges with each other and with the ground truth.

use experiment::{LEVEL, SCORE_DECIMALS, Scorer};
use report::table::{Align, Column, Table, Value};
use stats::{ClusteredScores, Correlation, Estimate, kendall_tau, mean_interval, spearman_rho};

use crate::error::StudyError;
use crate::results::Results;

/// Bootstrap resamples of an interval.
const RESAMPLES: usize = 2_000;

/// Returns the agreement of the main judge with every other scorer; `None` without others.
pub(crate) fn judges(results: &Results<'_>) -> Result<Option<Table>, StudyError> {
    let scorers = results.scorers();
    let others = scorers.second.iter().chain(scorers.gold.iter().map(|[gold, _]| gold));
    let mut rows = Vec::new();
    for other in others {
        rows.extend(agreement(results, &scorers.judge, other)?);
    }
    Ok((!rows.is_empty()).then(|| Table {
        id: "table-judges".into(),
        title: "Agreement of the judges".into(),
        columns: [("Scorers", Align::Left), ("Turns", Align::Right), ("Second − first", Align::Right)]
            .map(|(title, align)| Column::new(title, align))
            .into_iter()
            .chain([
                Column::grouped("Rank correlation", "ρ over turns", Align::Right),
                Column::grouped("Rank correlation", "τ over policies", Align::Right),
            ])
            .collect(),
        rows,
        notes: vec![
            "Turns of the benchmark that both rated, policies and seeds pooled. Brackets: 95% bootstrap intervals clustered by \
             question. ρ: Spearman's, of single ratings. τ: Kendall's, of the mean scores of policies, seed by seed: agreement on \
             the order of the policies."
                .to_owned(),
        ],
    }))
}

/// Returns the row of two scorers; `None` without turns that both rated.
fn agreement(
    results: &Results<'_>,
    first: &Scorer,
    second: &Scorer,
) -> Result<Option<Vec<Value>>, StudyError> {
    let what = || format!("{} and {}", second.label, first.label);
    let mut turns: Vec<(u64, f64, f64)> = Vec::new();
    let mut policies: Vec<(f64, f64)> = Vec::new();
    for evaluated in
        results.scores.evaluated.iter().filter(|evaluated| results.runner().is_final(&evaluated.subject))
    {
        let scores = &evaluated.evaluation.scores;
        let of = |scorer: &Scorer, question: u64, turn: u8| {
            let found =
                scores.iter().find(|s| scorer.is_of(s) && (s.question_id, s.turn) == (question, turn));
            found.and_then(|score| score.score)
        };
        let both: Vec<(u64, f64, f64)> = scores
            .iter()
            .filter(|score| first.is_of(score))
            .filter_map(|s| Some((s.question_id, s.score?, of(second, s.question_id, s.turn)?)))
            .collect();
        let mean = |of: fn(&(u64, f64, f64)) -> f64| both.iter().map(of).sum::<f64>() / both.len() as f64;
        if !both.is_empty() {
            policies.push((mean(|turn| turn.1), mean(|turn| turn.2)));
        }
        turns.extend(both);
    }
    if turns.is_empty() {
        return Ok(None);
    }
    let differences = ClusteredScores::new(turns.iter().map(|(question, a, b)| (*question, b - a)))
        .map_err(StudyError::stats(what()))?;
    let mut row =
        vec![Value::text(format!("{}, {}", first.label, second.label)), Value::Count(turns.len() as u64)];
    row.push(match differences.clusters() {
        0 | 1 => Value::missing("one question has no interval"),
        _ => {
            let interval = mean_interval(&differences, RESAMPLES, LEVEL, &mut results.scores.rng());
            let Estimate { value, low, high, .. } = interval.map_err(StudyError::stats(what()))?;
            Value::Difference { value, low, high, decimals: SCORE_DECIMALS }
        }
    });
    let (a, b): (Vec<f64>, Vec<f64>) = turns.iter().map(|(_, a, b)| (*a, *b)).unzip();
    row.push(correlation(spearman_rho(&a, &b)));
    let (a, b): (Vec<f64>, Vec<f64>) = policies.into_iter().unzip();
    row.push(correlation(kendall_tau(&a, &b)));
    Ok(Some(row))
}

fn correlation(found: Result<Correlation, stats::Error>) -> Value {
    match found {
        Ok(found) => Value::Number { value: found.value, decimals: SCORE_DECIMALS },
        Err(error) => Value::missing(error.to_string()),
    }
}
