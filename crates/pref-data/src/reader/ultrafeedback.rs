//! Rows of UltraFeedback: an instruction and several completions, each rated by an LLM in several aspects.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Row, fault, id, label, list, number, object, optional, required, string};
use crate::error::DataError;
use crate::message::{Message, TemplateContext};
use crate::place::Place;
use crate::problem::FieldProblem;
use crate::record::{Label, PreferenceRecord, Text};

pub(super) const COLUMNS: [&str; 4] = ["id", "source", "instruction", "completions"];

/// Scores in the completion itself.
const SCORES: [&str; 2] = ["overall_score", "fine-grained_score"];
/// Aspects that are rated from 1 to 5.
const ASPECTS: [&str; 4] = ["instruction_following", "honesty", "truthfulness", "helpfulness"];
/// The text of a missing rating.
const NOT_RATED: &str = "N/A";

pub(super) fn record(place: &Place, row: &Row) -> Result<PreferenceRecord, DataError> {
    let instruction = string(place, "instruction", required(place, row, "instruction")?)?;
    let completions = list(place, "completions", required(place, row, "completions")?)?;
    let mut responses = Vec::with_capacity(completions.len());
    let mut scores: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
    for (index, completion) in completions.iter().enumerate() {
        let field = format!("completions[{index}]");
        let completion = object(place, &field, completion)?;
        responses.push(response(place, &field, completion)?);
        for name in SCORES {
            scores.entry(name).or_default().push(score(place, &field, completion, name)?);
        }
        for (name, rating) in ratings(place, &field, completion)? {
            scores.entry(name).or_default().push(rating);
        }
    }
    let labels = scores.into_iter().filter_map(|(name, scores)| Some((name.to_owned(), best(&scores)?)));
    Ok(PreferenceRecord {
        id: id(place, row),
        prompt: Text::Chat(vec![Message::user(instruction)]),
        responses,
        labels: labels.collect(),
        domain: label(row, "source"),
        context: TemplateContext::default(),
    })
}

fn response(place: &Place, field: &str, completion: &Row) -> Result<Text, DataError> {
    let field = format!("{field}.response");
    let Some(value) = optional(completion, "response") else {
        return Err(fault(place, field, FieldProblem::Missing));
    };
    match string(place, &field, value)? {
        text if text.is_empty() => Err(fault(place, field, FieldProblem::Empty)),
        text => Ok(Text::Chat(vec![Message::assistant(text)])),
    }
}

fn score(place: &Place, field: &str, completion: &Row, name: &str) -> Result<Option<f64>, DataError> {
    let field = format!("{field}.{name}");
    optional(completion, name).map(|value| number(place, &field, value)).transpose()
}

/// Returns the ratings of all aspects; `None` for one that is "N/A" or absent.
fn ratings(
    place: &Place,
    field: &str,
    completion: &Row,
) -> Result<[(&'static str, Option<f64>); ASPECTS.len()], DataError> {
    let mut ratings = ASPECTS.map(|name| (name, None));
    let Some(annotations) = optional(completion, "annotations") else { return Ok(ratings) };
    let field = format!("{field}.annotations");
    let annotations = object(place, &field, annotations)?;
    for (name, rating) in &mut ratings {
        let Some(annotation) = optional(annotations, name) else { continue };
        let field = format!("{field}.{name}");
        let annotation = object(place, &field, annotation)?;
        if let Some(value) = optional(annotation, "Rating") {
            *rating = parse(place, &format!("{field}.Rating"), value)?;
        }
    }
    Ok(ratings)
}

/// Parses a rating, which the set writes as text.
fn parse(place: &Place, field: &str, value: &Value) -> Result<Option<f64>, DataError> {
    let Value::String(text) = value else { return number(place, field, value).map(Some) };
    match text.trim() {
        NOT_RATED => Ok(None),
        text => match text.parse::<f64>() {
            Ok(rating) if rating.is_finite() => Ok(Some(rating)),
            _ => {
                let expected = "a number or \"N/A\"";
                Err(fault(place, field, FieldProblem::UnknownLabel { found: text.to_owned(), expected }))
            }
        },
    }
}

/// Returns the index of the highest score, or a tie where it occurs twice. With a missing score there is no label: it
/// could be the highest.
fn best(scores: &[Option<f64>]) -> Option<Label> {
    let scores = scores.iter().copied().collect::<Option<Vec<f64>>>()?;
    let (mut best, mut is_tie) = (0, false);
    for index in 1..scores.len() {
        match scores[index].total_cmp(&scores[best]) {
            Ordering::Greater => (best, is_tie) = (index, false),
            Ordering::Equal => is_tie = true,
            Ordering::Less => {}
        }
    }
    (!scores.is_empty()).then_some(if is_tie { Label::Tie } else { Label::Prefers(best) })
}
