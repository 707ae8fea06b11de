//! `pref-train`: one training run, from a recipe to a model folder.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use distributed::{DistributedError, Placement, ProcessGroup};
use hub::Hub;
use report::table::Format;
use trainer::recipe::Recipe;
use trainer::{Cluster, Context, Outcome, Preview, Progress, RunReport, Silent, Start, StepMetrics};

use crate::console::{ConsoleProgress, SystemClock};
use crate::console_args::ConsoleArgs;
use crate::launch::{RanksArgs, logging, placement};
use crate::preview_text::preview_text;
use crate::program::{Signals, Stopped, print_result, run};
use crate::study_program::READING;
use crate::train_plan::{largest_table, train_plan};

/// What a run shows: decisions about its data and its course. The log has the rest.
const SHOWN: &str = "warn,announced=info,bins=info,hub=info,pref_data=info,trainer=info";

/// Train a policy on preferences (DPO and 20 other losses) or on demonstrations (SFT).
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct TrainArgs {
    /// The recipe: what to train, on what, how
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Change one key of the recipe, such as loss.beta=0.05; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Continue from the newest checkpoint in output.dir, or start from the beginning if there is none
    #[arg(long)]
    resume: bool,
    /// Continue although data, model, reference, tokenizer or chat template have changed; the checkpoints record it
    #[arg(long, requires = "resume")]
    accept_changes: bool,
    /// Read model and data, and show the steps, memory and time of the run; nothing runs or is written
    #[arg(long)]
    plan: bool,
    /// Show the largest models that train on the recipe's data on one GPU of so many gigabytes, by method, in place of the plan
    #[arg(long, value_name = "GB", requires = "plan", value_parser = clap::value_parser!(u16).range(1..))]
    largest: Option<u16>,
    /// Show the first N pairs as they will be trained: text, token ids, what truncation takes; nothing runs or is written
    #[arg(long, value_name = "N", conflicts_with_all = ["plan", "resume"])]
    preview: Option<usize>,
    /// How the preview is written: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", requires = "preview", value_parser = ["text", "json"])]
    format: String,
    #[command(flatten)]
    ranks: RanksArgs,
    /// How many seconds the ranks wait for each other
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// When to use which loss.
pub(crate) const LOSSES: &str = "\
Losses (loss.kind), with their own keys of [loss]:
  dpo            clean pairs; beta, dynamic_beta
  cdpo           labels of unknown quality; beta, label_smoothing
  robust         a known share of flipped labels; beta, label_smoothing
  ipo            few pairs and many epochs; beta, logp_reduction
  hinge          no gradient beyond a margin; beta
  simpo          no reference, responses of different lengths; beta (2 to 10), gamma
  orpo           no reference, a model without SFT; lambda
  cpo            no reference, with sft in a sum; beta, label_smoothing
  dpop           chosen responses that lose likelihood; beta, lambda
  sigmoid_norm   DPO per token, for responses of different lengths; beta (2 to 10)
  exo_pair       cDPO that ignores pairs far on the wrong side; beta, label_smoothing
  nca_pair       chosen responses that should keep their likelihood; beta
  bco_pair       responses that are good and bad on their own; beta
  sppo_hard      pairs sampled from the policy; beta
  apo_zero       chosen responses better than the policy's own; beta
  apo_down       chosen responses worse than the policy's own; beta
  discopop       comparisons with its paper; beta, temperature
  f_dpo          another divergence from the reference; beta, divergence
  aot            margins in distribution, over a batch; beta, label_smoothing
  aot_unpaired   two samples of responses, over a batch; beta, label_smoothing
  kto            single responses with a label, or pairs; beta, desirable_weight, undesirable_weight
  sum            a weighted sum, such as RPO; [[loss.terms]]
  sft            demonstrations, or the chosen responses alone
Any loss of pairs: wpo weighs pairs; of sums over tokens: ld_alpha desensitizes to length.
docs/losses.md is the guide.";

impl TrainArgs {
    /// Runs the program.
    pub(crate) fn run(&self, console: ConsoleArgs) -> ExitCode {
        let placement = placement();
        run(logging(&placement, SHOWN), console, |signals| start(self, placement, signals))
    }
}

fn start(
    args: &TrainArgs,
    placement: Result<Option<Placement>, DistributedError>,
    signals: &Signals,
) -> anyhow::Result<()> {
    let mut recipe = Recipe::load(&args.recipe, &args.overrides)?;
    recipe.fetch(&Hub::from_environment(|name| std::env::var(name).ok()))?;
    let now = SystemTime::now();
    recipe.data.iter_mut().for_each(|source| source.fix_date(now));
    if let Some(count) = args.preview {
        return print_preview(&trainer::preview(&recipe, count)?, &args.format);
    }
    let start = match (args.resume, args.accept_changes) {
        (false, _) => Start::Fresh,
        (true, false) => Start::Resume,
        (true, true) => Start::ResumeChanged,
    };
    if let Some(gigabytes) = args.largest {
        let models = trainer::largest_models(&recipe, u64::from(gigabytes) * 1_000_000_000)?;
        return Ok(print_result(largest_table(&models, gigabytes).render(Format::Text))?);
    }
    if args.plan {
        let RanksArgs { nproc_per_node, nnodes, .. } = args.ranks;
        let gpus = if args.ranks.are_several() { u64::from(nproc_per_node) * u64::from(nnodes) } else { 8 };
        let plan = trainer::plan(&recipe, start, Cluster::a100s(gpus), &SystemClock::start())?;
        return Ok(print_result(train_plan(&plan).render(Format::Text))?);
    }
    if args.ranks.is_launcher() {
        let shares_cores = recipe.train.threads == 0;
        let resume_hint = "--resume continues from the newest checkpoint if there is one";
        return args.ranks.launch(shares_cores, resume_hint, signals);
    }
    let group = args.ranks.join(placement?.as_ref(), recipe.model.device, args.timeout, signals)?;
    train(&recipe, start, group, signals)
}

fn train(recipe: &Recipe, start: Start, group: ProcessGroup, signals: &Signals) -> anyhow::Result<()> {
    let (clock, leads) = (SystemClock::start(), group.is_main());
    let console = ConsoleProgress::stderr().with_log(PathBuf::from(&recipe.output.dir));
    let (mut console, mut silent) = (console, Silent);
    if leads {
        console.wait(READING);
    }
    let progress: &mut dyn Progress = if leads { &mut console } else { &mut silent };
    let mut context = Context { clock: &clock, progress, stop: signals.stop(), group, cache: None };
    let report = trainer::run(recipe, start, &mut context)?;
    drop(console);
    if let Outcome::Stopped(step) = report.outcome {
        let root = report.dir.root().display();
        return Err(Stopped(format!(
            "stopped after step {step}; {root} holds a checkpoint: pass --resume to continue"
        ))
        .into());
    }
    if leads { print_report(&report) } else { Ok(()) }
}

fn print_preview(preview: &Preview, format: &str) -> anyhow::Result<()> {
    Ok(print_result(if format == "json" { serde_json::to_string(preview)? } else { preview_text(preview) })?)
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
    let model = report.dir.model();
    print_result(format_args!("model: {}", model.display()))?;
    Ok(print_result(format_args!("to publish it: hf upload OWNER/NAME {}", model.display()))?)
}
