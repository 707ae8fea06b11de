//! The programs of research questions: arguments, and tables on stdout.

use std::process::{Command, ExitCode};
use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};
use experiment::{Shard, Workers, cores};
use report::table::{Format, Table};
use study::questions::ALL;
use study::{Findings, Question, Study};
use trainer::{Context, Silent};

use crate::console::{ConsoleProgress, SystemClock};
use crate::program::{Signals, print_result, run};
use crate::recipe_args::{RecipeArgs, recipe};
use crate::registry_program::RegistryCommand;
use crate::study_plan::study_plan;

/// The arguments of every research question.
#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Worker processes, which share the processor's threads [default: one per core in the sandbox, else one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Show finished and remaining work; nothing runs
    #[arg(long)]
    plan: bool,
    /// Format of the tables
    #[arg(long, default_value = "text", value_parser = Format::from_str)]
    format: Format,
    /// Compute only the I-th of N parts of the cells and print nothing, for machines that share the folder. A run without this
    /// option calls the LLM judge, at one rate and with one budget
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<Shard>,
    /// Stop when standard input closes: this process is a worker of another one
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

/// Reproduces the paper's tables and answers further questions; a run that several tables share is trained once.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct TablesArgs {
    #[command(subcommand)]
    command: Option<RegistryCommand>,
    #[command(flatten)]
    study: StudyArgs,
    /// Only these tables, such as 3,4 [default: all but `map`]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = table())]
    tables: Vec<String>,
    /// Print only verdicts, variance components and coverage; the study's folder has all tables
    #[arg(long)]
    brief: bool,
}

/// Runs the program of one research question.
pub fn question(question: &'static dyn Question) -> ExitCode {
    let command = QuestionArgs::command().about(question.about().help);
    let args = QuestionArgs::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    run(|signals| {
        let Some(findings) = answer(&[question], &args.study, signals)? else { return Ok(()) };
        print_tables(findings.failed.iter().chain(&findings.tables), &args.study)?;
        findings.incomplete.map_or(Ok(()), |error| Err(error.into()))
    })
}

/// Runs the program of all research questions.
pub fn study() -> ExitCode {
    let args = TablesArgs::parse();
    if let Some(command) = args.command {
        return run(|_| command.run());
    }
    let tables = &args.tables;
    let asked: Vec<&dyn Question> = ALL
        .iter()
        .copied()
        .filter(|question| match tables.is_empty() {
            true => !question.is_on_request(),
            false => question.about().tables.iter().any(|id| tables.iter().any(|table| table == id)),
        })
        .collect();
    run(|signals| {
        let Some(findings) = answer(&asked, &args.study, signals)? else { return Ok(()) };
        let Findings { failed, verdicts, people, components, coverage, tables, incomplete, .. } = findings;
        let (people, tables) = if args.brief { (None, Vec::new()) } else { (people, tables) };
        let opening = failed.iter().chain(&verdicts).chain(&people).chain(&components).chain(&coverage);
        print_tables(opening.chain(&tables), &args.study)?;
        incomplete.map_or(Ok(()), |error| Err(error.into()))
    })
}

fn print_tables<'a>(tables: impl IntoIterator<Item = &'a Table>, args: &StudyArgs) -> anyhow::Result<()> {
    for table in tables {
        print_result(table.render(args.format))?;
    }
    Ok(())
}

/// Answers questions; a plan or a shard has no findings.
fn answer(asked: &[&dyn Question], args: &StudyArgs, signals: &Signals) -> anyhow::Result<Option<Findings>> {
    let recipe = recipe(&args.recipe)?;
    let default_jobs = if recipe.is_sandbox() { cores() } else { 1 };
    let jobs = args.jobs.map_or(default_jobs, usize::from);
    let study = Study::new(recipe, ALL)?;
    let clock = SystemClock::start();
    if args.plan {
        print_result(study_plan(&study.plan(asked, &clock)?, jobs).render(args.format))?;
        return Ok(None);
    }
    let mut console = ConsoleProgress::stderr();
    let mut silent = Silent;
    // Several workers share one terminal, so that only a single process draws on it.
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
        }
        study.run_shard(asked, shard, args.worker, &mut context)?;
        return Ok(None);
    }
    let workers = Workers { jobs, command: worker };
    Ok(Some(study.answer(asked, &workers, &mut context)?))
}

/// Returns the command of a worker: this program with the same arguments.
fn worker(shard: Shard) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1));
    command.args([format!("--shard={}/{}", shard.index + 1, shard.of), "--worker".to_owned()]);
    Ok(command)
}

/// Parses the id of a table; the help lists the questions.
fn table() -> PossibleValuesParser {
    let ids = ALL.iter().flat_map(|question| {
        question.about().tables.iter().map(|id| PossibleValue::new(*id).help(question.about().title))
    });
    PossibleValuesParser::new(ids)
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((index, of)) if (1..=of).contains(&index) => Ok(Shard { index: index - 1, of }),
        _ => Err("write it as I/N with I from 1 to N, such as 1/4".to_owned()),
    }
}
