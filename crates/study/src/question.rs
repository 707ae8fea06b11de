//! Research questions: grid, tables, figures and claims of each.

use experiment::{Grid, Runner};
use report::table::Table;

use crate::claims::{Claim, Headline};
use crate::error::StudyError;
use crate::recipe::{PaperSet, StudyRecipe};
use crate::results::{Figure, Results};

/// A list of questions, in the order of the report.
pub type Questions = &'static [&'static dyn Question];

/// The names and the help text of a question.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The short name, which is also the name of its file in a study's folder.
    pub name: &'static str,
    /// The ids of its tables on the command line: numbers for the paper's tables, names for others.
    pub tables: &'static [&'static str],
    /// The title of its section in the report, such as `RQ2: volume of preferences`.
    pub title: &'static str,
    /// One sentence on its experiment, for the report and the help text of its program.
    pub help: &'static str,
}

/// A research question.
///
/// A question is one type in one file of `questions/`, and one entry of [`ALL`](crate::questions::ALL).
pub trait Question: Sync {
    /// Returns its names and its help text.
    fn about(&self) -> About;

    /// Returns whether a study asks it only by name, since it takes much longer than the others.
    fn is_on_request(&self) -> bool {
        false
    }

    /// Returns the subjects that it evaluates.
    fn grid(&self, recipe: &StudyRecipe) -> Grid;

    /// Returns a grid that depends on stored results; `None` until these are stored, or if no part of the grid depends on
    /// them.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn grid_of_results(&self, recipe: &StudyRecipe, runner: &Runner) -> Result<Option<Grid>, StudyError> {
        let _ = (recipe, runner);
        Ok(None)
    }

    /// Returns its tables.
    ///
    /// # Errors
    ///
    /// If a statistic is not defined or a file cannot be read.
    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError>;

    /// Returns its figures.
    ///
    /// # Errors
    ///
    /// If a statistic is not defined.
    fn figures(&self, results: &Results<'_>) -> Result<Vec<Figure>, StudyError> {
        let _ = results;
        Ok(Vec::new())
    }

    /// Returns the claims that its scores can test, in the order of the paper's tables.
    ///
    /// # Errors
    ///
    /// If a statistic is not defined.
    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let _ = results;
        Ok(Vec::new())
    }

    /// Returns the plain questions that it answers, with the comparison for each.
    ///
    /// # Errors
    ///
    /// If a statistic is not defined.
    fn headlines<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Headline<'a>>, StudyError> {
        let _ = results;
        Ok(Vec::new())
    }

    /// Returns the numbers of the paper's tables that print results of this question on a data set.
    fn printed(&self, set: PaperSet) -> &'static [usize] {
        let _ = set;
        &[]
    }
}

impl About {
    /// Returns the part of the title before the colon.
    pub(crate) fn short_title(self) -> &'static str {
        self.title.split(':').next().unwrap_or_default()
    }
}
