//! Prints the measured sections of the sandbox's README from a study's store.
//!
//! ```sh
//! cargo run -p study --example sandbox_readme -- runs/sandbox
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::AtomicBool;

use distributed::ProcessGroup;
use experiment::{BENCHMARK, Evaluated, FURTHER, GOLD, Role, Runner, Subject};
use pref_data::{Format, read_records};
use report::table::Format as TableFormat;
use report::table::{Align, Column, Table, Value};
use study::Study;
use study::questions::{ALL, Acquisition};
use study::recipe::{Preset, StudyRecipe};
use trainer::{Context, NoClock, Silent};

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).ok_or("usage: sandbox_readme STUDY_FOLDER")?;
    let recipe = StudyRecipe::preset(Preset::Sandbox, &[format!("output.dir={out}")])?;
    let study = Study::new(recipe, ALL)?;
    let (grid, runner) = (study.grid(&[&Acquisition])?, study.runner());
    let (mut silent, stop) = (Silent, AtomicBool::new(false));
    let mut context = Context {
        clock: &NoClock,
        progress: &mut silent,
        stop: &stop,
        group: ProcessGroup::single(),
        cache: None,
    };
    runner.run(&grid, Role::Lead, &mut context)?;
    let collected = runner.stored(&grid)?.ok_or("the grid is not complete")?;
    let baseline = collected
        .evaluated
        .iter()
        .find(|e| matches!(e.subject, Subject::Baseline { seed: 0 }))
        .ok_or("the grid has no baseline")?;
    print(&agreement(runner)?);
    dialogues(runner, baseline)?;
    print(&per_category(baseline));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the sections go into a file")]
fn print(table: &Table) {
    println!("{}", table.render(TableFormat::Markdown));
}

/// Returns the agreement of each annotator with gold on sampled responses.
fn agreement(runner: &Runner) -> Result<Table, Box<dyn Error>> {
    let records = read_records(runner.source().records(0), Format::Records)?;
    let row = |a: &sandbox::Agreement| {
        vec![
            Value::text(&a.annotator),
            Value::Percent { value: a.share, decimals: 1 },
            Value::Count(a.n as u64),
        ]
    };
    Ok(Table {
        id: "agreement".into(),
        title: "Agreement with gold on responses sampled from policies, seed 0".into(),
        columns: vec![
            Column::new("Annotator", Align::Left),
            Column::new("Agreement", Align::Right),
            Column::new("Records", Align::Right),
        ],
        rows: sandbox::agreement(&records).iter().map(row).collect(),
        notes: vec![],
    })
}

/// Prints the supervised policy's answers to the first question of each category, and to two more.
#[expect(clippy::print_stdout, reason = "the sections go into a file")]
fn dialogues(runner: &Runner, baseline: &Evaluated) -> Result<(), Box<dyn Error>> {
    let answers = baseline.evaluation.answers()?;
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    let mut dialogues = 0;
    for (question, answer) in runner.source().questions().iter().zip(&answers) {
        let seen = shown.entry(&question.category).or_default();
        // Ten dialogues from eight categories: the first two categories show two.
        let wanted = if ["writing", "roleplay"].contains(&question.category.as_str()) { 2 } else { 1 };
        if *seen == wanted || dialogues == 10 {
            continue;
        }
        *seen += 1;
        dialogues += 1;
        println!("**{}**\n", question.category);
        for (turn, (asked, said)) in question.turns.iter().zip(answer.turns()).enumerate() {
            let gold = baseline.evaluation.scores.iter().find(|s| {
                (s.scorer.as_str(), s.question_set.as_str()) == (GOLD, BENCHMARK)
                    && (s.question_id, usize::from(s.turn)) == (question.question_id, turn + 1)
            });
            let gold = gold.and_then(|s| s.score).unwrap_or_default();
            println!("> *user:* {asked}\n>\n> *policy:* {said} — **gold {gold:.2}**\n>");
        }
        println!();
    }
    Ok(())
}

/// Returns gold quality of the supervised policy by category, on the benchmark and on held-out questions.
fn per_category(baseline: &Evaluated) -> Table {
    let mut sums: BTreeMap<(&str, &str), (f64, f64)> = BTreeMap::new();
    for score in baseline.evaluation.scores.iter().filter(|s| s.scorer == GOLD) {
        if let Some(value) = score.score {
            let sum = sums.entry((&score.category, &score.question_set)).or_default();
            *sum = (sum.0 + value, sum.1 + 1.0);
        }
    }
    let mean = |category, set| match sums.get(&(category, set)) {
        Some((sum, n)) => Value::Number { value: sum / n, decimals: 2 },
        None => Value::missing("no questions"),
    };
    Table {
        id: "sft".into(),
        title: "Gold quality of the supervised policy, seed 0, temperature 0.7".into(),
        columns: vec![
            Column::new("Category", Align::Left),
            Column::new("Benchmark", Align::Right),
            Column::new("Further questions", Align::Right),
        ],
        rows: sandbox::CATEGORIES
            .iter()
            .map(|category| vec![Value::text(*category), mean(category, BENCHMARK), mean(category, FURTHER)])
            .collect(),
        notes: vec![],
    }
}
