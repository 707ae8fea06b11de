//! The programs of research questions: arguments, and tables on stdout.

use std::env;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Parser};
use distributed::{DistributedError, Placement, ProcessGroup};
use experiment::{Crew, Role, Shard, Workers, cores};
use report::table::{Format, Table};
use study::questions::ALL;
use study::{ANSWERS, Findings, Question, Study};
use trainer::recipe::DeviceChoice;
use trainer::{Context, Progress, Silent};

use crate::console::{ConsoleProgress, SystemClock};
use crate::console_args::ConsoleArgs;
use crate::design_args::DesignArgs;
use crate::groups::{GroupArgs, Groups};
use crate::launch::{logging, placement};
use crate::launched::is_launched;
use crate::log_file;
use crate::program::{Logging, Signals, print_result, run};
use crate::recipe_args::{RecipeArgs, recipe, recipe_of};
use crate::registry_program::RegistryCommand;
use crate::study_plan::study_plan;

/// How to continue after a failure or an interruption.
const GOES_ON: &str = "finished cells are in the store: run the same command to resume";

/// What a program does before it trains.
pub(crate) const READING: &str = "reading model and data";

/// The width of the first table, which fits any terminal.
const WIDTH: usize = 80;

/// The arguments of every research question.
#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Worker processes that compute different cells and share the processor's threads [default: one per core in the sandbox,
    /// else one]
    #[arg(long, value_name = "N", conflicts_with_all = ["nproc_per_node", "nnodes"])]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    groups: GroupArgs,
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
    /// Print only the answers; the study's folder has all tables
    #[arg(long)]
    brief: bool,
    #[command(flatten)]
    design: DesignArgs,
}

/// The arguments of a program that asks one question.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct QuestionArgs {
    #[command(flatten)]
    study: StudyArgs,
}

/// Reproduces the paper's tables and answers further questions; a run that several tables share is trained once.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct TablesArgs {
    #[command(subcommand)]
    command: Option<RegistryCommand>,
    #[command(flatten)]
    study: StudyArgs,
    /// Only these tables, such as 3,4 [default: all but `map`]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = table())]
    tables: Vec<String>,
}

impl QuestionArgs {
    /// Runs the program of one research question.
    pub(crate) fn run(&self, question: &'static dyn Question, console: ConsoleArgs) -> ExitCode {
        let placement = placement();
        run(logging(&placement, shown()), console, |signals| {
            let Some(findings) = answer(&[question], &self.study, placement, signals)? else { return Ok(()) };
            // Scripts read the other formats, which begin with the question's own table.
            let answers = findings.answers.as_ref().filter(|_| self.study.format == Format::Text);
            print_tables(findings.failed.iter().chain(answers), &self.study)?;
            if !self.study.brief || answers.is_none() {
                print_tables(&findings.tables, &self.study)?;
            }
            findings.incomplete.map_or(Ok(()), |error| Err(error.into()))
        })
    }
}

impl TablesArgs {
    /// Runs the program of all research questions.
    pub(crate) fn run(&self, console: ConsoleArgs) -> ExitCode {
        if let Some(command) = &self.command {
            return run(Logging::SHOWN, console, |_| command.run());
        }
        let placement = placement();
        run(logging(&placement, shown()), console, |signals| {
            let findings = answer(&self.asked(), &self.study, placement, signals)?;
            findings.map_or(Ok(()), |findings| self.print(findings))
        })
    }

    fn asked(&self) -> Vec<&'static dyn Question> {
        let tables = &self.tables;
        let is_asked = |question: &&dyn Question| match tables.is_empty() {
            true => !question.is_on_request(),
            false => question.about().tables.iter().any(|id| tables.iter().any(|table| table == id)),
        };
        ALL.iter().copied().filter(is_asked).collect()
    }

    fn print(&self, findings: Findings) -> anyhow::Result<()> {
        let Findings { failed, answers, verdicts, people, components, coverage, tables, incomplete, .. } =
            findings;
        print_tables(failed.iter().chain(&answers), &self.study)?;
        if !self.study.brief || answers.is_none() {
            let opening = verdicts.iter().chain(&people).chain(&components).chain(&coverage);
            print_tables(opening.chain(&tables), &self.study)?;
        }
        incomplete.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Returns what a study shows: its course, and decisions about its data. The log has the rest.
fn shown() -> &'static str {
    match is_launched() {
        true => "warn,announced=info",
        false => "warn,announced=info,bins=info,hub=info,pref_data=info,study=info",
    }
}

fn print_tables<'a>(tables: impl IntoIterator<Item = &'a Table>, args: &StudyArgs) -> anyhow::Result<()> {
    for table in tables {
        print_result(match args.format {
            Format::Text if table.id == ANSWERS => table.render_within(WIDTH),
            format => table.render(format),
        })?;
    }
    Ok(())
}

