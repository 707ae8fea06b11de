//! An annotator of one's own: `own-annotator PAIRS LABELED` labels each record by a rule and prints the agreement.
//!
//! The labels stand next to those of the other annotators, so that a study compares them: `format = "sandbox"` and
//! `annotators = ["human", "concise"]` in its recipe.

use std::error::Error;
use std::path::Path;

use pref_data::{AgreementMatrix, Format, Label, PreferenceRecord, Text, read_records, write_records};

/// The annotator's name in the file.
const NAME: &str = "concise";
/// Lengths within this share of the longer one are a tie.
const SIMILAR: f64 = 0.1;

/// Prefers the shortest response that is not empty. A function of your own takes its place.
fn label(record: &PreferenceRecord) -> Label {
    let lengths = record.responses.iter().map(length).enumerate();
    let mut answers: Vec<(usize, usize)> = lengths.filter(|(_, length)| *length > 0).collect();
    answers.sort_by_key(|(_, length)| *length);
    match answers[..] {
        [] => Label::Tie,
        [(_, shortest), (_, next), ..] if next as f64 * (1.0 - SIMILAR) < shortest as f64 => Label::Tie,
        [(index, _), ..] => Label::Prefers(index),
    }
}

/// Returns the number of characters of a text.
fn length(text: &Text) -> usize {
    match text {
        Text::Plain(text) => text.trim().chars().count(),
        Text::Chat(messages) => messages.iter().map(|message| message.content().trim().chars().count()).sum(),
    }
}

/// Labels all records of a file, and returns the agreement with each other annotator.
fn annotate(from: &Path, to: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut records = read_records(from, Format::Pairs)?;
    for record in &mut records {
        let label = label(record);
        record.labels.insert(NAME.to_owned(), label);
    }
    write_records(to, &records)?;
    let matrix = AgreementMatrix::of(&records);
    let others = matrix.annotators.iter().filter(|other| *other != NAME);
    let agreement = |other: &String| {
        let agreement = matrix.between(NAME, other)?;
        Some(format!("{other}: {:.0}% of {} records", agreement.observed * 100.0, agreement.items))
    };
    Ok(others.filter_map(agreement).collect())
}

#[expect(clippy::print_stdout, reason = "the result of a program")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("name the file of pairs and the file of labels to write".into());
    };
    for line in annotate(from.as_ref(), to.as_ref())? {
        println!("{line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_both_labels() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["pairs.jsonl", "labeled.jsonl"].map(|name| folder.path().join(name));
        let row = |chosen: &str, rejected: &str| {
            format!("{{\"prompt\": \"Where?\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n")
        };
        let rows = [
            row("In Paris.", "In Paris, a city in France."),
            row("In France, in Paris.", "Paris."),
            row("No.", "No, it does not."),
        ];
        std::fs::write(&from, rows.concat()).unwrap();
        assert_eq!(annotate(&from, &to).unwrap(), ["human: 67% of 3 records"]);
        let labels: Vec<Label> =
            read_records(&to, Format::Records).unwrap().iter().map(|record| record.labels[NAME]).collect();
        assert_eq!(labels, [Label::Prefers(0), Label::Prefers(1), Label::Prefers(0)]);
    }

    #[test]
    fn similar_lengths_are_a_tie() {
        let text = |text: &str| Text::Plain(text.to_owned());
        let record = |one: &str, other: &str| PreferenceRecord {
            id: "1".to_owned(),
            prompt: text("Where?"),
            responses: vec![text(one), text(other)],
            labels: Default::default(),
            domain: None,
            context: Default::default(),
        };
        assert_eq!(label(&record("0123456789", "012345678 1")), Label::Tie);
        assert_eq!(label(&record("0123456789", "0123456789 1234")), Label::Prefers(0));
        assert_eq!(label(&record("", "")), Label::Tie);
    }
}
