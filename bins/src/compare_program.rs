//! `study compare`: scores from anywhere.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use compare::{
    Options, Ratings, Scores, Source, compare, compare_with_ratings, read_scores, to_csv, to_json,
};
use report::table::Format;
use seeds::Seeds;

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
    /// People's ratings of some answers, which correct each difference: a file with `arm`, `question`, `score` and where needed
    /// `seed`, `turn`, `rater`, as `agreement collect` prints it; or the name of a scorer that takes the people's place
    #[arg(long, value_name = "FILE")]
    ratings: Option<PathBuf>,
    /// The number of questions that a scorer in place of people rates, drawn within categories
    #[arg(long, value_name = "N", default_value_t = 20, requires = "ratings")]
    rate: usize,
    /// The seed of the drawn questions
    #[arg(long, default_value_t = 0, requires = "ratings")]
    seed: u64,
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
        let comparisons = match self.ratings(&scores)? {
            None => compare(&scores, &options)?,
            Some(ratings) => compare_with_ratings(&scores, &options, &ratings)?,
        };
        for note in comparisons.iter().filter_map(|comparison| comparison.left_out_note()) {
            tracing::warn!("{note}");
        }
        match self.format {
            Format::Json => print_result(to_json(&comparisons))?,
            Format::Csv => print_result(to_csv(&comparisons).trim_end())?,
            Format::Text => {
                for table in comparisons.iter().flat_map(|comparison| comparison.tables()) {
                    print_result(table.render_within(WIDTH))?;
                }
            }
            Format::Markdown | Format::Latex => {
                for table in comparisons.iter().flat_map(|comparison| comparison.tables()) {
                    print_result(table.render(self.format))?;
                }
            }
        }
        Ok(())
    }

    /// Reads the ratings; an argument that is no file names a scorer.
    fn ratings(&self, scores: &Scores) -> anyhow::Result<Option<Ratings>> {
        let Some(ratings) = &self.ratings else { return Ok(None) };
        Ok(Some(match ratings.is_file() {
            true => Ratings::read(ratings)?,
            false => {
                Ratings::of_scorer(scores, &ratings.display().to_string(), self.rate, &Seeds::new(self.seed))?
            }
        }))
    }
}
