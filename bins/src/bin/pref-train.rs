//! One training run, from a recipe to a model folder.

use std::path::PathBuf;
use std::process::ExitCode;

use bins::{
    ConsoleProgress, RanksArgs, Signals, Stopped, SystemClock, log_filter, placement, print_result,
    run_logging, train_plan,
};
use clap::Parser;
use distributed::{DistributedError, Placement, ProcessGroup};
use hub::Hub;
use report::table::Format;
use trainer::recipe::Recipe;
use trainer::{Cluster, Context, Outcome, Progress, RunReport, Silent, Start, StepMetrics};

/// Train a policy on preferences (DPO, cDPO, IPO) or on their chosen responses (SFT).
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The recipe: what to train, on what, how
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Change one key of the recipe, such as loss.beta=0.05; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Go on from the newest checkpoint in output.dir
    #[arg(long)]
    resume: bool,
    /// Read model and data, show what would be done and how much memory it takes; nothing runs or is written
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    ranks: RanksArgs,
    /// How many seconds processes that train together wait for each other
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let placement = placement();
    run_logging(log_filter(&placement), |signals| start(&args, placement, signals))
}

fn start(
    args: &Args,
    placement: Result<Option<Placement>, DistributedError>,
    signals: &Signals,
) -> anyhow::Result<()> {
    let mut recipe = Recipe::load(&args.recipe, &args.overrides)?;
    recipe.fetch(&Hub::from_environment(|name| std::env::var(name).ok()))?;
    let start = if args.resume { Start::Resume } else { Start::Fresh };
    if args.plan {
        let RanksArgs { nproc_per_node, nnodes, .. } = args.ranks;
        let gpus = if args.ranks.are_several() { u64::from(nproc_per_node) * u64::from(nnodes) } else { 8 };
        let plan = trainer::plan(&recipe, start, Cluster::a100s(gpus), &SystemClock::start())?;
        return Ok(print_result(train_plan(&plan).render(Format::Text))?);
    }
    if args.ranks.is_launcher() {
        let shares_cores = recipe.train.threads == 0;
        let resume_hint = "--resume goes on from the newest checkpoint if there is one";
        return args.ranks.launch(shares_cores, resume_hint, signals);
    }
    let group = args.ranks.join(placement?.as_ref(), recipe.model.device, args.timeout, signals)?;
    train(&recipe, start, group, signals)
}

fn train(recipe: &Recipe, start: Start, group: ProcessGroup, signals: &Signals) -> anyhow::Result<()> {
    let (clock, leads) = (SystemClock::start(), group.is_main());
    let (mut console, mut silent) = (ConsoleProgress::stderr(), Silent);
    let progress: &mut dyn Progress = if leads { &mut console } else { &mut silent };
    let mut context = Context { clock: &clock, progress, stop: signals.stop(), group, cache: None };
    let report = trainer::run(recipe, start, &mut context)?;
    if let Outcome::Stopped(step) = report.outcome {
        let root = report.dir.root().display();
        return Err(Stopped(format!(
            "stopped after step {step}; {root} holds a checkpoint: pass --resume to go on"
        ))
        .into());
    }
    if leads { print_report(&report) } else { Ok(()) }
}

fn print_report(report: &RunReport) -> anyhow::Result<()> {
    if let (Some(first), Some(last)) = report.dir.first_and_last_metrics()? {
        for StepMetrics { step, loss, grad_norm, .. } in [first, last] {
            print_result(format_args!("step {step:>5}: loss {loss:.4}, grad_norm {grad_norm:.3}"))?;
        }
    }
    let evaluations = report.dir.read_evaluations()?;
    for evaluation in evaluations.first().into_iter().chain(evaluations.last()) {
        print_result(evaluation)?;
    }
    Ok(print_result(format_args!("model: {}", report.dir.model().display()))?)
}
