//! Comparisons as tables, JSON and CSV.

use report::table::{Align, Column, Table, Value};

use crate::people::MORE_RATINGS;
use crate::tested::POWER;
use crate::{Comparison, ContrastRow, Measured, People};

/// The most names of a list.
const MOST_NAMES: usize = 10;

impl Comparison {
    /// Returns the comparison as a table.
    pub fn table(&self) -> Table {
        let decimals = self.decimals();
        let rows = self.rows.iter().map(|row| {
            let required = [row.required_questions, row.required_seeds].map(required);
            let cells = [Value::text(&row.contrast)].into_iter().chain(cells(&row.measured, decimals));
            cells.chain(required).collect()
        });
        let right = |name: &str| Column::new(name, Align::Right);
        let grouped = |name: &str| Column::grouped("Required", name, Align::Right);
        let columns = vec![
            Column::new("Contrast", Align::Left),
            right("Difference"),
            right("p"),
            right("Holm"),
            right("MDE"),
            grouped("qu."),
            grouped("seeds"),
        ];
        let title = match self.scorer.as_str() {
            "" => "Differences".to_owned(),
            scorer => format!("Differences, scored by {scorer}"),
        };
        Table { id: "comparison".into(), title, columns, rows: rows.collect(), notes: self.notes() }
    }

    /// Returns all tables: the differences; with ratings, the corrected differences and the judge against people.
    pub fn tables(&self) -> Vec<Table> {
        let people = self.people.iter().flat_map(|people| [self.corrected(people), self.check(people)]);
        [self.table()].into_iter().chain(people).collect()
    }

    /// Returns each difference by the judge, by people, and corrected.
    fn corrected(&self, people: &People) -> Table {
        let decimals = self.decimals();
        let shown = |contrast: &str, by: String, of: &Measured| {
            [Value::text(contrast), Value::text(by)].into_iter().chain(cells(of, decimals)).collect()
        };
        let mut rows = Vec::new();
        for (row, corrected) in self.rows.iter().zip(&people.rows) {
            rows.push(shown(&row.contrast, "judge".to_owned(), &row.measured));
            rows.push(shown("", format!("people, {} qu.", corrected.rated_questions), &corrected.people));
            rows.push(shown("", format!("corrected, λ {:.2}", corrected.lambda), &corrected.corrected));
        }
        let right = |name: &str| Column::new(name, Align::Right);
        let columns = vec![
            Column::new("Contrast", Align::Left),
            Column::new("By", Align::Left),
            right("Difference"),
            right("p"),
            right("Holm"),
            right("MDE"),
        ];
        let seeds = match self.seeds {
            0 | 1 => "",
            _ => " The variance between seeds is the judge's.",
        };
        let notes = vec![format!(
            "Corrected: prediction-powered inference (PPI++) from {} ratings and the judge's scores of all {} questions; \
             λ is the weight of the judge.{seeds}",
            people.ratings, self.questions
        )];
        Table {
            id: "corrected".into(),
            title: "Differences as people correct them".into(),
            columns,
            rows,
            notes,
        }
    }

    /// Returns the judge against people.
    fn check(&self, people: &People) -> Table {
        let decimals = self.decimals();
        let missing = || Value::missing("fewer than two questions have such answers");
        let interval = |estimate: &Option<stats::MeanEstimate>| {
            let estimate = estimate.as_ref()?;
            Some((estimate.value, estimate.interval(self.level).ok()?))
        };
        let difference = |estimate: &Option<stats::MeanEstimate>| {
            interval(estimate).map_or_else(missing, |(value, of)| Value::Difference {
                value,
                low: of.low,
                high: of.high,
                decimals,
            })
        };
        let check = &people.check;
        let agreement = interval(&check.agreement).map_or_else(missing, |(value, of)| {
            let [value, low, high] = [value, of.low.max(0.0), of.high.min(1.0)].map(|share| 100.0 * share);
            Value::text(format!("{value:.0} [{low:.0}, {high:.0}]"))
        });
        let width = |of: fn(&crate::CorrectedRow) -> f64| Value::Number {
            value: people.rows.iter().map(of).fold(0.0, f64::max),
            decimals,
        };
        let row = |name: &str, value: Value| vec![Value::text(name), value];
        let rows = vec![
            row("answers with both scores", Value::Count(check.answers as u64)),
            row("bias: judge − people, points", difference(&check.bias)),
            row("pairs of answers ordered alike, %", agreement),
            row("length: points the judge adds to the longer answer", difference(&check.length_bias)),
            row("widest corrected interval, ±", width(|row| (row.corrected.high - row.corrected.low) / 2.0)),
            row(
                &format!("the same with {MORE_RATINGS} more ratings, ±"),
                width(|row| row.half_width_with_80_more),
            ),
        ];
        let percent = 100.0 * self.level;
        Table {
            id: "judge-and-people".into(),
            title: "The judge against people".into(),
            columns: vec![Column::new("Measure", Align::Left), Column::new("Value", Align::Right)],
            rows,
            notes: vec![format!(
                "Brackets: {percent}% t-intervals over questions. Pairs: answers of two arms to the same turn, without ties \
                 of either side. The last line is a prediction from the present variances."
            )],
        }
    }

