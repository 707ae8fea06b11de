//! The results of a question's grid, from which its tables, figures and claims are made.

use std::rc::Rc;

use experiment::{Analysis, Collected, Pools, Runner, Scorers, Setup};
use report::figure::Svg;

use crate::recipe::StudyRecipe;

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
    runner: Option<&'a Runner>,
    /// Statistics of the evaluated subjects.
    pub scores: Analysis<'a>,
}

impl<'a> Results<'a> {
    /// Returns the results of `runner` in `collected`.
    pub fn new(recipe: &'a StudyRecipe, runner: &'a Runner, collected: &'a Collected) -> Self {
        Self { recipe, runner: Some(runner), scores: Analysis::new(runner.setup(), collected) }
    }

    /// Returns the results of `runner` in `collected`, which are a part of the study in `pools`.
    pub(crate) fn within(
        recipe: &'a StudyRecipe,
        runner: &'a Runner,
        collected: &'a Collected,
        pools: Rc<Pools<'a>>,
    ) -> Self {
        Self { recipe, runner: Some(runner), scores: Analysis::within(runner.setup(), collected, pools) }
    }

    /// Returns simulated results, of which claims are measured and no tables made.
    pub(crate) fn simulated(recipe: &'a StudyRecipe, setup: &'a Setup, collected: &'a Collected) -> Self {
        Self { recipe, runner: None, scores: Analysis::new(setup, collected) }
    }

    /// Returns the experiment.
    ///
    /// # Panics
    ///
    /// For simulated results, which only this crate makes and of which it makes no tables.
    pub fn runner(&self) -> &'a Runner {
        self.runner.expect("tables are made of an experiment's results")
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