/// Answers questions; a plan or a shard has no findings.
fn answer(
    asked: &[&dyn Question],
    args: &StudyArgs,
    placement: Result<Option<Placement>, DistributedError>,
    signals: &Signals,
) -> anyhow::Result<Option<Findings>> {
    if args.design.design {
        return print_design(asked, args).map(|()| None);
    }
    let recipe = recipe(&args.recipe)?;
    let placement = placement?;
    let groups = groups(args, placement.as_ref(), recipe.is_sandbox())?;
    let device = recipe.model.device;
    // Several processes share one terminal, so that only a single process draws on it.
    let is_one_of_many = is_launched() || placement.is_some();
    let output = PathBuf::from(&recipe.output.dir);
    if is_launched() {
        log_file::open(&output, false);
    }
    let (mut console, mut silent) = (ConsoleProgress::stderr().with_log(output), Silent);
    if !is_one_of_many {
        console.wait(READING);
    }
    let study = Study::new(recipe, ALL)?;
    console.end();
    let clock = SystemClock::start();
    if args.plan {
        return print_plan(&study, asked, groups, args).map(|()| None);
    }
    let progress: &mut dyn Progress = if is_one_of_many { &mut silent } else { &mut console };
    let mut context =
        Context { clock: &clock, progress, stop: signals.stop(), group: ProcessGroup::single(), cache: None };
    let GroupArgs { ranks, max_restarts, timeout, .. } = args.groups;
    if let Some(shard) = args.shard {
        return run_shard(&study, asked, shard, args, (placement.as_ref(), device), signals, &mut context);
    }
    if ranks.is_launcher() && ranks.nnodes > 1 {
        ranks.launch(true, GOES_ON, signals)?;
        return Ok(None);
    }
    let launch = |shard: Shard, stop: &AtomicBool| groups.launch(shard, stop);
    let world = match &placement {
        Some(_) => ranks.join(placement.as_ref(), device, timeout, signals)?,
        None => ProcessGroup::single(),
    };
    let crew = if world.is_distributed() {
        let (group, shard) = groups.of_rank(&world)?;
        context.group = group;
        // torchrun counts how often it has started the ranks again.
        let is_restart = env::var("TORCHELASTIC_RESTART_COUNT").is_ok_and(|count| count != "0");
        Crew::Ranks { world: &world, shard, max_restarts, is_restart }
    } else if groups == Groups::ALONE {
        Crew::Alone
    } else {
        Crew::Workers(Workers { groups: groups.count, max_restarts, launch: &launch })
    };
    Ok(study.answer(asked, &crew, &mut context)?)
}

/// Prints what simulated studies find. Nothing is downloaded.
fn print_design(asked: &[&dyn Question], args: &StudyArgs) -> anyhow::Result<()> {
    let mut console = ConsoleProgress::stderr();
    let tables = args.design.tables(&recipe_of(&args.recipe)?, asked, &mut console)?;
    print_tables(&tables, args)
}

/// Prints the plan, which is an error if it exceeds a budget.
fn print_plan(
    study: &Study,
    asked: &[&dyn Question],
    groups: Groups,
    args: &StudyArgs,
) -> anyhow::Result<()> {
    let processes = if args.groups.ranks.are_several() { groups.count * usize::from(groups.size) } else { 1 };
    let processes = NonZeroU64::new(processes as u64).unwrap_or(NonZeroU64::MIN);
    let plan = study.plan(asked, processes, &SystemClock::start())?;
    print_tables(&study_plan(&plan, groups.count), args)?;
    plan.check_budget().map_err(Into::into)
}

/// Computes a shard, as one of several machines or as a group of ranks that another process has started.
fn run_shard(
    study: &Study,
    asked: &[&dyn Question],
    shard: Shard,
    args: &StudyArgs,
    (placement, device): (Option<&Placement>, DeviceChoice),
    signals: &Signals,
    context: &mut Context<'_>,
) -> anyhow::Result<Option<Findings>> {
    let GroupArgs { ranks, max_restarts, timeout, .. } = args.groups;
    if ranks.is_launcher() {
        // A shard is computed by one group.
        args.groups.one_group()?;
        study.begin_shard(asked, shard)?;
        ranks.launch(true, GOES_ON, signals)?;
        return Ok(None);
    }
    context.group = ranks.join(placement, device, timeout, signals)?;
    if !ranks.launched && context.group.is_main() {
        study.begin_shard(asked, shard)?;
    }
    study.run_shard(asked, Role::Part { shard, max_restarts }, context)?;
    Ok(None)
}

/// Returns the groups of processes: of ranks that are started already, of those to start, or of workers.
fn groups(args: &StudyArgs, placement: Option<&Placement>, is_sandbox: bool) -> anyhow::Result<Groups> {
    let groups = args.groups;
    match placement {
        Some(placement) if args.shard.is_none() => Ok(groups.groups(placement.rank.world_size())?),
        _ if groups.ranks.are_several() => Ok(groups.groups(groups.processes())?),
        _ => {
            let default_jobs = if is_sandbox { cores() } else { 1 };
            Ok(Groups { size: 1, count: args.jobs.map_or(default_jobs, usize::from) })
        }
    }
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
