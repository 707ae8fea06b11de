//! `annotate pairs`.

use std::path::PathBuf;

use annotate::{RatedPairs, Strategy, rated_pairs, read_log};
use clap::{Args, ValueEnum};
use pref_data::write_records;
use seeds::Seeds;

use super::Data;
use crate::program::print_result;

/// Make pairs of rated candidates, at most one of each prompt; equal ratings make none
#[derive(Debug, Args)]
pub(super) struct PairsArgs {
    #[command(flatten)]
    data: Data,
    /// The annotations.jsonl of `annotate llm --aspects` about these candidates
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// The file of records with two responses and one label (.jsonl or .jsonl.gz)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which two responses make a pair
    #[arg(long, value_enum, default_value_t = StrategyArg::BestRandom)]
    strategy: StrategyArg,
    /// The largest lead, in rating points, that makes no pair
    #[arg(long, value_name = "LEAD", default_value_t = 0.0, value_parser = super::llm::lead)]
    margin: f64,
}

/// Which two responses make a pair.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StrategyArg {
    /// The highest and the lowest mean rating
    BestWorst,
    /// The highest mean rating and a random one below it
    BestRandom,
    /// The largest lead that holds in both orders and by every aspect
    MaxMargin,
}

impl PairsArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let strategy = match self.strategy {
            StrategyArg::BestWorst => Strategy::BestWorst,
            StrategyArg::BestRandom => Strategy::BestRandom,
            StrategyArg::MaxMargin => Strategy::MaxMargin,
        };
        let (records, log) = (self.data.read()?, read_log(&self.log)?);
        let seeds = Seeds::new(self.data.seed);
        let RatedPairs { records: pairs, tied, unrated } =
            rated_pairs(&records, &log, strategy, self.margin, &seeds)?;
        write_records(&self.out, &pairs)?;
        let (pairs, records) = (pairs.len(), records.len());
        Ok(print_result(format_args!(
            "{pairs} pairs of {records} records, {tied} without a lead, {unrated} unrated"
        ))?)
    }
}
