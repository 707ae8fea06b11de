//! Research questions as programs: arguments, worker processes, tables on stdout.

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser};
use hub::Hub;
use report::table::{Format, Table};
use study::recipe::{Preset, StudyRecipe};
use study::{Failure, Findings, Grid, Question, Runner, Shard, StudyError, conclude};
use trainer::{Context, Silent};

use crate::console::{ConsoleProgress, SystemClock};
use crate::program::{Signals, print_result, run};
use crate::registry_program::RegistryCommand;
use crate::study_plan::study_plan;

/// How often a waiting process looks after its workers.
const WORKER_POLL: Duration = Duration::from_millis(50);

/// Which recipe a study follows, and where its results lie.
#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// A recipe that ships with the program
    #[arg(long, value_name = "NAME", value_parser = preset(), conflicts_with = "recipe")]
    preset: Option<Preset>,
    /// A recipe of your own
    #[arg(long, value_name = "FILE", required_unless_present = "preset")]
    recipe: Option<PathBuf>,
    /// Change one key of the recipe, such as study.seeds=4; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Replicates: data, labels, order, generation and judge are drawn anew in each
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Where results and everything computed on the way go; what is there already is used
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The arguments of every research question.
#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Worker processes, among which processor threads are divided [default: one a core in the sandbox, else one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Show what would be computed, and what is there already; nothing runs
    #[arg(long)]
    plan: bool,
    /// How tables are printed
    #[arg(long, default_value = "text", value_parser = Format::from_str)]
    format: Format,
    /// Compute only the I-th of N parts of the cells and print nothing: for machines that share the folder. What an LLM is
    /// to judge is judged by a run without this, at one pace and on one budget
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<Shard>,
    /// This process works for another one and ends with it: when its standard input closes, it stops
    #[arg(long, hide = true, requires = "shard")]
    worker: bool,
}

/// The arguments of a program that asks one question.
#[derive(Debug, Parser)]
#[command(version)]
struct QuestionArgs {
    #[command(flatten)]
    study: StudyArgs,
}

/// All tables of the paper, and those beside it, as grids over one engine: what stands in several is trained once.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct TablesArgs {
    #[command(subcommand)]
    command: Option<RegistryCommand>,
    #[command(flatten)]
    study: StudyArgs,
    /// Only these, such as 3,4: the paper's numbers [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = table())]
    tables: Vec<Question>,
    /// Print only what became of the claims and of the intervals; all tables lie in the study's folder
    #[arg(long)]
    brief: bool,
}

/// Runs a research question as a program.
pub fn question(question: Question) -> ExitCode {
    let args = QuestionArgs::parse();
    run(|signals| {
        let Some((findings, failed)) = answer(&[question], &args.study, signals)? else { return Ok(()) };
        print_tables(findings.missing.iter().chain(&findings.tables), &args.study)?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    })
}

/// Runs the whole study, or some of its tables, as a program.
pub fn study() -> ExitCode {
    let args = TablesArgs::parse();
    if let Some(command) = args.command {
        return run(|_| command.run());
    }
    let asked = |question: &Question| args.tables.is_empty() || args.tables.contains(question);
    let questions: Vec<Question> = Question::ALL.into_iter().filter(asked).collect();
    run(|signals| {
        let Some((findings, failed)) = answer(&questions, &args.study, signals)? else { return Ok(()) };
        let Findings { missing, verdicts, coverage, tables, .. } = findings;
        let tables = if args.brief { Vec::new() } else { tables };
        print_tables(missing.iter().chain(&verdicts).chain(&coverage).chain(&tables), &args.study)?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    })
}

fn print_tables<'a>(tables: impl IntoIterator<Item = &'a Table>, args: &StudyArgs) -> anyhow::Result<()> {
    for table in tables {
        print_result(table.render(args.format))?;
    }
    Ok(())
}

/// Computes what is missing and concludes, with an error beside the findings where some policies could not be had; nothing comes
/// of a plan or of a part.
fn answer(
    questions: &[Question],
    args: &StudyArgs,
    signals: &Signals,
) -> anyhow::Result<Option<(Findings, Option<StudyError>)>> {
    let recipe = recipe(&args.recipe)?;
    let default_jobs = if recipe.is_sandbox() { cores() } else { 1 };
    let jobs = args.jobs.map_or(default_jobs, usize::from);
    let runner = Runner::new(recipe)?;
    let grid = runner.grid(questions)?;
    if args.plan {
        let plan = runner.forecast(runner.plan(&grid)?, &grid, &SystemClock::start())?;
        let plan = study_plan(&plan, jobs);
        print_result(plan.render(args.format))?;
        return Ok(None);
    }
    let clock = SystemClock::start();
    let mut console = ConsoleProgress::stderr();
    let mut silent = Silent;
    // Several workers share one terminal: only whoever is alone draws on it.
    let progress: &mut dyn trainer::Progress = if args.shard.is_some() { &mut silent } else { &mut console };
    let mut context = Context {
        clock: &clock,
        progress,
        stop: signals.stop(),
        group: distributed::ProcessGroup::single(),
        cache: None,
    };
    if let Some(shard) = args.shard {
        if args.worker {
            signals.stop_with_parent();
        } else {
            runner.begin(questions)?;
            runner.forget_failures(&grid, shard)?;
        }
        runner.run(&grid, shard, &mut context)?;
        return Ok(None);
    }
    let done = compute(&runner, questions, grid, jobs, (&mut context, signals));
    for paid in runner.paid() {
        tracing::info!("judging paid: {paid}");
    }
    let grid = done?;
    let failures = runner.failures(&grid)?;
    let (failed, policies) = (failures.len(), grid.trained());
    if let Some(Failure { subject, reason }) = failures.first().filter(|_| failed == policies) {
        let (what, reason) = (subject.to_string(), reason.clone());
        return Err(StudyError::AllFailed { policies, what, reason }.into());
    }
    let findings = conclude(&runner, questions)?;
    tracing::info!("report: {}", findings.report.display());
    Ok(Some((findings, (failed > 0).then_some(StudyError::SomeFailed { failed, policies }))))
}

