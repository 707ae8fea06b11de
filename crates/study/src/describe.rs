//! The datasets of a recipe: sizes and domains, as in the paper's Table 15, and who labelled how much.

use std::collections::BTreeMap;
use std::path::Path;

use pref_data::{Label, PreferenceRecord, read_records_with};
use report::table::{Align, Column, Table, Value};
use trainer::recipe::Format;

use crate::error::StudyError;
use crate::recipe::StudyRecipe;
use crate::runner::Runner;

/// Domains that are named before the rest is only counted.
const NAMED: usize = 24;

/// What the datasets of a study hold: a table of sizes and domains, and one of its annotators.
///
/// The sandbox makes its preferences when a study begins: before that, only their numbers are known.
///
/// # Errors
///
/// Where preferences or benchmark cannot be read.
pub fn describe(runner: &Runner) -> Result<Vec<Table>, StudyError> {
    let (recipe, world) = (runner.recipe(), runner.world());
    if world.is_sandbox() && !world.is_prepared(1) {
        return Ok(vec![sizes(vec![sandbox_row(recipe), benchmark_row(runner)], vec![NOT_MADE.to_owned()])]);
    }
    let training = read(recipe, runner, &world.records(0))?;
    let held_out = match world.held_out(0) {
        Some(path) => read(recipe, runner, &path)?,
        None => Vec::new(),
    };
    let preferences = vec![
        Value::text(dataset_name(recipe)),
        Value::Count(training.len() as u64),
        Value::Count(held_out.len() as u64),
        Value::text(domains(&training)),
    ];
    let mut notes = vec![
        "Train and val: records, before an annotator's ties and missing labels are left out.".to_owned(),
    ];
    if world.is_sandbox() {
        notes.push("Of the first replicate; the others are drawn anew, as many.".to_owned());
    }
    Ok(vec![sizes(vec![preferences, benchmark_row(runner)], notes), annotators(&training)])
}

const NOT_MADE: &str =
    "The sandbox makes its preferences when a study begins; pairs of two equal responses are left out then.";

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

fn sandbox_row(recipe: &StudyRecipe) -> Vec<Value> {
    vec![
        Value::text(dataset_name(recipe)),
        Value::Count(recipe.sandbox.pairs as u64),
        Value::Count(recipe.sandbox.held_out as u64),
        Value::text(::sandbox::CATEGORIES.join(", ")),
    ]
}

/// The benchmark's turns are its examples, as in the paper's table.
fn benchmark_row(runner: &Runner) -> Vec<Value> {
    let questions = runner.world().questions();
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

fn dataset_name(recipe: &StudyRecipe) -> String {
    match recipe.data.format {
        Format::Sandbox if recipe.is_sandbox() => "sandbox".to_owned(),
        _ => recipe.data.path.clone(),
    }
}

fn read(recipe: &StudyRecipe, runner: &Runner, path: &Path) -> Result<Vec<PreferenceRecord>, StudyError> {
    let (records, _) = read_records_with(path, &recipe.data.reading(&runner.world().replicate(0)))?;
    Ok(records)
}

/// The domains with their numbers of records, the largest first.
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

/// How much each annotator labelled.
fn annotators(records: &[PreferenceRecord]) -> Table {
    let mut counts: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for (name, label) in records.iter().flat_map(|record| &record.labels) {
        let [labelled, ties] = counts.entry(name).or_default();
        *labelled += 1;
        *ties += u64::from(*label == Label::Tie);
    }
    Table {
        id: "annotators".into(),
        title: "Who labelled the training set".into(),
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
