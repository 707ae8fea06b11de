//! Research questions: grid, tables, figures and claims of each.

use experiment::{Analysis, Collected, Grid, Runner, Scorers};
use report::figure::Svg;
use report::table::Table;

use crate::claims::Claim;
use crate::error::StudyError;
use crate::recipe::{PaperSet, StudyRecipe};
use crate::study::Study;

/// A research question.
///
/// A question is one type in one file of `questions/`, and one entry of [`ALL`](crate::questions::ALL).
pub trait Question: Sync {
    /// Returns its short name, which is also the name of its file in a study's folder.
    fn name(&self) -> &'static str;

    /// Returns the ids of its tables on the command line: numbers for the paper's tables, names for others.
    fn table_ids(&self) -> &'static [&'static str];

    /// Returns the title of its section in the report, such as `RQ2: volume of preferences`.
    fn title(&self) -> &'static str;

    /// Returns one sentence on its experiment, for the report and the help text of its program.
    fn help(&self) -> &'static str;

    /// Returns the subjects that it evaluates.
    fn grid(&self, recipe: &StudyRecipe) -> Grid;

    /// Returns a grid that depends on stored results; `None` until these are stored, or if no part of the grid depends on
    /// them.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn grid_of_results(&self, study: &Study) -> Result<Option<Grid>, StudyError> {
        let _ = study;
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

    /// Returns the numbers of the paper's tables that print results of this question on a data set.
    fn printed(&self, set: PaperSet) -> &'static [usize] {
        let _ = set;
        &[]
    }
}

/// A figure of a question.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The name of its file.
    pub name: &'static str,
    /// The drawing.
    pub svg: Svg,
    /// The caption.
    pub caption: &'static str,
}

/// The results of a question's grid.
pub struct Results<'a> {
    /// The recipe.
    pub recipe: &'a StudyRecipe,
    /// The experiment.
    pub runner: &'a Runner,
    /// Statistics of the evaluated subjects.
    pub scores: Analysis<'a>,
}

impl<'a> Results<'a> {
    /// Returns the results of `study` in `collected`.
    pub fn new(study: &'a Study, collected: &'a Collected) -> Self {
        let scores = Analysis::new(study.runner().setup(), collected);
        Self { recipe: study.recipe(), runner: study.runner(), scores }
    }

    /// Returns the scorers of the study.
    pub fn scorers(&self) -> Scorers {
        Scorers::of(self.scores.setup)
    }

    /// Returns the index of the last checkpoint.
    pub fn last_checkpoint(&self) -> usize {
        self.scores.last_checkpoint()
    }
}

/// Returns the part of a question's title before the colon.
pub(crate) fn short_title(question: &dyn Question) -> &'static str {
    question.title().split(':').next().unwrap_or_default()
}
