//! `mtbench answer`.

use std::error::Error;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Args;
use mtbench::{ANSWER_TOKENS, BenchDir, Conversation, EndpointResponder, Question, Responder, answer_bench};
use seeds::Seeds;
use study::LoadedPolicy;
use trainer::Progress as _;

use super::endpoint::EndpointArgs;
use super::{Data, SystemStamp};
use crate::console::{ConsoleProgress, SystemClock};
use crate::program::{Signals, Stopped, print_result};

/// Answer the questions with a model folder or a model behind an endpoint; answers on file are kept
#[derive(Debug, Args)]
pub(super) struct AnswerArgs {
    #[command(flatten)]
    data: Data,
    /// A Hugging Face folder; its chat template says how questions are put
    #[arg(long, value_name = "DIR", conflicts_with = "base_url", required_unless_present = "base_url")]
    model: Option<PathBuf>,
    /// The model's name: its file is `model_answer/ID.jsonl`
    #[arg(long, value_name = "ID")]
    model_id: String,
    /// A system message before every dialogue; an empty one is what FastChat puts before Zephyr's
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = ANSWER_TOKENS)]
    max_new_tokens: u32,
    /// Conversations answered at a time by a model folder
    #[arg(long, value_name = "N", default_value = "32")]
    wave: NonZeroU16,
    /// What sampled answers of a model folder draw from
    #[arg(long, value_name = "SEED", default_value = "0")]
    seed: u64,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

pub(super) fn answer(args: &AnswerArgs, signals: &Signals) -> anyhow::Result<()> {
    let bench = args.data.bench();
    let questions = bench.questions()?;
    // A name that cannot be a file's is known before the model is asked.
    let path = bench.answer_file(&args.model_id)?;
    match &args.model {
        Some(folder) => {
            let model = LoadedPolicy::open(folder).with_context(|| format!("model {}", folder.display()))?;
            let mut policy =
                model.responder(Seeds::new(args.seed).child("answers"), args.max_new_tokens, args.wave.get());
            policy.system.clone_from(&args.system);
            let mut console = ConsoleProgress::stderr();
            let turns: usize = questions.iter().map(|question| question.turns.len()).sum();
            console.begin("answering, turns", turns as u64);
            let mut watched = Watched { responder: &mut policy, console, turns: 0, stop: signals.stop() };
            write(args, &bench, &questions, args.wave.into(), &mut watched)?;
            watched.console.end();
        }
        None => {
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
            // What the client received is kept by the client: no need to go in groups.
            write(args, &bench, &questions, NonZeroUsize::MAX, &mut responder)?;
        }
    }
    Ok(print_result(path.display())?)
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
    answered.map_err(|error| match &error {
        mtbench::Error::Respond { source, .. } if is_stop(&**source) => Stopped(source.to_string()).into(),
        _ => anyhow::Error::from(error),
    })
}

fn is_stop(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    error.is::<Stopped>() || matches!(error.downcast_ref(), Some(llm_client::Error::Stopped))
}

/// Shows how far it is, and stops between waves.
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
            return Err(Stopped("stopped; answers on file are kept: run again to go on".to_owned()).into());
        }
        let answers = self.responder.respond(conversations)?;
        self.turns += answers.len() as u64;
        self.console.advance(self.turns, "");
        Ok(answers)
    }
}
