//! Surface features of responses.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::broken::refuses;
use crate::dataset::Dataset;
use crate::logistic::Rows;
use crate::sources;

/// Most beginnings, and most models, that are features of their own.
const MOST_NAMES: usize = 96;
/// A beginning or a model is a feature from this number of responses on.
const LEAST_RESPONSES: usize = 8;

/// Features that predict labels together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Feature {
    Length,
    Format,
    Refusal,
    FirstWords,
    Source,
    Position,
}

impl Feature {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Format => "format",
            Self::Refusal => "refusal",
            Self::FirstWords => "first words",
            Self::Source => "answer source",
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
    let sources = sources::find(data);
    let starts = frequent(measured.iter().flatten().map(|response| response.start.as_str()));
    let models = frequent(sources.iter().flatten().flatten().map(String::as_str));
    let mut columns = NUMBERS.to_vec();
    columns.extend(starts.iter().map(|_| Feature::FirstWords));
    columns.extend(models.iter().map(|_| Feature::Source));
    let (first_model, position) = (NUMBERS.len() + starts.len(), columns.len() as u16);
    columns.push(Feature::Position);
    let mut rows = Rows::default();
    for (([chosen, rejected], source), pair) in measured.iter().zip(&sources).zip(&data.pairs) {
        let numbers =
            chosen.numbers.iter().zip(&rejected.numbers).map(|(chosen, rejected)| chosen - rejected);
        let first = if pair.chosen < pair.rejected { 1.0 } else { -1.0 };
        let names = one_hot(&starts, NUMBERS.len(), [&chosen.start, &rejected.start]);
        let models =
            source.as_ref().map(|[chosen, rejected]| one_hot(&models, first_model, [chosen, rejected]));
        let rest = names.into_iter().chain(models.into_iter().flatten()).flatten();
        rows.push((0..).zip(numbers).chain(rest).chain([(position, first)]));
    }
    let scales = rows.root_mean_squares(columns.len());
    // Numbers have a root mean square of 1, so that one penalty fits all; the others are 0 or ±1.
    let factor = |(column, scale): (usize, &f64)| {
        if column < NUMBERS.len() && *scale > 0.0 { 1.0 / scale } else { 1.0 }
    };
    rows.scale(&scales.iter().enumerate().map(factor).collect::<Vec<_>>());
    Features { rows, columns }
}

/// Returns the columns of two names, from `start` on: +1 for the first and −1 for the second, nothing for equal ones.
fn one_hot(names: &[String], start: usize, [chosen, rejected]: [&String; 2]) -> [Option<(u16, f32)>; 2] {
    [(chosen, 1.0), (rejected, -1.0)].map(|(name, sign)| {
        let at = names.binary_search(name).ok().filter(|_| chosen != rejected)?;
        Some(((start + at) as u16, sign))
    })
}

/// Returns the most frequent names, sorted.
fn frequent<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names.filter(|name| !name.is_empty()) {
        *counts.entry(name).or_default() += 1;
    }
    let mut frequent: Vec<(&str, usize)> =
        counts.into_iter().filter(|(_, count)| *count >= LEAST_RESPONSES).collect();
    frequent.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut names: Vec<String> =
        frequent.into_iter().take(MOST_NAMES).map(|(name, _)| name.to_owned()).collect();
    names.sort_unstable();
    names
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
