//! Appendix A.2: score changes by category, and the training pairs of each category.

use std::collections::BTreeMap;

use experiment::{LEVEL, SCORE_DECIMALS, Scorer, Subject, loss_name};
use pref_data::{categories_of, read_records_with};
use report::table::{Align, Column, Table, Value};
use stats::{MeanEstimate, spearman_rho};
use trainer::recipe::LossKind;

use super::is_baseline;
use crate::error::StudyError;
use crate::results::Results;

/// Numbers of pairs that differ by a smaller factor count as equal.
const ALIKE: f64 = 1.1;

/// Mean scores by category, then by question.
type ByCategory<'a> = BTreeMap<&'a str, BTreeMap<u64, f64>>;

/// Returns score changes from SFT and training pairs by category; `None` if no domain of the pairs is in a category.
pub(crate) fn categories(results: &Results<'_>, losses: &[LossKind]) -> Result<Option<Table>, StudyError> {
    let names = names(results);
    let pairs = pairs_by_category(results, &names)?;
    if pairs.values().all(|&pairs| pairs == 0.0) {
        return Ok(None);
    }
    let study = &results.recipe.study;
    let mut columns = vec![Column::new("Scorer", Align::Left), Column::new("Category", Align::Left)];
    columns.extend(["Training pairs", "SFT"].map(|title| Column::new(title, Align::Right)));
    let mut policies = Vec::new();
    for annotator in &study.annotators {
        for &loss in losses {
            columns.push(Column::grouped(format!("Change on {annotator}"), loss_name(loss), Align::Right));
            policies.push(move |subject: &Subject| match subject {
                Subject::Baseline { .. } => false,
                Subject::Trained { cell, checkpoint } => {
                    *checkpoint == results.last_checkpoint()
                        && (cell.annotator == *annotator && cell.loss == loss)
                        && cell.flip_rate.get() == 0.0
                }
            });
        }
    }
    let scorers = results.scorers();
    let mut rows = Vec::new();
    for scorer in scorers.shown() {
        let sft = by_category(results, scorer, &is_baseline);
        let trained: Vec<_> = policies.iter().map(|keep| by_category(results, scorer, keep)).collect();
        let mut changes: Vec<Vec<(f64, f64)>> = vec![Vec::new(); trained.len()];
        for (at, name) in names.iter().enumerate() {
            let label = if at == 0 { scorer.label.as_str() } else { "" };
            let mut row = vec![Value::text(label), Value::text(*name)];
            row.push(Value::Number { value: pairs[name], decimals: 0 });
            row.push(match sft.get(name).and_then(mean) {
                Some(value) => Value::Number { value, decimals: SCORE_DECIMALS },
                None => Value::missing("no scores"),
            });
            for (trained, changes) in trained.iter().zip(&mut changes) {
                let (value, change) = change(trained.get(name), sft.get(name))?;
                changes.extend(change.map(|change| (pairs[name], change)));
                row.push(value);
            }
            rows.push(row);
        }
        let mut row = vec![Value::text(""), Value::text("ρ with pairs"), Value::text(""), Value::text("")];
        row.extend(changes.iter().map(|changes| correlation(changes)));
        rows.push(row);
    }
    Ok(Some(Table {
        id: "table-categories".into(),
        title: "Score change by category, and how many training pairs it has".into(),
        columns,
        rows,
        notes: vec![
            "Training pairs: records of a replicate whose domain is in the category (for GAIR's scenarios by Table 6 of the \
             paper, where one may count twice). Brackets: 95% t-intervals over the category's questions, seeds and turns \
             averaged, for these policies. They are not corrected for the number of categories."
                .to_owned(),
            "ρ with pairs: Spearman’s rank correlation of change and pairs over the categories, with its exact p. With eight \
             categories only strong correlations are detectable."
                .to_owned(),
        ],
    }))
}

/// Returns the benchmark's categories in the order of its questions.
fn names<'a>(results: &'a Results<'a>) -> Vec<&'a str> {
    let judge = results.scorers().judge;
    let mut names = Vec::new();
    for (_, score) in results.scores.scored(&judge, &is_baseline) {
        if !names.contains(&score.category.as_str()) {
            names.push(score.category.as_str());
        }
    }
    names
}

