//! Studies: a recipe, its experiment, and a list of questions.

use experiment::{Collected, Grid, Runner};

use crate::error::StudyError;
use crate::question::{Question, Questions};
use crate::recipe::StudyRecipe;

/// A recipe with its experiment and the questions that it knows.
pub struct Study {
    recipe: StudyRecipe,
    runner: Runner,
    questions: Questions,
}

impl Study {
    /// Opens a study that knows `questions`, such as [`questions::ALL`](crate::questions::ALL).
    ///
    /// # Errors
    ///
    /// Those of [`Runner::new`].
    pub fn new(recipe: StudyRecipe, questions: Questions) -> Result<Self, StudyError> {
        Ok(Self { runner: Runner::new(recipe.setup())?, recipe, questions })
    }

    /// Returns the recipe.
    pub fn recipe(&self) -> &StudyRecipe {
        &self.recipe
    }

    /// Returns the experiment.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// Returns the experiment alone.
    pub(crate) fn into_runner(self) -> Runner {
        self.runner
    }

    /// Returns the questions that the study knows.
    pub fn questions(&self) -> Questions {
        self.questions
    }

    /// Returns the joint grid of `asked`, including cells that depend on stored results.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn grid(&self, asked: &[&dyn Question]) -> Result<Grid, StudyError> {
        let mut grid = Grid::default();
        for question in asked {
            grid.join(match question.grid_of_results(&self.recipe, &self.runner)? {
                Some(grid) => grid,
                None => question.grid(&self.recipe),
            });
        }
        Ok(grid)
    }

    /// Reads the results of a question; `None` unless its grid is complete.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn stored(&self, question: &dyn Question) -> Result<Option<Collected>, StudyError> {
        Ok(self.runner.stored(&self.grid(&[question])?)?)
    }
}
