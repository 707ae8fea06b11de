//! Grids: the subjects of an experiment.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use pref_data::{FlipRate, Fraction};
use pref_loss::Beta;
use trainer::recipe::LossKind;

use crate::cell::{Cell, Subject};

/// The subjects to evaluate, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    subjects: Vec<Subject>,
    /// How often a subject was requested.
    requested: usize,
}

/// The values of each property of a cell; a grid has their product.
#[derive(Clone, Debug)]
pub struct Axes<'a> {
    /// Sources of labels.
    pub annotators: &'a [String],
    /// Shares of the pairs, each with its epochs if these differ from the setup's.
    pub volumes: Vec<(Fraction, Option<NonZeroU64>)>,
    /// Shares of flipped labels.
    pub flip_rates: Vec<FlipRate>,
    /// Losses.
    pub losses: &'a [LossKind],
    /// Values of β.
    pub betas: &'a [Beta],
    /// Values of β of single losses, in place of `betas`.
    pub loss_betas: &'a BTreeMap<LossKind, Vec<Beta>>,
    /// Number of seeds.
    pub seeds: u64,
}

impl Grid {
    /// Returns a grid of the supervised policy with each of `seeds` seeds.
    pub fn baselines(seeds: u64) -> Self {
        let mut grid = Self::default();
        for seed in 0..seeds {
            grid.add(Subject::Baseline { seed });
        }
        grid
    }

    /// Adds `cell` at each of the `checkpoints`, by index.
    pub fn add_cell(&mut self, cell: &Cell, checkpoints: impl IntoIterator<Item = usize>) {
        for checkpoint in checkpoints {
            self.add(Subject::Trained { cell: cell.clone(), checkpoint });
        }
    }

    /// Adds the subjects of another grid.
    pub fn join(&mut self, other: Self) {
        let requested = self.requested + other.requested;
        for subject in other.subjects {
            self.add(subject);
        }
        self.requested = requested;
    }

    /// Returns the subjects that `earlier` does not have.
    #[must_use]
    pub fn beyond(&self, earlier: &Self) -> Self {
        let new = self.subjects.iter().filter(|subject| !earlier.subjects.contains(subject));
        let subjects: Vec<Subject> = new.cloned().collect();
        Self { requested: subjects.len(), subjects }
    }

    /// Returns how often a subject was requested, duplicates counted.
    pub fn requested(&self) -> usize {
        self.requested
    }

    /// Returns the number of trained policies.
    pub fn trained(&self) -> usize {
        self.subjects.iter().filter(|subject| matches!(subject, Subject::Trained { .. })).count()
    }

    /// Returns the subjects in order.
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    /// Returns the training runs of the subjects, each once.
    pub fn cells(&self) -> Vec<&Cell> {
        let mut cells: Vec<&Cell> = Vec::new();
        for subject in &self.subjects {
            if let Subject::Trained { cell, .. } = subject
                && !cells.contains(&cell)
            {
                cells.push(cell);
            }
        }
        cells
    }

    fn add(&mut self, subject: Subject) {
        self.requested += 1;
        if !self.subjects.contains(&subject) {
            self.subjects.push(subject);
        }
    }
}

impl Axes<'_> {
    /// Returns every combination. Seeds vary slowest, so that an interrupted experiment has complete replicates.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for seed in 0..self.seeds {
            for annotator in self.annotators {
                for &(fraction, epochs) in &self.volumes {
                    for &flip_rate in &self.flip_rates {
                        for &loss in self.losses {
                            for &beta in self.loss_betas.get(&loss).map_or(self.betas, Vec::as_slice) {
                                let cell = Cell::new(annotator, loss, beta, seed);
                                cells.push(Cell { fraction, flip_rate, epochs, ..cell });
                            }
                        }
                    }
                }
            }
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_has_its_own_betas_or_those_of_all() {
        let betas = |values: &[f64]| -> Vec<Beta> {
            values.iter().map(|value| Beta::new(*value).expect("above 0")).collect()
        };
        let axes = Axes {
            annotators: &["human".to_owned()],
            volumes: vec![(Fraction::ALL, None)],
            flip_rates: vec![FlipRate::NONE],
            losses: &[LossKind::Dpo, LossKind::Simpo],
            betas: &betas(&[0.1, 0.2]),
            loss_betas: &[(LossKind::Simpo, betas(&[2.0]))].into(),
            seeds: 1,
        };
        let cells = axes.cells();
        let found: Vec<(LossKind, f64)> = cells.iter().map(|cell| (cell.loss, cell.beta.get())).collect();
        assert_eq!(found, [(LossKind::Dpo, 0.1), (LossKind::Dpo, 0.2), (LossKind::Simpo, 2.0)]);
    }
}