    /// Returns what the numbers are, and which questions are left out.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![self.design()];
        let effect = match self.effect {
            Some(effect) => format!("an effect of {effect}"),
            None => "the estimated difference".to_owned(),
        };
        notes.push(format!(
            "p: two-sided t-test; Holm: corrected for {} contrasts. MDE: minimum detectable effect at {}% power, \
             corrected. Required: questions (qu.) or seeds that detect {effect} with the other size as it is; –: no \
             number does, or the variance between seeds is unknown.",
            self.rows.len(),
            100.0 * POWER
        ));
        notes.extend(self.left_out_note());
        notes
    }

    /// Returns the sentence on questions that are left out; `None` if all are complete.
    pub fn left_out_note(&self) -> Option<String> {
        let count = self.left_out.len();
        let name = |(question, arms): &(String, String)| format!("{question} (no score of {arms})");
        let shown: Vec<String> = self.left_out.iter().take(MOST_NAMES).map(name).collect();
        let more =
            if count > MOST_NAMES { format!(" and {} more", count - MOST_NAMES) } else { String::new() };
        (count > 0).then(|| {
            format!("{count} of {} questions left out: {}{more}.", count + self.questions, shown.join(", "))
        })
    }

    fn design(&self) -> String {
        let strata = if self.strata > 1 { format!(" in {} strata", self.strata) } else { String::new() };
        let percent = 100.0 * self.level;
        let variance = |of: &stats::SeedVariance| {
            let value = format!("{:.4}", of.value).replace('-', "−");
            format!("{value} ± {:.4} ({} arms)", of.standard_error, of.cells)
        };
        let variances: Vec<String> = self.seed_variances.iter().map(variance).collect();
        let intervals = match variances.is_empty() {
            true => format!(
                "Brackets: {percent}% t-intervals over questions{strata}. Without several seeds an arm, they hold for \
                 these very policies, not for another training run."
            ),
            false => format!(
                "Brackets: {percent}% t-intervals over seeds and questions{strata}. Variance between seeds, pooled, ± \
                 standard error: {}.",
                variances.join(", ")
            ),
        };
        let seeds = match self.seeds {
            1 => "1 seed".to_owned(),
            seeds => format!("up to {seeds} seeds an arm"),
        };
        format!("{} questions, {seeds}. {intervals}", self.questions)
    }

    fn decimals(&self) -> usize {
        if self.are_shares { 3 } else { 2 }
    }
}

/// Returns comparisons as a JSON array with one object a contrast.
pub fn to_json(comparisons: &[Comparison]) -> String {
    let rows: Vec<&ContrastRow> = comparisons.iter().flat_map(|comparison| &comparison.rows).collect();
    serde_json::to_string_pretty(&rows).expect("rows have string keys and plain values only")
}

/// Returns comparisons as CSV with the names of JSON.
pub fn to_csv(comparisons: &[Comparison]) -> String {
    let has_scorer =
        comparisons.iter().flat_map(|comparison| &comparison.rows).any(|row| row.scorer.is_some());
    let mut header = vec![
        "contrast",
        "estimate",
        "low",
        "high",
        "p",
        "p_holm",
        "mde",
        "required_questions",
        "required_seeds",
    ];
    if has_scorer {
        header.push("scorer");
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writes to memory do not fail, and all rows have the same length.
    let _ = writer.write_record(&header);
    let count = |number: Option<usize>| number.map_or_else(String::new, |number| number.to_string());
    for row in comparisons.iter().flat_map(|comparison| &comparison.rows) {
        let Measured { estimate, low, high, p, p_holm, mde } = row.measured;
        let numbers = [estimate, low, high, p, p_holm, mde].map(|number| number.to_string());
        let mut cells = vec![row.contrast.clone()];
        cells.extend(numbers);
        cells.extend([count(row.required_questions), count(row.required_seeds)]);
        if has_scorer {
            cells.push(row.scorer.clone().unwrap_or_default());
        }
        let _ = writer.write_record(&cells);
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

/// Returns the cells of a difference and its tests.
fn cells(of: &Measured, decimals: usize) -> [Value; 4] {
    [
        Value::Difference { value: of.estimate, low: of.low, high: of.high, decimals },
        p_value(of.p),
        p_value(of.p_holm),
        Value::Number { value: of.mde, decimals },
    ]
}

/// Returns a p-value with three decimals.
pub(crate) fn p_value(p: f64) -> Value {
    if p < 0.001 { Value::text("<0.001") } else { Value::Number { value: p, decimals: 3 } }
}

fn required(number: Option<usize>) -> Value {
    number.map_or_else(|| Value::text("–"), |number| Value::Count(number as u64))
}