/// Computes a grid, and what its own results then ask for: the grid that all of it comes to. What failed in an earlier run is
/// tried again.
fn compute(
    runner: &Runner,
    questions: &[Question],
    mut grid: Grid,
    jobs: usize,
    (context, signals): (&mut Context<'_>, &Signals),
) -> anyhow::Result<Grid> {
    let mut tried = Grid::default();
    loop {
        runner.forget_failures(&grid.beyond(&tried), Shard::WHOLE)?;
        if !runner.plan(&grid)?.is_complete() {
            runner.open_judge()?;
            runner.begin(questions)?;
        }
        runner.prepare(context)?;
        if jobs > 1 && !runner.plan(&grid)?.is_complete() {
            work(jobs, (cores() / jobs).max(1), signals)?;
        }
        runner.run(&grid, Shard::WHOLE, context)?;
        let next = runner.grid(questions)?;
        if next == grid {
            return Ok(grid);
        }
        tried = std::mem::replace(&mut grid, next);
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A preset by its name.
fn preset() -> impl TypedValueParser<Value = Preset> {
    PossibleValuesParser::new(Preset::ALL.map(Preset::name)).map(|name| {
        let found = Preset::ALL.into_iter().find(|preset| preset.name() == name);
        found.expect("only names of presets are let through")
    })
}

/// A question by the number of a table that it makes.
fn table() -> impl TypedValueParser<Value = Question> {
    let names = Question::ALL.into_iter().flat_map(|question| question.tables().iter().copied());
    PossibleValuesParser::new(names).map(|name| {
        let found = Question::ALL.into_iter().find(|question| question.tables().contains(&name.as_str()));
        found.expect("only names of tables are let through")
    })
}

/// The recipe that the arguments ask for, whatever it names on the Hub brought here.
pub(crate) fn recipe(args: &RecipeArgs) -> anyhow::Result<StudyRecipe> {
    let mut overrides = args.overrides.clone();
    if let Some(seeds) = args.seeds {
        overrides.push(format!("study.seeds={seeds}"));
    }
    if let Some(out) = &args.out {
        overrides.push(format!("output.dir={}", out.display()));
    }
    let mut recipe = match (&args.recipe, args.preset) {
        (Some(path), _) => StudyRecipe::load(path, &overrides)?,
        (None, preset) => StudyRecipe::preset(preset.unwrap_or(Preset::Sandbox), &overrides)?,
    };
    recipe.fetch(&Hub::from_environment(|name| std::env::var(name).ok()))?;
    Ok(recipe)
}

/// Starts this program `jobs` times over, each for its part of the cells, and waits for all of them.
fn work(jobs: usize, threads: usize, signals: &Signals) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut workers = Vec::new();
    for index in 0..jobs {
        let worker = Command::new(&program)
            .args(std::env::args_os().skip(1))
            .args([format!("--shard={}/{jobs}", index + 1), "--worker".to_owned()])
            .env("OMP_NUM_THREADS", threads.to_string())
            .env("RAYON_NUM_THREADS", threads.to_string())
            // Never written to: it closes when this process ends, however it ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a worker process")?;
        workers.push(worker);
    }
    let mut failed = None;
    for (index, mut worker) in workers.into_iter().enumerate() {
        let status = wait(&mut worker, signals).context("cannot wait for a worker process")?;
        if !status.success() {
            failed.get_or_insert(StudyError::Worker { shard: index + 1, of: jobs, status });
        }
    }
    match failed {
        _ if signals.stop().load(Ordering::Relaxed) => Err(StudyError::Stopped.into()),
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Waits for a worker; once somebody asks this process to stop, the worker is told so too.
fn wait(worker: &mut Child, signals: &Signals) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = worker.try_wait()? {
            return Ok(status);
        }
        if signals.stop().load(Ordering::Relaxed) {
            drop(worker.stdin.take());
        }
        std::thread::sleep(WORKER_POLL);
    }
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((index, of)) if (1..=of).contains(&index) => Ok(Shard { index: index - 1, of }),
        _ => Err("write it as I/N with I from 1 to N, such as 1/4".to_owned()),
    }
}
