//! `annotate score`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use distributed::ProcessGroup;
use inference::{InferenceError, LikelihoodAnnotator, ScoreReduction};
use pref_data::{ChatSettings, Date, Tokenizer, write_records};
use trainer::recipe::DeviceChoice;
use trainer::{Progress, Silent};

use super::Data;
use crate::console::ConsoleProgress;
use crate::launch::{RanksArgs, log_filter, placement};
use crate::program::{Signals, Stopped, print_result};

/// Let a model on this machine prefer the response that it finds more probable
#[derive(Debug, Args)]
pub(super) struct ScoreArgs {
    #[command(flatten)]
    data: Data,
    /// Where the records with the new labels go (.jsonl or .jsonl.gz)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The model's Hugging Face folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The annotator's name in the records
    #[arg(long, value_name = "NAME")]
    annotator: String,
    /// What of a response is compared
    #[arg(long, value_enum, default_value_t = ReductionArg::Mean)]
    reduction: ReductionArg,
    /// Scores that differ by no more are a tie, in nats
    #[arg(long, value_name = "NATS", default_value_t = 0.0)]
    tie_margin: f64,
    /// The longest prompt with response, in tokens
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_length: usize,
    /// The date that the chat template prints: a day (2026-11-29), today, or none
    #[arg(long, value_name = "DAY", value_parser = crate::program::date)]
    date: Option<Date>,
    #[command(flatten)]
    ranks: RanksArgs,
    /// How many seconds processes that score together wait for each other: longer than one takes for all that another has done
    /// before it
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = clap::value_parser!(u64).range(1..))]
    rank_timeout: u64,
}

/// The state after an interruption.
const NOTHING_KEPT: &str = "nothing is written before all is scored; start it again";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReductionArg {
    /// The sum of its tokens' log-probabilities
    Sum,
    /// Their mean
    Mean,
}

impl ScoreArgs {
    pub(super) fn logged(&self) -> &'static str {
        log_filter(&placement())
    }

    pub(super) fn run(&self, signals: &Signals) -> anyhow::Result<()> {
        if self.ranks.is_launcher() {
            // What is wrong is said once.
            Tokenizer::from_folder(&self.model).with_context(|| format!("model {}", self.model.display()))?;
            return self.ranks.launch(true, NOTHING_KEPT, signals);
        }
        let device = DeviceChoice::Auto;
        let group = self.ranks.join(placement()?.as_ref(), device, self.rank_timeout, signals)?;
        let scored = self.score(&group, signals);
        scored.inspect_err(|error| {
            if !error.is::<Stopped>() {
                group.abort(error.as_ref());
            }
        })
    }

    /// What each rank does; the first writes.
    fn score(&self, group: &ProcessGroup, signals: &Signals) -> anyhow::Result<()> {
        let mut records = self.data.read()?;
        let annotator = LikelihoodAnnotator {
            name: self.annotator.clone(),
            reduction: match self.reduction {
                ReductionArg::Sum => ScoreReduction::Sum,
                ReductionArg::Mean => ScoreReduction::Mean,
            },
            tie_margin: self.tie_margin,
            max_length: self.max_length,
            chat: ChatSettings { date: self.date.unwrap_or_default(), ..ChatSettings::default() },
        };
        let (mut console, mut silent) = (ConsoleProgress::stderr(), Silent);
        let progress: &mut dyn Progress = if group.is_main() { &mut console } else { &mut silent };
        progress.begin("records", records.len() as u64);
        let device = group.device().unwrap_or_else(|| DeviceChoice::Auto.resolve());
        let heard = |done: usize| {
            progress.advance(done as u64, "");
            if signals.stop().load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let labelled = annotator.label(&mut records, &self.model, device, group, heard);
        let labelled = labelled.map_err(|error| match error {
            InferenceError::Stopped => Stopped(format!("interrupted; {NOTHING_KEPT}")).into(),
            InferenceError::Train(error) => anyhow::Error::from(error),
            error => error.into(),
        })?;
        progress.end();
        if !group.is_main() {
            return Ok(());
        }
        write_records(&self.out, &records)?;
        Ok(print_result(format_args!(
            "{labelled} of {} records labelled by {}",
            records.len(),
            self.annotator
        ))?)
    }
}
