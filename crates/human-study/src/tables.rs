//! The report as tables, a figure and a page.

use report::figure::{GroupedBars, Series, Svg};
use report::page::{Report, Section};
use report::table::{Align, Column, Table, Value};

use crate::{Coefficient, StudyReport};

impl StudyReport {
    /// Returns wins and ties (the paper's Table 2), agreement, and rates by category if there are categories.
    pub fn tables(&self) -> Vec<Table> {
        let mut tables = vec![self.wins(), self.agreement()];
        if !self.categories.is_empty() {
            tables.push(self.by_category());
        }
        tables
    }

    /// Draws the win rates of both models by category (the paper's Figure 2); `None` without categories.
    pub fn figure(&self) -> Option<Svg> {
        if self.categories.is_empty() {
            return None;
        }
        let series = |model: usize| Series {
            name: self.models[model].clone(),
            values: self
                .categories
                .iter()
                .map(|of| {
                    let rate = &of.win_rates[model];
                    Some((100.0 * rate.value?, 100.0 * rate.low?, 100.0 * rate.high?))
                })
                .collect(),
        };
        let bars = GroupedBars {
            title: "How often raters prefer each model".to_owned(),
            y_label: "Preferred, % of items".to_owned(),
            y_range: (0.0, 100.0),
            groups: self.categories.iter().map(|of| of.category.clone()).collect(),
            series: vec![series(0), series(1)],
        };
        Some(bars.to_svg())
    }