/// Returns the records of each category, averaged over replicates.
fn pairs_by_category<'a>(
    results: &Results<'_>,
    names: &[&'a str],
) -> Result<BTreeMap<&'a str, f64>, StudyError> {
    let (source, setup) = (results.runner().source(), results.runner().setup());
    let mut counts: BTreeMap<&str, f64> = names.iter().map(|&name| (name, 0.0)).collect();
    // Given preferences are the same in every replicate.
    let replicates = if source.is_sandbox() { setup.seeds } else { 1 };
    for seed in 0..replicates {
        let reading = setup.data.reading(&source.replicate(seed));
        let (records, _) = read_records_with(source.records(seed), &reading)?;
        for domain in records.iter().filter_map(|record| record.domain.as_deref()) {
            let mapped = categories_of(domain).unwrap_or_default();
            for &name in names {
                if domain == name || mapped.iter().any(|category| category.name() == name) {
                    *counts.entry(name).or_default() += 1.0 / replicates as f64;
                }
            }
        }
    }
    Ok(counts)
}

fn by_category<'a>(
    results: &'a Results<'a>,
    scorer: &Scorer,
    keep: &dyn Fn(&Subject) -> bool,
) -> ByCategory<'a> {
    let mut sums: BTreeMap<&str, BTreeMap<u64, (f64, f64)>> = BTreeMap::new();
    for (_, score) in results.scores.scored(scorer, keep) {
        if let Some(value) = score.score {
            let of_category = sums.entry(&score.category).or_default();
            let (sum, count) = of_category.entry(score.question_id).or_default();
            *sum += value;
            *count += 1.0;
        }
    }
    let means = |of: BTreeMap<u64, (f64, f64)>| of.into_iter().map(|(id, (sum, n))| (id, sum / n)).collect();
    sums.into_iter().map(|(category, of)| (category, means(of))).collect()
}

fn mean(scores: &BTreeMap<u64, f64>) -> Option<f64> {
    (!scores.is_empty()).then(|| scores.values().sum::<f64>() / scores.len() as f64)
}

/// Returns the mean difference over the common questions.
fn change(
    trained: Option<&BTreeMap<u64, f64>>,
    sft: Option<&BTreeMap<u64, f64>>,
) -> Result<(Value, Option<f64>), StudyError> {
    let both = trained.zip(sft).map(|(trained, sft)| {
        trained.iter().filter_map(|(id, score)| Some(score - sft.get(id)?)).collect::<Vec<f64>>()
    });
    let differences = both.unwrap_or_default();
    match differences.len() {
        0 => return Ok((Value::missing("not in this grid"), None)),
        1 => {
            let value = differences[0];
            let (low, high) = (f64::NAN, f64::NAN);
            return Ok((Value::Difference { value, low, high, decimals: SCORE_DECIMALS }, Some(value)));
        }
        _ => {}
    }
    let failed = || StudyError::stats("change in a category");
    let estimate = MeanEstimate::of(&differences).map_err(failed())?;
    let interval = estimate.interval(LEVEL).map_err(failed())?;
    let (value, low, high) = (estimate.value, interval.low, interval.high);
    Ok((Value::Difference { value, low, high, decimals: SCORE_DECIMALS }, Some(value)))
}

fn correlation(changes: &[(f64, f64)]) -> Value {
    let (fewest, most) = changes
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |(low, high), (pairs, _)| (low.min(*pairs), high.max(*pairs)));
    if most < ALIKE * fewest {
        return Value::missing("all categories have about as many pairs");
    }
    let (pairs, changes): (Vec<f64>, Vec<f64>) = changes.iter().copied().unzip();
    match spearman_rho(&pairs, &changes) {
        Ok(rho) => Value::text(format!("{:+.2} (p = {:.2})", rho.value, rho.p.p_value).replace('-', "−")),
        Err(error) => Value::missing(error.to_string()),
    }
}
