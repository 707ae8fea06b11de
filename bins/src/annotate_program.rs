//! `annotate`: candidates, labels from a model, pairs, and looking at records and labels.

mod costs;
mod llm;
mod pairs;
mod sample;
mod score;
mod show;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pref_data::{
    Format, PairColumns, PreferenceRecord, ReadOptions, ReadReport, Sample, ScoreRatio, read_records_with,
};
use seeds::Seeds;

use crate::program::Signals;

/// Label preferences with a model, and see what the labels of any annotator are worth.
#[derive(Debug, Parser)]
#[command(name = "annotate", version)]
pub(crate) struct Annotate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Sample(sample::SampleArgs),
    Llm(Box<llm::LlmArgs>),
    Pairs(pairs::PairsArgs),
    Score(score::ScoreArgs),
    Stats(show::StatsArgs),
    Show(show::ShowArgs),
}

impl Annotate {
    /// What is logged unless `RUST_LOG` chooses.
    pub(crate) fn logged(&self) -> &'static str {
        match &self.command {
            Command::Score(args) => args.logged(),
            _ => "info",
        }
    }

    /// Does what the arguments ask for.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with files, endpoint or model.
    pub(crate) fn run(&self, signals: &Signals) -> anyhow::Result<()> {
        match &self.command {
            Command::Sample(args) => args.run(signals),
            Command::Llm(args) => args.run(signals),
            Command::Pairs(args) => args.run(),
            Command::Score(args) => args.run(signals),
            Command::Stats(args) => args.run(),
            Command::Show(args) => args.run(),
        }
    }
}

/// The records.
#[derive(Debug, Args)]
struct Data {
    /// A file of preferences or a folder of files
    #[arg(value_name = "DATA")]
    path: PathBuf,
    /// How the file is laid out
    #[arg(long, value_enum, default_value_t = FormatArg::Records)]
    layout: FormatArg,
    /// Columns of pairs with other names: prompt=ask,chosen=good; the keys are those of data.columns in a recipe
    #[arg(long, value_name = "KEY=COLUMN,...", value_parser = columns)]
    columns: Option<PairColumns>,
    /// Skip up to N bad rows
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip_bad: usize,
    /// Take N random records
    #[arg(long, value_name = "N")]
    sample: Option<NonZeroUsize>,
    /// The seed of what is random
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
}

/// How a file of preferences is laid out.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FormatArg {
    /// Records of this program
    Records,
    /// prompt, chosen, rejected
    Pairs,
    /// GAIR's preference-dissection
    Gair,
    /// UltraFeedback, as published with ratings
    Ultrafeedback,
    /// Stanford Human Preferences, pairs with more than twice the votes
    Shp,
    /// Anthropic's hh-rlhf
    HhRlhf,
}

impl FormatArg {
    pub(crate) fn format(self) -> Format {
        match self {
            Self::Records => Format::Records,
            Self::Pairs => Format::Pairs,
            Self::Gair => Format::Gair,
            Self::Ultrafeedback => Format::Ultrafeedback,
            Self::Shp => Format::Shp(ScoreRatio::PAPER),
            Self::HhRlhf => Format::HhRlhf,
        }
    }
}

impl Data {
    fn read(&self) -> anyhow::Result<Vec<PreferenceRecord>> {
        Ok(self.read_with_report()?.0)
    }

    fn read_with_report(&self) -> anyhow::Result<(Vec<PreferenceRecord>, ReadReport)> {
        let format = self.layout.format();
        let sample = self.sample.map(|records| Sample { records, seeds: Seeds::new(self.seed) });
        let options = ReadOptions { format, columns: self.columns.clone(), skip_bad: self.skip_bad, sample };
        let (records, report) = read_records_with(&self.path, &options)?;
        for error in &report.skipped {
            tracing::warn!("skipped: {error}");
        }
        Ok((records, report))
    }
}

/// Parses `KEY=COLUMN,…` into columns by role.
pub(crate) fn columns(text: &str) -> Result<PairColumns, String> {
    let pair = |pair: &str| {
        let (key, column) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not KEY=COLUMN"))?;
        Ok((key.trim().to_owned(), column.trim().into()))
    };
    let columns: serde_json::Map<_, _> = text.split(',').map(pair).collect::<Result<_, String>>()?;
    serde_json::from_value(columns.into()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_keys_of_a_recipe() {
        let parsed = columns("prompt=ask, chosen = good").expect("two columns");
        assert_eq!((parsed.prompt.as_deref(), parsed.chosen.as_deref()), (Some("ask"), Some("good")));
        assert!(columns("prompt").expect_err("no column").contains("is not KEY=COLUMN"));
        assert!(columns("promt=ask").expect_err("no such key").contains("unknown field `promt`"));
    }
}