    /// Returns the report as JSON, with every number at full precision.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has string keys and finite numbers only")
    }

    /// Renders everything on one page.
    pub fn page(&self) -> Report {
        let [one, other] = &self.models;
        Report {
            title: format!("{one} or {other}?"),
            lead: vec![self.verdict()],
            sections: vec![Section {
                heading: "What the raters said".to_owned(),
                tables: self.tables(),
                figures: self
                    .figure()
                    .map(|svg| (svg, "Wins over all items of a category, with intervals.".to_owned()))
                    .into_iter()
                    .collect(),
                ..Section::default()
            }],
            provenance: vec![
                ("Raters".to_owned(), self.raters.to_string()),
                ("Items".to_owned(), self.items.to_string()),
                ("Ratings".to_owned(), self.ratings.to_string()),
            ],
            files: Vec::new(),
        }
    }

    /// Returns the winner and the p-values, in one or two sentences.
    pub fn verdict(&self) -> String {
        let [one, other] = &self.models;
        let wins = [self.wins_model_1, self.wins_model_2];
        let p = self.question_test.map_or(self.sign_test.p_value, |test| test.p_value);
        let significance = 1.0 - self.level;
        let lead = match wins[0].cmp(&wins[1]) {
            std::cmp::Ordering::Greater => {
                format!("{one} is preferred {} times, {other} {}", wins[0], wins[1])
            }
            std::cmp::Ordering::Less => format!("{other} is preferred {} times, {one} {}", wins[1], wins[0]),
            std::cmp::Ordering::Equal => format!("{one} and {other} are preferred {} times each", wins[0]),
        };
        let chance = if p <= significance {
            "A difference this large is not what chance does"
        } else {
            "Chance alone does this often enough: which model is preferred is not settled"
        };
        format!("{lead}, of {} items; {} are ties. {chance} ({}).", self.items, self.ties, p_value(p))
    }

    /// Returns wins and ties with their rates, followed by the verdict: the paper's Table 2.
    pub fn wins(&self) -> Table {
        let percent = level(self.level);
        let row = |model: usize, wins: u64| {
            vec![
                Value::text(&self.models[model]),
                Value::Count(wins),
                Value::Count(self.ties),
                per_cent(&self.win_rates[model]),
            ]
        };
        let mut notes = vec![
            self.verdict(),
            format!(
                "Exact sign test of the decisive items: {}; mid-p: {}.",
                p_value(self.sign_test.p_value),
                p_value(self.sign_test.mid_p_value)
            ),
        ];
        if let Some(test) = self.question_test {
            notes.push(format!(
                "Sign-flip test over questions, whose turns are flipped together: {}.",
                p_value(test.p_value)
            ));
        }
        if let (Some(value), Some(low), Some(high)) =
            (self.decisive_win_rate.value, self.decisive_win_rate.low, self.decisive_win_rate.high)
        {
            notes.push(format!(
                "{} wins {:.1}% [{:.1}, {:.1}] of the decisive items; with ties as half wins {:.1}% of all.",
                self.models[0],
                100.0 * value,
                100.0 * low,
                100.0 * high,
                100.0 * self.adjusted_win_rate.unwrap_or_default()
            ));
        }
        notes.push(format!(
            "{} items by majority of {} raters; split votes are ties: {} three-way, {} two-way. Win rate: wins over all \
             items, ties included. Brackets: {percent}% Wilson intervals.",
            self.items, self.raters, self.three_way_splits, self.two_way_splits
        ));
        Table {
            id: "table-2".into(),
            title: "Which model the raters prefer".into(),
            columns: vec![
                Column::new("Model", Align::Left),
                Column::new("Wins", Align::Right),
                Column::new("Ties", Align::Right),
                Column::new("Win rate, %", Align::Right),
            ],
            rows: vec![row(0, self.wins_model_1), row(1, self.wins_model_2)],
            notes,
        }
    }

    /// Returns the agreement of the raters: Fleiss' κ and other measures.
    pub fn agreement(&self) -> Table {
        let mut rows = vec![
            vec![Value::text("Fleiss’ κ"), Value::text("all"), interval(&self.fleiss)],
            vec![Value::text("Gwet’s AC1"), Value::text("all"), interval(&self.gwet_ac1)],
            vec![Value::text("Krippendorff’s α"), Value::text("all"), interval(&self.krippendorff_alpha)],
        ];
        if let Some(value) = self.percent_agreement {
            let share = Value::Percent { value, decimals: 1 };
            rows.insert(0, vec![Value::text("Agreeing pairs of ratings"), Value::text("all"), share]);
        }
        for pair in &self.pairs {
            let [one, other] = &pair.raters;
            rows.push(vec![
                Value::text("Cohen’s κ"),
                Value::text(format!("{one} and {other}, {} items", pair.items)),
                interval(&pair.kappa),
            ]);
        }
        let notes = vec![format!(
            "Brackets: {}% intervals over other items, these raters. 0 is what chance gives, 1 full agreement.",
            level(self.level)
        )];
        Table {
            id: "agreement".into(),
            title: "How far the raters agree".into(),
            columns: vec![
                Column::new("Measure", Align::Left),
                Column::new("Raters", Align::Left),
                Column::new("Value", Align::Right),
            ],
            rows,
            notes,
        }
    }

    /// Returns rates by category (the numbers of the paper's Figure 2); without rows if the ratings name no categories.
    pub fn by_category(&self) -> Table {
        let rows = self.categories.iter().map(|of| {
            vec![
                Value::text(&of.category),
                Value::Count(of.tally.items()),
                Value::Count(of.tally.ties),
                per_cent(&of.win_rates[0]),
                per_cent(&of.win_rates[1]),
                Value::Number { value: of.adjusted_p_value, decimals: 3 },
            ]
        });
        let [one, other] = &self.models;
        Table {
            id: "figure-2".into(),
            title: "Preferences by category".into(),
            columns: vec![
                Column::new("Category", Align::Left),
                Column::new("Items", Align::Right),
                Column::new("Ties", Align::Right),
                Column::grouped("Win rate, %", one, Align::Right),
                Column::grouped("Win rate, %", other, Align::Right),
                Column::new("p", Align::Right),
            ],
            rows: rows.collect(),
            notes: vec![
                "p: sign tests of the decisive items, by Holm’s method for all categories together.".into(),
            ],
        }
    }
}

fn per_cent(rate: &Coefficient) -> Value {
    shown(rate, 100.0, 2)
}

fn interval(coefficient: &Coefficient) -> Value {
    shown(coefficient, 1.0, 2)
}

fn shown(coefficient: &Coefficient, scale: f64, decimals: usize) -> Value {
    let Coefficient { value, low, high, reason } = coefficient;
    match value {
        // A missing bound is shown as a dash.
        Some(value) => Value::Interval {
            value: scale * value,
            low: scale * low.unwrap_or(f64::NAN),
            high: scale * high.unwrap_or(f64::NAN),
            decimals,
        },
        None => Value::missing(reason.clone().unwrap_or_else(|| "undefined".to_owned())),
    }
}

fn level(level: f64) -> String {
    format!("{}", (level * 1e6).round() / 1e4)
}

/// Formats a p-value as in papers.
fn p_value(p: f64) -> String {
    if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") }
}
