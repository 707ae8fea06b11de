//! `study compare`: scores from anywhere.

use std::convert::Infallible;
use std::str::FromStr;

use clap::Args;
use compare::{Options, Source, compare, read_scores, to_csv, to_json};
use report::table::Format;

use crate::program::print_result;

/// Width of tables on a terminal.
const WIDTH: usize = 80;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Scores: a CSV, JSON or parquet file with `arm`, `question`, `score` and optionally `seed`, `sample`, `turn`, `category`,
    /// `scorer`; a study's folder; lm-evaluation-harness samples; a data frame of inspect_ai; FastChat's judgments. ARM=PATH or
    /// ARM@SEED=PATH names the arm of a file
    #[arg(value_name = "SCORES", required = true, value_parser = source)]
    scores: Vec<Source>,
    /// Compare every other arm with this one [default: all pairs]
    #[arg(long, value_name = "ARM")]
    baseline: Option<String>,
    /// Compare two arms, as A-B
    #[arg(long = "contrast", value_name = "A-B")]
    contrasts: Vec<String>,
    /// Only the scores of this scorer [default: each scorer by itself]
    #[arg(long, value_name = "NAME")]
    scorer: Option<String>,
    /// Confidence level of the intervals and of the corrected tests
    #[arg(long, default_value_t = 0.95)]
    level: f64,
    /// The effect for which the sample is computed, in score points [default: each estimated difference]
    #[arg(long, value_name = "POINTS")]
    effect: Option<f64>,
    /// Format: text, json and csv (one row a contrast), md, tex
    #[arg(long, default_value = "text", value_parser = Format::from_str)]
    format: Format,
}

fn source(text: &str) -> Result<Source, Infallible> {
    text.parse()
}

impl CompareArgs {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let scores = read_scores(&self.scores)?;
        for note in scores.notes() {
            tracing::info!("{note}");
        }
        let options = Options {
            baseline: self.baseline.clone(),
            contrasts: self.contrasts.clone(),
            scorer: self.scorer.clone(),
            level: self.level,
            effect: self.effect,
        };
        let comparisons = compare(&scores, &options)?;
        for note in comparisons.iter().filter_map(|comparison| comparison.left_out_note()) {
            tracing::warn!("{note}");
        }
        match self.format {
            Format::Json => print_result(to_json(&comparisons))?,
            Format::Csv => print_result(to_csv(&comparisons).trim_end())?,
            Format::Text => {
                for comparison in &comparisons {
                    print_result(comparison.table().render_within(WIDTH))?;
                }
            }
            Format::Markdown | Format::Latex => {
                for comparison in &comparisons {
                    print_result(comparison.table().render(self.format))?;
                }
            }
        }
        Ok(())
    }
}
