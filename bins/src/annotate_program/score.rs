//! `annotate score`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pref_data::write_records;
use study::{ScoreReduction, ScoredLabels, label_by_score};
use trainer::Progress as _;
use trainer::recipe::DeviceChoice;

use super::Data;
use crate::console::ConsoleProgress;
use crate::program::print_result;

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
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReductionArg {
    /// The sum of its tokens' log-probabilities
    Sum,
    /// Their mean
    Mean,
}

impl ScoreArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut records = self.data.read()?;
        let labels = ScoredLabels {
            annotator: self.annotator.clone(),
            reduction: match self.reduction {
                ReductionArg::Sum => ScoreReduction::Sum,
                ReductionArg::Mean => ScoreReduction::Mean,
            },
            tie_margin: self.tie_margin,
            max_length: self.max_length,
        };
        let mut progress = ConsoleProgress::stderr();
        progress.begin("records", records.len() as u64);
        let device = DeviceChoice::Auto.resolve();
        let heard = |done: usize| progress.advance(done as u64, "");
        let labelled = label_by_score(&mut records, &labels, &self.model, device, heard)?;
        progress.end();
        write_records(&self.out, &records)?;
        Ok(print_result(format_args!(
            "{labelled} of {} records labelled by {}",
            records.len(),
            self.annotator
        ))?)
    }
}
