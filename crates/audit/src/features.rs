//! Surface features of responses.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::broken::refuses;
use crate::dataset::Dataset;
use crate::logistic::Rows;

/// Most beginnings that are features of their own.
const MOST_STARTS: usize = 96;
/// A beginning is a feature from this number of responses on.
const LEAST_STARTS: usize = 8;

/// Features that predict labels together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Feature {
    Length,
    Format,
    Refusal,
    FirstWords,
    Position,
}

impl Feature {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Format => "format",
            Self::Refusal => "refusal",
            Self::FirstWords => "first words",
            Self::Position => "position",
        }
    }
}

/// The numbers of a response: length, lists, headings, bold, code, refusal.
const NUMBERS: [Feature; 6] =
    [Feature::Length, Feature::Format, Feature::Format, Feature::Format, Feature::Format, Feature::Refusal];

/// The differences of all pairs, and the feature of each column.
pub(crate) struct Features {
    pub(crate) rows: Rows,
    pub(crate) columns: Vec<Feature>,
}

struct Response {
    numbers: [f32; NUMBERS.len()],
    start: String,
}

/// Measures both responses of all pairs.
pub(crate) fn measure(data: &Dataset) -> Features {
    let measured: Vec<[Response; 2]> = (0..data.pairs.len())
        .into_par_iter()
        .map(|pair| data.responses(pair).map(|text| response(&text)))
        .collect();
    let starts = frequent_starts(&measured);
    let mut columns = NUMBERS.to_vec();
    columns.extend(starts.iter().map(|_| Feature::FirstWords));
    let position = columns.len() as u16;
    columns.push(Feature::Position);
    let mut rows = Rows::default();
    for ([chosen, rejected], pair) in measured.iter().zip(&data.pairs) {
        let numbers =
            chosen.numbers.iter().zip(&rejected.numbers).map(|(chosen, rejected)| chosen - rejected);
        let start = |response: &Response, sign: f32| {
            let at = starts.binary_search(&response.start).ok().filter(|_| chosen.start != rejected.start);
            at.map(|at| ((NUMBERS.len() + at) as u16, sign))
        };
        let first = if pair.chosen < pair.rejected { 1.0 } else { -1.0 };
        let rest = [start(chosen, 1.0), start(rejected, -1.0), Some((position, first))];
        rows.push((0..).zip(numbers).chain(rest.into_iter().flatten()));
    }
    let scales = rows.root_mean_squares(columns.len());
    // Numbers have a root mean square of 1, so that one penalty fits all; the others are 0 or ±1.
    let factor = |(column, scale): (usize, &f64)| {
        if column < NUMBERS.len() && *scale > 0.0 { 1.0 / scale } else { 1.0 }
    };
    rows.scale(&scales.iter().enumerate().map(factor).collect::<Vec<_>>());
    Features { rows, columns }
}

/// Returns the most frequent beginnings, sorted.
fn frequent_starts(measured: &[[Response; 2]]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for response in measured.iter().flatten().filter(|response| !response.start.is_empty()) {
        *counts.entry(&response.start).or_default() += 1;
    }
    let mut frequent: Vec<(&str, usize)> =
        counts.into_iter().filter(|(_, count)| *count >= LEAST_STARTS).collect();
    frequent.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut starts: Vec<String> =
        frequent.into_iter().take(MOST_STARTS).map(|(start, _)| start.to_owned()).collect();
    starts.sort_unstable();
    starts
}

fn response(text: &str) -> Response {
    let logarithm = |count: usize| (1.0 + count as f32).ln();
    let (mut lists, mut headings) = (0, 0);
    for line in text.lines().map(str::trim_start) {
        lists += usize::from(is_list_item(line));
        headings += usize::from(line.starts_with('#'));
    }
    let numbers = [
        logarithm(text.chars().count()),
        logarithm(lists),
        logarithm(headings),
        logarithm(text.matches("**").count() / 2),
        logarithm(text.matches("```").count() / 2),
        f32::from(u8::from(refuses(text))),
    ];
    let start: Vec<String> =
        text.split_whitespace().take(2).map(|word| word.chars().take(24).collect()).collect();
    Response { numbers, start: start.join(" ").to_lowercase() }
}

fn is_list_item(line: &str) -> bool {
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    ["- ", "* ", "• ", "+ "].iter().any(|mark| line.starts_with(mark))
        || digits.len() < line.len() && (digits.starts_with(". ") || digits.starts_with(") "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_counted() {
        let text = "# Title\n\n1. **one**\n2. two\n- three\n```\ncode\n```\n10 is no item";
        let Response { numbers, start } = response(text);
        let expected = [1.0 + text.len() as f32, 4.0, 2.0, 2.0, 2.0, 1.0];
        for (number, expected) in numbers.iter().zip(expected) {
            assert!((number.exp() - expected).abs() < 1e-3, "{numbers:?}");
        }
        assert_eq!(start, "# title");
    }
}
