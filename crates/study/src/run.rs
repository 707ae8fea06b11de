//! Running a study: plan, shards, answers, and the registry of its cells.

use std::num::NonZeroU64;
use std::path::Path;

use experiment::{Crew, ExperimentError, Failure, Grid, Plan, Registry, Role, Shard};
use trainer::{Clock, Context};

use crate::conclusion::{Findings, conclude};
use crate::error::StudyError;
use crate::manifest;
use crate::people;
use crate::question::{Question, Questions};
use crate::study::Study;

impl Study {
    /// Returns the work of `asked` with a forecast for a study with so many `processes`; nothing runs.
    ///
    /// # Errors
    ///
    /// Those of [`Runner::plan`](experiment::Runner::plan) and [`Runner::forecast`](experiment::Runner::forecast).
    pub fn plan(
        &self,
        asked: &[&dyn Question],
        processes: NonZeroU64,
        clock: &dyn Clock,
    ) -> Result<Plan, StudyError> {
        let grid = self.grid(asked)?;
        Ok(self.runner().forecast(self.runner().plan(&grid)?, &grid, processes, clock)?)
    }

    /// Computes the part of the grid of `asked` that `role` has, without tables.
    ///
    /// Another process has recorded the questions and removed the failures that are to be retried, or
    /// [`begin_shard`](Self::begin_shard) has.
    ///
    /// # Errors
    ///
    /// Those of [`Runner::run`](experiment::Runner::run).
    pub fn run_shard(
        &self,
        asked: &[&dyn Question],
        role: Role,
        context: &mut Context<'_>,
    ) -> Result<(), StudyError> {
        Ok(self.runner().run(&self.grid(asked)?, role, context)?)
    }

    /// Records the questions of a shard that no other process has recorded, and forgets its failures.
    ///
    /// # Errors
    ///
    /// Those of [`Runner::check`](experiment::Runner::check); if the folder cannot be written.
    pub fn begin_shard(&self, asked: &[&dyn Question], shard: Shard) -> Result<(), StudyError> {
        let grid = self.grid(asked)?;
        self.runner().check(&grid)?;
        self.begin(asked)?;
        Ok(self.runner().forget_failures(&grid, shard)?)
    }

    /// Computes the grid of `asked` and writes tables, figures and report. Returns `None` on ranks other than rank 0.
    ///
    /// # Errors
    ///
    /// Those of [`Runner::run_all`](experiment::Runner::run_all), and [`ExperimentError::AllFailed`].
    pub fn answer(
        &self,
        asked: &[&dyn Question],
        crew: &Crew<'_>,
        context: &mut Context<'_>,
    ) -> Result<Option<Findings>, StudyError> {
        // A file of ratings that cannot be read is an error before hours of training.
        people::check(self.recipe())?;
        let computed = self.runner().run_all(|| self.grid(asked), || self.begin(asked), crew, context);
        for cost in self.runner().costs() {
            tracing::info!("judging costs: {cost}");
        }
        let grid = computed?;
        if !crew.is_main() {
            return Ok(None);
        }
        let failures = self.runner().failures(&grid)?;
        let (failed, policies) = (failures.len(), grid.trained());
        if let Some(Failure { subject, reason }) = failures.first().filter(|_| failed == policies) {
            let (what, reason) = (subject.to_string(), reason.clone());
            return Err(ExperimentError::AllFailed { policies, what, reason }.into());
        }
        context.progress.begin("computing tables and report", 1);
        let findings = conclude(self, asked);
        context.progress.end();
        let findings = findings?;
        tracing::info!("report: {}", findings.report.display());
        let incomplete = (failed > 0).then(|| ExperimentError::SomeFailed { failed, policies }.into());
        Ok(Some(Findings { incomplete, ..findings }))
    }

    /// Records in the study's folder that `asked` are being computed, for readers of an unfinished folder.
    fn begin(&self, asked: &[&dyn Question]) -> Result<(), StudyError> {
        let output = self.runner().output();
        asked.iter().try_for_each(|question| manifest::begin(&output, *question, self.recipe()))
    }
}

/// Lists the cells in the output folder of a study that knows `questions`.
///
/// # Errors
///
/// [`StudyError::NoStudy`] for another folder; if the store cannot be read.
pub fn registry(folder: &Path, questions: Questions) -> Result<Registry, StudyError> {
    let mut studies: Vec<(Study, Vec<(usize, Grid)>)> = Vec::new();
    for (at, recipe) in manifest::begun(folder, questions)? {
        let known = studies.iter().position(|(study, _)| *study.recipe() == recipe);
        let place = match known {
            Some(place) => place,
            None => {
                studies.push((Study::new(recipe, questions)?, Vec::new()));
                studies.len() - 1
            }
        };
        let (study, grids) = &mut studies[place];
        grids.push((at, study.grid(&[questions[at]])?));
    }
    if studies.is_empty() {
        return Err(StudyError::NoStudy { folder: folder.to_owned() });
    }
    let names = questions.iter().map(|question| question.about().name.to_owned()).collect();
    Ok(Registry::new(folder, names, studies.into_iter().map(|(study, grids)| (study.into_runner(), grids)))?)
}
