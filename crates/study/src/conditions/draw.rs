//! The map as tables and as a figure.

use report::figure::{MarkRow, Marks, Svg};
use report::table::{Align, Column, Table, Value};

use super::{Condition, Line, Map, Mark, Marked, Pattern};
use crate::tested::{Measured, difference, mde, p_value, signed};

/// Returns the map: a line for each pattern and policy, a column for each condition.
pub(crate) fn table(map: &Map<'_>, marked: &Marked, id: &str, title: String) -> Table {
    let mut columns = vec![Column::new("Pattern", Align::Left), Column::new("Policy", Align::Left)];
    columns.extend(map.conditions.iter().map(|condition| {
        Column::grouped(condition.rate_in_words(), condition.epochs_in_words(), Align::Left)
    }));
    let rows = map.lines.iter().zip(&marked.cells).enumerate().map(|(at, (line, cells))| {
        let mut row = vec![Value::text(map.pattern_if_first(at)), Value::text(line.name())];
        row.extend(cells.iter().map(|cell| match cell {
            Some((measured, mark)) => Value::text(in_short(measured, *mark)),
            None => Value::missing("not in this grid"),
        }));
        row
    });
    let notes =
        vec![LEGEND.replace("MARGIN", &map.recipe.study.margin.get().to_string()), CONTRASTS.to_owned()];
    Table { id: id.into(), title, columns, rows: rows.collect(), notes }
}

const LEGEND: &str = "arises: the pattern is shown. absent: its opposite, or an effect within ±MARGIN points. assay: neither is \
                      shown, and the gain of clean labels over SFT is not seen. MDE: neither is shown, and the minimum detectable \
                      effect is above ±MARGIN. undecided: neither is shown, although an effect of that size is detectable. p-values \
                      have Holm's correction for all comparisons of the map.";

const CONTRASTS: &str = "Unharmed: no share of flipped labels is worse than a lower one; the number is the gain of the regression line. \
                         Volume: that gain from the smallest to the largest share of the pairs. Overfitting: change from the peak to \
                         the end. cDPO: difference from DPO.";

/// Returns every comparison of the map with its numbers, by the judge and by the ground truth if it is known.
pub(crate) fn comparisons(map: &Map<'_>, judge: &Marked, truth: Option<&Marked>) -> Table {
    let left = |title: &str| Column::new(title, Align::Left);
    let mut columns = vec![left("Pattern"), left("Policy"), left("Learning rate"), left("Epochs")];
    let mut grouped = |group: &str| {
        let of_group = |title: &str, align| Column::grouped(group, title, align);
        columns.extend(["Difference", "p", "MDE"].map(|title| of_group(title, Align::Right)));
        columns.push(of_group("Mark", Align::Left));
    };
    grouped("Judge");
    if truth.is_some() {
        grouped("Ground truth");
    }
    let mut rows = Vec::new();
    for (at, line) in map.lines.iter().enumerate() {
        for (column, condition) in map.conditions.iter().enumerate() {
            let mut row = vec![
                Value::text(line.pattern.says()),
                Value::text(line.name()),
                Value::text(format!("{:e}", condition.learning_rate)),
                Value::Count(condition.epochs.get()),
            ];
            for marked in [Some(judge), truth].into_iter().flatten() {
                row.extend(numbers(marked.cells[at][column].as_ref()));
            }
            rows.push(row);
        }
    }
    let title = "The comparisons of the conditions map".into();
    let notes = vec![
        "Brackets: 95% t-intervals. p: as in the table of verdicts, corrected for all comparisons of the map. MDE: minimum detectable \
         effect at 80% power after that correction."
            .to_owned(),
    ];
    Table { id: "table-map-comparisons".into(), title, columns, rows, notes }
}

fn numbers(cell: Option<&(Measured, Mark)>) -> [Value; 4] {
    let Some((measured, mark)) = cell else { return [(); 4].map(|()| Value::missing("not in this grid")) };
    let p = p_value(measured.shown.p);
    [difference(measured), p, mde(measured), Value::text(mark.short())]
}

fn in_short(measured: &Measured, mark: Mark) -> String {
    match mark {
        Mark::TooSmall => format!("{} {:.2}", mark.short(), measured.mde.value),
        _ => format!("{} {}", mark.short(), signed(measured.estimate.value)),
    }
}

/// Returns the map as a figure.
pub(crate) fn figure(map: &Map<'_>, marked: &Marked, title: String) -> Svg {
    let rows = map.lines.iter().zip(&marked.cells).enumerate().map(|(at, (line, cells))| MarkRow {
        group: map.pattern_if_first(at).to_owned(),
        name: line.name(),
        marks: cells
            .iter()
            .map(|cell| {
                cell.as_ref().map(|(measured, mark)| {
                    (
                        Mark::ALL.iter().position(|other| other == mark).unwrap_or_default(),
                        in_short(measured, *mark),
                    )
                })
            })
            .collect(),
    });
    let columns =
        map.conditions.iter().map(|condition| (condition.rate_in_words(), condition.epochs_in_words()));
    Marks {
        title,
        kinds: Mark::ALL.map(|mark| mark.name().to_owned()).into(),
        columns: columns.collect(),
        rows: rows.collect(),
    }
    .to_svg()
}

impl Condition {
    fn rate_in_words(self) -> String {
        format!("Learning rate {:e}", self.learning_rate)
    }

    pub(super) fn epochs_in_words(self) -> String {
        match self.epochs.get() {
            1 => "1 epoch".to_owned(),
            epochs => format!("{epochs} epochs"),
        }
    }
}

impl Map<'_> {
    /// Returns the pattern of a line in words if the line is its first.
    fn pattern_if_first(&self, at: usize) -> &'static str {
        let pattern = |at: usize| self.lines.get(at).map(|line: &Line| line.pattern);
        let is_first = at.checked_sub(1).is_none_or(|before| pattern(before) != pattern(at));
        pattern(at).filter(|_| is_first).map_or("", Pattern::says)
    }
}
