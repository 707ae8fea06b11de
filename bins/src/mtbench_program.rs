//! `mtbench`: questions, answers, judgments and scores in FastChat's files.

mod answer;
mod bundle;
mod endpoint;
mod fastchat_args;
mod fetch;
mod judge;
mod show;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use mtbench::{Answer, BadLines, BenchDir, FixedStamp, Mode, Stamp};
use trainer::Clock as _;

use crate::console::SystemClock;
use crate::no_answers::NoAnswers;
use crate::program::Signals;

/// MT-Bench in FastChat's files: answer the questions, judge the answers, show the scores.
#[derive(Debug, Parser)]
#[command(name = "mtbench", version)]
pub(crate) struct MtBench {
    #[command(subcommand)]
    command: Command,
}

impl MtBench {
    /// Returns the log level if `RUST_LOG` is not set.
    pub(crate) fn logged(&self) -> &'static str {
        match &self.command {
            Command::Answer(args) => args.logged(),
            _ => "info",
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Fetch(fetch::FetchArgs),
    Answer(answer::AnswerArgs),
    Judge(judge::JudgeArgs),
    Show(show::ShowArgs),
    Compare(show::CompareArgs),
    Browse(show::BrowseArgs),
    Export(bundle::ExportArgs),
    Import(bundle::ImportArgs),
}

/// The benchmark's folder.
#[derive(Debug, Args)]
struct Data {
    /// The benchmark's folder, laid out as FastChat's `data/mt_bench`
    #[arg(long, value_name = "DIR", required_unless_present = "bench_name")]
    data: Option<PathBuf>,
    /// FastChat's spelling: `--bench-name NAME` is `--data data/NAME`
    #[arg(long, value_name = "NAME", conflicts_with = "data")]
    bench_name: Option<String>,
    /// Leave out lines of its files that are no rows, with a warning, instead of an error
    #[arg(long)]
    skip_bad: bool,
}

impl Data {
    fn folder(&self) -> PathBuf {
        match (&self.data, &self.bench_name) {
            (Some(folder), _) => folder.clone(),
            (None, name) => Path::new("data").join(name.as_deref().unwrap_or_default()),
        }
    }

    fn bench(&self) -> BenchDir {
        let bad_lines = if self.skip_bad { BadLines::Skip } else { BadLines::Refuse };
        BenchDir::new(self.folder()).with_bad_lines(bad_lines)
    }
}

/// How verdicts are parsed and scores are aggregated.
#[derive(Clone, Copy, Debug)]
enum ModeArg {
    Fastchat,
    Strict,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Fastchat => Self::FastChat,
            ModeArg::Strict => Self::Strict,
        }
    }
}

/// Runs the program.
///
/// # Errors
///
/// Any error of the command.
pub(crate) fn mtbench(args: &MtBench, signals: &Signals) -> anyhow::Result<()> {
    match &args.command {
        Command::Fetch(args) => fetch::fetch(args),
        Command::Answer(args) => answer::answer(args, signals),
        Command::Judge(args) => judge::judge(args, signals),
        Command::Show(args) => show::show(args),
        Command::Compare(args) => show::compare(args),
        Command::Browse(args) => show::browse(args),
        Command::Export(args) => bundle::export(args),
        Command::Import(args) => bundle::import(args),
    }
}

/// The answers of `models`, or of all models if none are named.
fn answers(bench: &BenchDir, models: &[String]) -> anyhow::Result<Vec<Answer>> {
    let models = if models.is_empty() { bench.models()? } else { models.to_vec() };
    anyhow::ensure!(!models.is_empty(), NoAnswers { folder: bench.root().join("model_answer") });
    let mut answers = Vec::new();
    for model in &models {
        answers.extend(bench.answers(model).with_context(|| format!("model {model:?}"))?);
    }
    Ok(answers)
}

/// The time of the system's clock, and unique ids of answers.
struct SystemStamp {
    clock: SystemClock,
    ids: FixedStamp,
}

impl SystemStamp {
    fn new(clock: SystemClock, name: &str) -> Self {
        let prefix = format!("{name}-{:.0}", clock.unix_seconds());
        Self { clock, ids: FixedStamp { prefix, tstamp: 0.0 } }
    }
}

impl Stamp for SystemStamp {
    fn answer_id(&mut self, question_id: u64) -> String {
        self.ids.answer_id(question_id)
    }

    fn tstamp(&mut self) -> f64 {
        self.clock.unix_seconds()
    }
}
