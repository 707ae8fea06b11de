//! `--design`: simulations of a study before it runs.

use std::path::PathBuf;

use clap::Args;
use report::table::Table;
use study::recipe::StudyRecipe;
use study::{Assumptions, JudgeFit, Question, Spread, design};
use trainer::Progress;

/// The simulation of a study.
#[derive(Debug, Args)]
pub(crate) struct DesignArgs {
    /// Simulate studies of this size with known effects, and show their power, coverage and false alarms. Neither a model nor
    /// data are needed, and nothing is judged
    #[arg(long, conflicts_with_all = ["plan", "shard"])]
    pub(crate) design: bool,
    /// An earlier study, such as a pilot with two seeds, whose scores show how much policies, seeds and answers differ [default:
    /// assumed values]
    #[arg(long, value_name = "DIR", requires = "design")]
    like: Option<PathBuf>,
    /// Ratings of the same answers by the judge and by people, some 200: a CSV file with the columns `judge` and `people`.
    /// Effects are then in people's points. A column `characters` shows the judge's length bias, which is simulated too
    #[arg(long, value_name = "FILE", requires = "design")]
    votes: Option<PathBuf>,
    /// The standard deviation between policies of the mean of log2(characters) of their answers, for the length bias
    /// [default: that of --like, or 0.3]
    #[arg(long, value_name = "DOUBLINGS", requires = "votes", value_parser = doublings)]
    length_spread: Option<f64>,
    /// Simulated studies of each effect
    #[arg(long, value_name = "N", default_value_t = 200, requires = "design")]
    #[arg(value_parser = clap::value_parser!(u16).range(20..))]
    studies: u16,
}

impl DesignArgs {
    /// Simulates the study and returns its tables.
    pub(crate) fn tables(
        &self,
        recipe: &StudyRecipe,
        asked: &[&dyn Question],
        progress: &mut dyn Progress,
    ) -> anyhow::Result<Vec<Table>> {
        let (spread, source) = match &self.like {
            Some(folder) => (Spread::of_study(folder)?, format!("measured in {}", folder.display())),
            None => (Spread::TYPICAL, "assumed (--like measures them in an earlier study)".to_owned()),
        };
        let spread = Spread { length: self.length_spread.unwrap_or(spread.length), ..spread };
        let judge = self.votes.as_deref().map(JudgeFit::read).transpose()?;
        let assumed = Assumptions { spread, source, judge, studies: self.studies.into() };
        Ok(design(recipe, asked, &assumed, progress)?)
    }
}

/// Parses a number of doublings.
fn doublings(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "give a number of doublings, 0 or more".to_owned())
}
