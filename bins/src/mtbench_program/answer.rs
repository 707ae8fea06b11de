//! `mtbench answer`.

use std::error::Error;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Args;
use distributed::{DistributedError, Fact, ProcessGroup};
use inference::{DistributedResponder, Ending, LoadedPolicy, model_fact, tokenizer_with_template};
use mtbench::{ANSWER_TOKENS, BenchDir, Conversation, EndpointResponder, Question, Responder, answer_bench};
use pref_data::{ChatSettings, Date};
use seeds::Seeds;
use trainer::recipe::DeviceChoice;
use trainer::{Progress as _, TrainError};

use super::endpoint::EndpointArgs;
use super::{Data, SystemStamp};
use crate::console::{ConsoleProgress, SystemClock};
use crate::launch::{RanksArgs, log_filter, placement};
use crate::program::{Signals, Stopped, print_result};

/// Answer the questions with a model folder or a model behind an endpoint; answers on file are kept
#[derive(Debug, Args)]
pub(super) struct AnswerArgs {
    #[command(flatten)]
    data: Data,
    /// A Hugging Face folder; its chat template renders the questions
    #[arg(
        long,
        visible_alias = "model-path",
        value_name = "DIR",
        conflicts_with = "base_url",
        required_unless_present = "base_url"
    )]
    model: Option<PathBuf>,
    /// The model's name: its file is `model_answer/ID.jsonl`
    #[arg(long, value_name = "ID")]
    model_id: String,
    /// A system message before every dialogue; FastChat sends Zephyr an empty one
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The date that the chat template prints: a day (2026-11-29), today, or none
    #[arg(long, value_name = "DAY", value_parser = crate::program::date, conflicts_with = "base_url")]
    date: Option<Date>,
    /// The longest answer, in tokens
    #[arg(long, visible_alias = "max-new-token", value_name = "N", default_value_t = ANSWER_TOKENS)]
    max_new_tokens: u32,
    /// Conversations answered at a time by a model folder
    #[arg(long, value_name = "N", default_value = "32")]
    wave: NonZeroU16,
    /// The seed of sampled answers of a model folder
    #[arg(long, value_name = "SEED", default_value = "0")]
    seed: u64,
    /// The device of a model folder: auto, cpu, cuda or cuda:N; each of several processes takes the GPU of its number
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: DeviceChoice,
    #[command(flatten)]
    ranks: RanksArgs,
    /// Seconds that processes that answer together wait for each other; longer than one wave takes
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = clap::value_parser!(u64).range(1..))]
    rank_timeout: u64,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

fn device(text: &str) -> Result<DeviceChoice, String> {
    DeviceChoice::try_from(text.to_owned())
}

/// The remedy after an interruption.
const GOES_ON: &str = "answers on file are kept: run the same command to resume";

impl AnswerArgs {
    fn chat(&self) -> ChatSettings {
        ChatSettings { date: self.date.unwrap_or_default(), ..ChatSettings::default() }
    }

    pub(super) fn logged(&self) -> &'static str {
        if self.model.is_some() { log_filter(&placement()) } else { "info" }
    }
}

pub(super) fn answer(args: &AnswerArgs, signals: &Signals) -> anyhow::Result<()> {
    let bench = args.data.bench();
    match &args.model {
        Some(folder) if args.ranks.is_launcher() => {
            // Bad input is reported once, on the node that has the benchmark's folder.
            if args.ranks.node_rank == 0 {
                bench.questions()?;
            }
            bench.answer_file(&args.model_id)?;
            tokenizer_with_template(folder, &args.chat())
                .with_context(|| format!("model {}", folder.display()))?;
            args.ranks.launch(true, GOES_ON, signals)
        }
        Some(folder) => answer_in_rank(args, &bench, folder, signals),
        None => answer_from_endpoint(args, &bench, signals),
    }
}

fn answer_from_endpoint(args: &AnswerArgs, bench: &BenchDir, signals: &Signals) -> anyhow::Result<()> {
    let questions = bench.questions()?;
    // A name that cannot be a file name is an error before the first call.
    let path = bench.answer_file(&args.model_id)?;
    let client = args.endpoint.client(&args.model_id, bench.root())?;
    let sampling = args.endpoint.sampling(0.0, args.max_new_tokens);
    let model = args.endpoint.endpoint_model(&args.model_id);
    let mut responder = EndpointResponder {
        model,
        system: args.system.as_deref(),
        sampling: &sampling,
        client: &client,
        stop: signals.stop(),
    };
    // The client stores what it receives: groups are not needed.
    write(args, bench, &questions, NonZeroUsize::MAX, &mut responder)?;
    Ok(print_result(path.display())?)
}

