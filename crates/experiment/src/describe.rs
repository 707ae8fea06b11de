//! The datasets of an experiment: sizes, domains, annotators.

use std::collections::BTreeMap;
use std::path::Path;

use pref_data::{Label, PreferenceRecord, hold_out, read_records_with};
use report::table::{Align, Column, Table, Value};
use seeds::Seeds;
use trainer::recipe::Format;

use crate::error::ExperimentError;
use crate::runner::Runner;
use crate::setup::Setup;

/// Number of domains that are named; others are counted.
const NAMED: usize = 24;

/// Returns a table of sizes and domains, and one of annotators.
///
/// Before the sandbox has created its preferences, only their numbers are known.
///
/// # Errors
///
/// If preferences or benchmark cannot be read.
pub fn describe(runner: &Runner) -> Result<Vec<Table>, ExperimentError> {
    let (setup, source) = (runner.setup(), runner.source());
    if source.is_sandbox() && !source.is_prepared(1) {
        return Ok(vec![sizes(vec![sandbox_row(setup), benchmark_row(runner)], vec![NOT_MADE.to_owned()])]);
    }
    let training = read(setup, runner, &source.records(0))?;
    let (training, held_out) = match (source.held_out(0), setup.data.held_out_records(training.len())) {
        (Some(path), _) => (training, read(setup, runner, &path)?),
        // As a run of seed 0 does.
        (None, Some(count)) => hold_out(training, |record| &record.prompt, count, &Seeds::new(0)),
        (None, None) => (training, Vec::new()),
    };
    let preferences = vec![
        Value::text(dataset_name(setup)),
        Value::Count(training.len() as u64),
        Value::Count(held_out.len() as u64),
        Value::text(domains(&training)),
    ];
    let mut notes = vec!["Train and val: records, including ties and missing labels.".to_owned()];
    if source.is_sandbox() {
        notes.push("Numbers of the first replicate; the others have as many.".to_owned());
    }
    Ok(vec![sizes(vec![preferences, benchmark_row(runner)], notes), annotators(&training)])
}

const NOT_MADE: &str =
    "The sandbox creates its preferences when a study starts, without pairs of equal responses.";

fn sizes(rows: Vec<Vec<Value>>, notes: Vec<String>) -> Table {
    Table {
        id: "datasets".into(),
        title: "Datasets".into(),
        columns: [("Dataset", Align::Left), ("# Train", Align::Right), ("# Val", Align::Right)]
            .into_iter()
            .chain([("Domains", Align::Left)])
            .map(|(title, align)| Column::new(title, align))
            .collect(),
        rows,
        notes,
    }
}

fn sandbox_row(setup: &Setup) -> Vec<Value> {
    vec![
        Value::text(dataset_name(setup)),
        Value::Count(setup.sandbox.pairs as u64),
        Value::Count(setup.sandbox.held_out as u64),
        Value::text(::sandbox::CATEGORIES.join(", ")),
    ]
}

/// The examples of the benchmark are its turns.
fn benchmark_row(runner: &Runner) -> Vec<Value> {
    let questions = runner.source().questions();
    let turns: usize = questions.iter().map(|question| question.turns.len()).sum();
    let mut categories: Vec<&str> = Vec::new();
    for question in questions {
        if !categories.contains(&question.category.as_str()) {
            categories.push(&question.category);
        }
    }
    vec![
        Value::text("benchmark, turns"),
        Value::text("–"),
        Value::Count(turns as u64),
        Value::text(categories.join(", ")),
    ]
}

fn dataset_name(setup: &Setup) -> String {
    match setup.data.format {
        Format::Sandbox if setup.is_sandbox() => "sandbox".to_owned(),
        _ => setup.data.path.clone(),
    }
}

fn read(setup: &Setup, runner: &Runner, path: &Path) -> Result<Vec<PreferenceRecord>, ExperimentError> {
    let (records, _) = read_records_with(path, &setup.data.reading(&runner.source().replicate(0)))?;
    Ok(records)
}

/// Returns the domains with their numbers of records, the largest first.
fn domains(records: &[PreferenceRecord]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for domain in records.iter().filter_map(|record| record.domain.as_deref()) {
        *counts.entry(domain).or_default() += 1;
    }
    if counts.is_empty() {
        return "not given".to_owned();
    }
    let mut sorted: Vec<(&str, usize)> = counts.into_iter().collect();
    sorted.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let mut words: Vec<String> =
        sorted.iter().take(NAMED).map(|(name, count)| format!("{name} {count}")).collect();
    if sorted.len() > NAMED {
        words.push(format!("and {} others", sorted.len() - NAMED));
    }
    words.join(", ")
}

/// Returns a table of labels by annotator.
fn annotators(records: &[PreferenceRecord]) -> Table {
    let mut counts: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for (name, label) in records.iter().flat_map(|record| &record.labels) {
        let [labelled, ties] = counts.entry(name).or_default();
        *labelled += 1;
        *ties += u64::from(*label == Label::Tie);
    }
    Table {
        id: "annotators".into(),
        title: "Annotators of the training set".into(),
        columns: [("Annotator", Align::Left), ("Records", Align::Right), ("Ties", Align::Right)]
            .map(|(title, align)| Column::new(title, align))
            .into(),
        rows: counts
            .into_iter()
            .map(|(name, [labelled, ties])| {
                vec![Value::text(name), Value::Count(labelled), Value::Count(ties)]
            })
            .collect(),
        notes: Vec::new(),
    }
}
