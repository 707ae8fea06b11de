//! Prints the measured sections of the sandbox's README, from a study's store.
//!
//! ```sh
//! cargo run -p study --example sandbox_readme -- runs/sandbox
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::AtomicBool;

use distributed::ProcessGroup;
use pref_data::{Format, read_records};
use report::table::Format as TableFormat;
use report::table::{Align, Column, Table, Value};
use study::recipe::{Preset, StudyRecipe};
use study::{BENCHMARK, Evaluated, FURTHER, GOLD, Question, Runner, Shard, Subject};
use trainer::{Clock, Context, Silent};

/// Nothing here depends on the time.
struct NoClock;

impl Clock for NoClock {
    fn seconds(&self) -> f64 {
        0.0
    }

    fn unix_seconds(&self) -> f64 {
        0.0
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).ok_or("usage: sandbox_readme STUDY_FOLDER")?;
    let recipe = StudyRecipe::preset(Preset::Sandbox, &[format!("output.dir={out}")])?;
    let runner = Runner::new(recipe)?;
    let grid = runner.grid(&[Question::Acquisition])?;
    let (mut silent, stop) = (Silent, AtomicBool::new(false));
    let mut context = Context {
        clock: &NoClock,
        progress: &mut silent,
        stop: &stop,
        group: ProcessGroup::single(),
        cache: None,
    };
    runner.run(&grid, Shard::WHOLE, &mut context)?;
    let collected = runner.stored(&grid)?.ok_or("the grid was run and is not in the store")?;
    let baseline = collected
        .evaluated
        .iter()
        .find(|e| matches!(e.subject, Subject::Baseline { seed: 0 }))
        .ok_or("the grid has no baseline")?;
    print(&agreement(&runner)?);
    dialogues(&runner, baseline)?;
    print(&per_category(baseline));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the sections go into a file")]
fn print(table: &Table) {
    println!("{}", table.render(TableFormat::Markdown));
}

/// How often each annotator agrees with gold on responses of policies.
fn agreement(runner: &Runner) -> Result<Table, Box<dyn Error>> {
    let records = read_records(runner.world().records(0), Format::Records)?;
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

/// The first question of each category, and two more, as the supervised policy answers them.
#[expect(clippy::print_stdout, reason = "the sections go into a file")]
fn dialogues(runner: &Runner, baseline: &Evaluated) -> Result<(), Box<dyn Error>> {
    let answers = baseline.evaluation.answers()?;
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    let mut dialogues = 0;
    for (question, answer) in runner.world().questions().iter().zip(&answers) {
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

/// Gold quality of the supervised policy by category, on the benchmark and beyond it.
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