/// One of the processes that answer with a model folder, or the only one.
fn answer_in_rank(
    args: &AnswerArgs,
    bench: &BenchDir,
    folder: &Path,
    signals: &Signals,
) -> anyhow::Result<()> {
    let group = args.ranks.join(placement()?.as_ref(), args.device, args.rank_timeout, signals)?;
    let answered = answer_together(args, bench, folder, &group, signals);
    answered.inspect_err(|error| {
        if !error.is::<Stopped>() {
            group.abort(error.as_ref());
        }
    })
}

fn answer_together(
    args: &AnswerArgs,
    bench: &BenchDir,
    folder: &Path,
    group: &ProcessGroup,
    signals: &Signals,
) -> anyhow::Result<()> {
    let questions = if group.is_main() { bench.questions()? } else { Vec::new() };
    let path = bench.answer_file(&args.model_id)?;
    let device = group.device().unwrap_or_else(|| args.device.resolve());
    let model = LoadedPolicy::open_on(folder, device, &args.chat())
        .with_context(|| format!("model {}", folder.display()))?;
    group.check_agreement(|| {
        let copy = "copy the model's folder from rank 0";
        let AnswerArgs { system, date, max_new_tokens, wave, seed, .. } = args;
        let command = format!("{system:?}\n{date:?}\n{max_new_tokens}\n{wave}\n{seed:?}");
        let same = "start all ranks with the same --system, --date, --max-new-tokens, --wave and --seed";
        Ok::<_, TrainError>(vec![
            model_fact(folder, copy)?,
            Fact { what: "way of answering", value: command, remedy: same },
        ])
    })?;
    let mut responder =
        model.responder(Seeds::new(args.seed).child("answers"), args.max_new_tokens, args.wave.get());
    responder.system.clone_from(&args.system);
    let mut together = DistributedResponder { responder, group: group.clone() };
    let stopped = || Stopped(format!("stopped; {GOES_ON}"));
    if !group.is_main() {
        return match together.follow().map_err(in_own_words)? {
            Ending::Finished => Ok(()),
            Ending::Stopped => Err(stopped().into()),
        };
    }
    let mut console = ConsoleProgress::stderr();
    let turns: usize = questions.iter().map(|question| question.turns.len()).sum();
    console.begin("answering, turns", turns as u64);
    // A wave for each rank.
    let waves = NonZeroUsize::from(args.wave).saturating_mul(group.world_size());
    let mut watched = Watched { responder: &mut together, console, turns: 0, stop: signals.stop() };
    let written = write(args, bench, &questions, waves, &mut watched);
    watched.console.end();
    match &written {
        Ok(()) => together.end(Ending::Finished).map_err(in_own_words)?,
        Err(error) if error.is::<Stopped>() => together.end(Ending::Stopped).map_err(in_own_words)?,
        Err(_) => {}
    }
    written?;
    Ok(print_result(path.display())?)
}

/// The error in the type from which the exit status is derived.
fn in_own_words(error: Box<dyn Error + Send + Sync>) -> anyhow::Error {
    match error.downcast::<DistributedError>() {
        Ok(error) => anyhow::Error::from(*error),
        Err(error) => anyhow::Error::from_boxed(error),
    }
}

fn write(
    args: &AnswerArgs,
    bench: &BenchDir,
    questions: &[Question],
    group: NonZeroUsize,
    responder: &mut dyn Responder,
) -> anyhow::Result<()> {
    let mut stamp = SystemStamp::new(SystemClock::start(), &args.model_id);
    let answered = answer_bench(bench, questions, &args.model_id, group, responder, &mut stamp);
    answered.map_err(|error| match error {
        mtbench::Error::Respond { source, .. } if is_stop(&*source) => Stopped(source.to_string()).into(),
        mtbench::Error::Respond { source, .. } if source.is::<DistributedError>() => in_own_words(source),
        error => error.into(),
    })
}

fn is_stop(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    error.is::<Stopped>() || matches!(error.downcast_ref(), Some(llm_client::Error::Stopped))
}

/// Shows the progress, and stops between waves.
struct Watched<'a> {
    responder: &'a mut dyn Responder,
    console: ConsoleProgress,
    /// Turns answered so far.
    turns: u64,
    stop: &'a AtomicBool,
}

impl Responder for Watched<'_> {
    fn respond(
        &mut self,
        conversations: &[Conversation<'_>],
    ) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Stopped(format!("stopped; {GOES_ON}")).into());
        }
        let answers = self.responder.respond(conversations)?;
        self.turns += answers.len() as u64;
        self.console.advance(self.turns, "");
        Ok(answers)
    }
}
