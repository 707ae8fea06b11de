//! The weights of finished runs, which take most of a study's disk space.

use std::fs;
use std::path::Path;

use super::Runner;
use crate::cell::{Cell, Subject};
use crate::error::ExperimentError;
use crate::grid::Grid;
use crate::setup::Keep;

impl Runner {
    /// Returns whether a subject of `cell` needs no training: its run is in the store, with weights unless it has answered.
    /// Removes a run whose weights were dropped and are needed again.
    pub(super) fn needs_no_training(&self, subject: &Subject, cell: &Cell) -> Result<bool, ExperimentError> {
        let Some(dir) = self.finished(cell) else { return Ok(false) };
        if weights_in(&dir.model())?.next().is_some() || self.has_answered(subject)? {
            return Ok(true);
        }
        tracing::info!(
            "{cell} is trained again: its weights were dropped, and another checkpoint is to answer"
        );
        fs::remove_dir_all(dir.root()).map_err(ExperimentError::io("cannot remove", dir.root()))?;
        Ok(false)
    }

    /// Removes the weights of a cell once all its subjects in `grid` have answered, unless the setup keeps them.
    pub(super) fn drop_weights(&self, grid: &Grid, cell: &Cell) -> Result<(), ExperimentError> {
        let Some(dir) = self.finished(cell) else { return Ok(()) };
        if self.setup().store.keep == Keep::All || self.given.of(cell).is_some() {
            return Ok(());
        }
        for subject in grid.subjects() {
            let is_of_cell = matches!(subject, Subject::Trained { cell: of, .. } if of == cell);
            if is_of_cell && !self.has_answered(subject)? {
                return Ok(());
            }
        }
        let checkpoints = dir.list_checkpoints()?.into_iter().map(|(_, folder)| folder);
        checkpoints.chain([dir.model(), dir.adapter()]).try_for_each(|folder| remove_weights(&folder))
    }

    /// Returns whether the answers of a subject are in the store, so that its weights are not needed.
    fn has_answered(&self, subject: &Subject) -> Result<bool, ExperimentError> {
        if self.is_evaluated(subject) || self.source().is_sandbox() {
            return Ok(self.is_evaluated(subject));
        }
        let (candidates, _) = self.candidates(subject)?;
        for candidate in candidates {
            if !candidate.has_answers(self.source().questions())? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Removes the weights from a model's folder, if it exists. Its checksums are first those of the other files.
fn remove_weights(folder: &Path) -> Result<(), ExperimentError> {
    let weights: Vec<String> = weights_in(folder)?.collect();
    if weights.is_empty() {
        return Ok(());
    }
    let failed = || ExperimentError::io("cannot remove the weights of", folder);
    let others = names_in(folder)?.filter(|name| name != files::MANIFEST && !weights.contains(name));
    files::seal_files(folder, files::MANIFEST, &others.collect::<Vec<_>>()).map_err(failed())?;
    weights.iter().try_for_each(|name| fs::remove_file(folder.join(name))).map_err(failed())
}

/// Returns the files of weights in a model's folder.
fn weights_in(folder: &Path) -> Result<impl Iterator<Item = String>, ExperimentError> {
    let is_weights =
        |name: &String| name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
    Ok(names_in(folder)?.filter(is_weights))
}

/// Returns the names of the files in a folder; none if it does not exist.
fn names_in(folder: &Path) -> Result<impl Iterator<Item = String>, ExperimentError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(ExperimentError::io("cannot read", folder))?),
    };
    let files = entries.into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
    Ok(files.filter_map(|entry| entry.file_name().into_string().ok()))
}
