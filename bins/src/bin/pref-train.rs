//! One training run, from a recipe to a model folder.

use std::path::PathBuf;
use std::process::ExitCode;

use bins::{ConsoleProgress, Signals, Stopped, SystemClock, print_result, run, train_plan};
use clap::Parser;
use hub::Hub;
use render::table::Format;
use trainer::recipe::Recipe;
use trainer::{Context, Outcome, Start, StepMetrics};

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
    /// Processes of this machine that train together; this version trains in one
    ///
    /// What uses several cores is threads (train.threads in the recipe) and independent runs side by side.
    #[arg(long, value_name = "N", default_value = "1", value_parser = one_process)]
    nproc_per_node: u16,
}

fn one_process(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(1) => Ok(1),
        Ok(0) | Err(_) => Err("give a number of processes from 1".to_owned()),
        Ok(_) => Err(
            "this version trains in one process only; leave the option out, and use the cores by threads \
                      (train.threads) or by runs side by side"
                .to_owned(),
        ),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|signals| train(&args, signals))
}

fn train(args: &Args, signals: &Signals) -> anyhow::Result<()> {
    let mut recipe = Recipe::load(&args.recipe, &args.overrides)?;
    recipe.fetch(&Hub::from_environment(|name| std::env::var(name).ok()))?;
    let start = if args.resume { Start::Resume } else { Start::Fresh };
    if args.plan {
        return Ok(print_result(
            train_plan(&trainer::plan(&recipe, start, &SystemClock::start())?).render(Format::Text),
        )?);
    }
    let clock = SystemClock::start();
    let mut progress = ConsoleProgress::stderr();
    let mut context = Context { clock: &clock, progress: &mut progress, stop: signals.stop(), cache: None };
    let report = trainer::run(&recipe, start, &mut context)?;
    if let Outcome::Stopped(step) = report.outcome {
        let root = report.dir.root().display();
        return Err(Stopped(format!(
            "stopped after step {step}; {root} holds a checkpoint: pass --resume to go on"
        ))
        .into());
    }
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
