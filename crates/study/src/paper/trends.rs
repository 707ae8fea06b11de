//! Trends over volume and noise: of each column, and of all columns of a loss.

use report::table::{Align, Column, Table, Value};
use stats::{Correlation, Trend, holm, kendall_tau, page_test};

use super::{Error, PaperTable};

/// A column of scores by level.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) loss: &'static str,
    /// Percent of the pairs, or of flipped labels.
    pub(crate) at: Vec<f64>,
    pub(crate) scores: Vec<f64>,
}

impl Series {
    pub(crate) fn tau(&self) -> Result<Correlation, Error> {
        Ok(kendall_tau(&self.at, &self.scores)?)
    }

    /// Returns the largest minus the smallest score.
    pub(crate) fn range(&self) -> f64 {
        let high = self.scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        high - self.scores.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

fn series(tables: &[PaperTable], numbers: &[usize]) -> Result<Vec<Series>, Error> {
    let mut all = Vec::new();
    for table in tables.iter().filter(|table| numbers.contains(&table.number)) {
        let at = table.column(&table.columns[0])?;
        for (_, header) in table.score_columns() {
            let loss = ["cDPO", "DPO", "IPO"].into_iter().find(|loss| header.contains(loss)).unwrap_or("DPO");
            let name = format!("Table {}: {}", table.number, header.replace("Loss = ", ""));
            all.push(Series { name, loss, at: at.clone(), scores: table.column(header)? });
        }
    }
    Ok(all)
}

/// Returns scores by share of pairs: Tables 3, 8 and 13, which includes Table 11.
pub(crate) fn by_volume(tables: &[PaperTable]) -> Result<Vec<Series>, Error> {
    series(tables, &[3, 8, 13])
}

/// Returns scores by share of flipped labels: Tables 4 and 14, which includes Table 12. Table 9 has two levels only.
pub(crate) fn by_noise(tables: &[PaperTable]) -> Result<Vec<Series>, Error> {
    series(tables, &[4, 14])
}

/// Tests for a trend of the columns that start with `prefixes`, such as `Table 4: GPT4-Turbo, DPO`, each as a block of Page's
/// test.
///
/// # Errors
///
/// Those of [`tables`](super::tables()); [`Error::Stats`] for columns with different numbers of levels.
pub fn pooled_trend(tables: &[PaperTable], loss: &str, prefixes: &[&str]) -> Result<Trend, Error> {
    let all = by_volume(tables)?.into_iter().chain(by_noise(tables)?);
    let chosen: Vec<Series> =
        all.filter(|series| prefixes.iter().any(|prefix| series.name.starts_with(prefix))).collect();
    Ok(together(&chosen, loss)?.1)
}

/// Returns the number of columns of a loss, and Page's test with each column as a block.
pub(crate) fn together(series: &[Series], loss: &str) -> Result<(usize, Trend), Error> {
    let blocks: Vec<Vec<f64>> = series
        .iter()
        .filter(|series| series.loss == loss)
        .map(|series| {
            let mut pairs: Vec<(f64, f64)> =
                series.at.iter().copied().zip(series.scores.iter().copied()).collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
            pairs.into_iter().map(|(_, score)| score).collect()
        })
        .collect();
    Ok((blocks.len(), page_test(&blocks)?))
}

/// Returns a table with Kendall's τ of each series, and its p-values.
pub(crate) fn table(id: &str, title: &str, series: &[Series]) -> Result<Table, Error> {
    let taus = series.iter().map(Series::tau).collect::<Result<Vec<_>, _>>()?;
    let adjusted = holm(&taus.iter().map(|tau| tau.p.p_value).collect::<Vec<_>>())?;
    let number = |value: f64, decimals: usize| Value::Number { value, decimals };
    let rows = series.iter().zip(taus.iter().zip(adjusted)).map(|(series, (tau, adjusted))| {
        vec![
            Value::text(&series.name),
            Value::Count(series.at.len() as u64),
            number(tau.value, 2),
            number(tau.p.p_value, 3),
            number(adjusted, 3),
            number(series.range(), 3),
        ]
    });
    let header = |name: &str| Column::new(name, Align::Right);
    Ok(Table {
        id: id.to_owned(),
        title: title.to_owned(),
        columns: vec![
            Column::new("Column", Align::Left),
            header("Levels"),
            header("τ"),
            header("p"),
            header("p, Holm"),
            header("Largest − smallest"),
        ],
        rows: rows.collect(),
        notes: vec!["τ: Kendall’s, of score and level; p: exact, two-sided.".to_owned()],
    })
}
