//! Grids: the cells that a research question asks for.

use std::num::NonZeroU64;

use pref_data::{AgreementSlice, FlipRate, Fraction, Keep};
use pref_loss::Beta;
use trainer::recipe::LossKind;

use crate::cell::{Cell, Subject};
use crate::recipe::{StudyRecipe, StudySection};
use crate::sweep::{Chosen, Setting};

/// A research question: the paper's four, its appendix, and what it leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// How the way of acquiring preferences changes what DPO and IPO make of the policy (Tables 1 and 2).
    Acquisition,
    /// What the volume of preferences does (Table 3).
    Volume,
    /// What the quality of labels does, under flip noise (Table 4).
    Quality,
    /// Whether training overfits: scores and training losses at parts of training (Table 5).
    Overfitting,
    /// What β does, in four settings (appendix A.1).
    Strength,
    /// Volume, noise and checkpoints at the β that the sweep chooses (Tables 8 and 9, the tuned columns of Table 5).
    Tuned,
    /// What volume does where it changes the number of optimiser steps no more, which the paper's design confounds.
    EqualSteps,
    /// Whether robust DPO or KTO stand flip noise better than cDPO, which is all that the paper tries.
    RobustLosses,
    /// Whether more epochs overfit: the paper suspects that its two to three were too few.
    LongTraining,
    /// What two annotators' labels come to when they are mixed, and on the records where they agree or differ.
    MixedLabels,
}

/// The subjects that have to be evaluated to answer a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    subjects: Vec<Subject>,
    /// How often a subject was asked for, each question counted by itself.
    asked: usize,
}

/// The values that each property of a cell takes.
#[derive(Clone, Debug)]
struct Axes<'a> {
    annotators: &'a [String],
    /// Each with the passes over it, where these are not the recipe's.
    volumes: Vec<(Fraction, Option<NonZeroU64>)>,
    flip_rates: Vec<FlipRate>,
    losses: &'a [LossKind],
    betas: &'a [Beta],
    seeds: u64,
}

impl Grid {
    /// The grid of `question` under `recipe`.
    pub fn of(question: Question, recipe: &StudyRecipe) -> Self {
        let study = &recipe.study;
        let axes = Axes {
            annotators: &study.annotators,
            volumes: question
                .fractions(study)
                .into_iter()
                .map(|share| (share, question.epochs(share, recipe)))
                .collect(),
            flip_rates: question.flip_rates(study),
            losses: question.losses(study),
            betas: &study.betas,
            seeds: study.seeds,
        };
        let mut grid = Self::default();
        for seed in 0..study.seeds {
            grid.add(Subject::Baseline { seed });
        }
        if matches!(question, Question::Strength | Question::Tuned) {
            grid.sweep(recipe);
            return grid;
        }
        if question == Question::MixedLabels {
            grid.mixed(recipe);
            return grid;
        }
        let checkpoints = recipe.train.checkpoints.len();
        let first = if question.looks_into_training() { 0 } else { checkpoints - 1 };
        for cell in axes.cells() {
            for checkpoint in first..checkpoints {
                grid.add(Subject::Trained { cell: cell.clone(), checkpoint });
            }
        }
        grid
    }

    /// What Tables 8 and 9 and the tuned columns of Table 5 ask for, once the sweep has chosen.
    pub(crate) fn tuned(recipe: &StudyRecipe, chosen: &Chosen) -> Self {
        let study = &recipe.study;
        let mut grid = Self::of(Question::Tuned, recipe);
        let checkpoints = recipe.train.checkpoints.len();
        for seed in 0..study.seeds {
            for setting in Setting::all() {
                let cell = setting.cell(study, chosen.beta(setting), seed);
                if setting.flip_rate == FlipRate::NONE {
                    for checkpoint in 0..checkpoints {
                        grid.add(Subject::Trained { cell: cell.clone(), checkpoint });
                    }
                    for fraction in Question::Volume.fractions(study) {
                        let cell = Cell { fraction, ..cell.clone() };
                        grid.add(Subject::Trained { cell, checkpoint: checkpoints - 1 });
                    }
                }
            }
        }
        grid
    }

    /// Every setting at every β.
    fn sweep(&mut self, recipe: &StudyRecipe) {
        let study = &recipe.study;
        let checkpoint = recipe.train.checkpoints.len() - 1;
        for seed in 0..study.seeds {
            for setting in Setting::all() {
                for &beta in &study.sweep_betas {
                    self.add(Subject::Trained { cell: setting.cell(study, beta, seed), checkpoint });
                }
            }
        }
    }

    /// Both annotators alone, their mixtures, and the slices where they agree or differ.
    fn mixed(&mut self, recipe: &StudyRecipe) {
        let study = &recipe.study;
        let checkpoint = recipe.train.checkpoints.len() - 1;
        for seed in 0..study.seeds {
            for labels in Labels::of(study) {
                for &loss in Question::MixedLabels.losses(study) {
                    for &beta in &study.betas {
                        self.add(Subject::Trained { cell: labels.cell(loss, beta, seed), checkpoint });
                    }
                }
            }
        }
    }

    /// Takes in what another question asks for; what both ask for stands once.
    pub fn join(&mut self, other: Self) {
        let asked = self.asked + other.asked;
        for subject in other.subjects {
            self.add(subject);
        }
        self.asked = asked;
    }

    /// What `earlier` does not hold.
    #[must_use]
    pub fn beyond(&self, earlier: &Self) -> Self {
        let fresh = self.subjects.iter().filter(|subject| !earlier.subjects.contains(subject));
        let subjects: Vec<Subject> = fresh.cloned().collect();
        Self { asked: subjects.len(), subjects }
    }

    /// How many evaluations all questions ask for together, shared ones counted for each.
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// How many of the subjects are trained policies.
    pub fn trained(&self) -> usize {
        self.subjects.iter().filter(|subject| matches!(subject, Subject::Trained { .. })).count()
    }

    /// Everything to evaluate, in order, each once.
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    /// The training runs behind the subjects, each once.
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
        self.asked += 1;
        if !self.subjects.contains(&subject) {
            self.subjects.push(subject);
        }
    }
}

impl Question {
    /// All of them: the paper's in its order, then the others.
    pub const ALL: [Self; 10] = [
        Self::Acquisition,
        Self::Volume,
        Self::Quality,
        Self::Overfitting,
        Self::Strength,
        Self::Tuned,
        Self::EqualSteps,
        Self::RobustLosses,
        Self::LongTraining,
        Self::MixedLabels,
    ];

    /// Its short name; that of a research question of the paper is also its program's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acquisition => "rq1",
            Self::Volume => "rq2",
            Self::Quality => "rq3",
            Self::Overfitting => "rq4",
            Self::Strength => "sweep",
            Self::Tuned => "tuned",
            Self::EqualSteps => "steps",
            Self::RobustLosses => "robust",
            Self::LongTraining => "long",
            Self::MixedLabels => "mixed",
        }
    }

    /// The tables that it makes: the paper's by their numbers, others by the question's name.
    pub fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Acquisition => &["1", "2"],
            Self::Volume => &["3"],
            Self::Quality => &["4"],
            Self::Overfitting => &["5"],
            Self::Strength => &["sweep"],
            Self::Tuned => &["8", "9"],
            Self::EqualSteps => &["steps"],
            Self::RobustLosses => &["robust"],
            Self::LongTraining => &["long"],
            Self::MixedLabels => &["mixed"],
        }
    }

    /// Whether its policies differ in the share of flipped labels.
    pub(crate) fn runs_along_noise(self) -> bool {
        matches!(self, Self::Quality | Self::RobustLosses)
    }

    /// Whether it looks at every checkpoint of a run, and not at its end alone.
    pub(crate) fn looks_into_training(self) -> bool {
        matches!(self, Self::Overfitting | Self::LongTraining)
    }

    /// The losses that the question compares, where the recipe does not name others.
    pub(crate) fn losses(self, study: &StudySection) -> &[LossKind] {
        const DPO_IPO: &[LossKind] = &[LossKind::Dpo, LossKind::Ipo];
        const DPO_CDPO: &[LossKind] = &[LossKind::Dpo, LossKind::Cdpo];
        const NOISE: &[LossKind] = &[LossKind::Dpo, LossKind::Cdpo, LossKind::Robust, LossKind::Kto];
        match (&study.losses, self) {
            (Some(losses), _) => losses,
            (None, Self::Quality) => DPO_CDPO,
            (None, Self::RobustLosses) => NOISE,
            (None, Self::MixedLabels) => &[LossKind::Dpo],
            (None, _) => DPO_IPO,
        }
    }

    /// The volumes that the question compares, where the recipe does not name others.
    pub(crate) fn fractions(self, study: &StudySection) -> Vec<Fraction> {
        let (varies, defaults): (bool, &[f64]) = match self {
            Self::Acquisition => (true, &[1.0]),
            Self::Volume | Self::EqualSteps => (true, &[1.0, 0.75, 0.5, 0.25]),
            _ => (false, &[1.0]),
        };
        let defaults = || defaults.iter().filter_map(|&share| Fraction::new(share).ok()).collect();
        study.volumes.clone().filter(|_| varies).unwrap_or_else(defaults)
    }

    /// The noise levels that the question compares, where the recipe does not name others.
    pub(crate) fn flip_rates(self, study: &StudySection) -> Vec<FlipRate> {
        let (varies, defaults): (bool, &[f64]) = match self {
            Self::Acquisition => (true, &[0.0]),
            Self::Quality | Self::RobustLosses => (true, &[0.0, 0.05, 0.25, 0.5, 0.75]),
            _ => (false, &[0.0]),
        };
        let defaults = || defaults.iter().filter_map(|&rate| FlipRate::new(rate).ok()).collect();
        study.flip_rates.clone().filter(|_| varies).unwrap_or_else(defaults)
    }

    /// Passes over a share of the pairs, where the question asks for others than the recipe.
    fn epochs(self, share: Fraction, recipe: &StudyRecipe) -> Option<NonZeroU64> {
        let epochs = match self {
            Self::EqualSteps => NonZeroU64::new((recipe.train.epochs as f64 / share.get()).round() as u64),
            Self::LongTraining => Some(recipe.study.long_epochs),
            _ => None,
        };
        // Who takes as many as the recipe is the same cell as without.
        epochs.filter(|epochs| epochs.get() != recipe.train.epochs)
    }
}

/// Whose labels, on which records.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Labels {
    /// An annotator, a vote or a mixture.
    pub(crate) source: String,
    /// All records, or those on which two annotators agree or differ.
    pub(crate) slice: Option<AgreementSlice>,
}

impl Labels {
    /// The first two annotators alone, the study's mixtures, and both slices: where they agree one's labels are the other's,
    /// where they differ each has its own. None where there are no two.
    pub(crate) fn of(study: &StudySection) -> Vec<Self> {
        let [one, other, ..] = study.annotators.as_slice() else { return Vec::new() };
        let whole = |source: &String| Self { source: source.clone(), slice: None };
        let sliced = |source: &String, keep: Keep| {
            let annotators = [one.clone(), other.clone()];
            Self { source: source.clone(), slice: Some(AgreementSlice { annotators, keep }) }
        };
        let mut all = vec![whole(one)];
        all.extend(study.mixtures().iter().map(whole));
        all.push(whole(other));
        all.extend([sliced(one, Keep::Same), sliced(one, Keep::Different), sliced(other, Keep::Different)]);
        all
    }

    /// The run on these labels.
    pub(crate) fn cell(&self, loss: LossKind, beta: Beta, seed: u64) -> Cell {
        Cell {
            annotator: self.source.clone(),
            slice: self.slice.clone(),
            fraction: Fraction::ALL,
            flip_rate: FlipRate::NONE,
            loss,
            beta,
            epochs: None,
            seed,
        }
    }

    /// Whether a cell learned from these labels, all of them and as they are.
    pub(crate) fn are_of(&self, cell: &Cell) -> bool {
        *cell == self.cell(cell.loss, cell.beta, cell.seed)
    }
}

impl Axes<'_> {
    /// Every combination; the last axis moves fastest but for seeds, which move slowest, so that a study that is
    /// killed has whole replicates first.
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for seed in 0..self.seeds {
            for annotator in self.annotators {
                for &(fraction, epochs) in &self.volumes {
                    for &flip_rate in &self.flip_rates {
                        for &loss in self.losses {
                            for &beta in self.betas {
                                let annotator = annotator.clone();
                                let slice = None;
                                cells.push(Cell {
                                    annotator,
                                    slice,
                                    fraction,
                                    flip_rate,
                                    loss,
                                    beta,
                                    epochs,
                                    seed,
                                });
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
    use crate::recipe::Preset;

    fn of(question: Question) -> Grid {
        Grid::of(question, &StudyRecipe::preset(Preset::Sandbox, &[]).unwrap())
    }

    #[test]
    fn questions_share_their_cells() {
        let cells = |question| {
            let grid = of(question);
            grid.cells().into_iter().cloned().collect::<Vec<_>>()
        };
        let acquisition = cells(Question::Acquisition);
        assert_eq!(acquisition.len(), 2 * 2 * 2);
        assert_eq!(cells(Question::Overfitting), acquisition, "Table 5 looks into the runs of Table 1");
        for question in [Question::Volume, Question::Quality] {
            let shared = cells(question).iter().filter(|cell| acquisition.contains(cell)).count();
            let whole = if question == Question::Volume { 8 } else { 4 };
            assert_eq!(shared, whole, "{question:?} shares the whole, clean runs");
        }
    }

    #[test]
    fn joined_grids_hold_a_shared_subject_once_and_count_it_for_each() {
        let mut joined = of(Question::Acquisition);
        let alone = joined.subjects().len();
        joined.join(of(Question::Overfitting));
        assert_eq!(joined.subjects().len(), of(Question::Overfitting).subjects().len());
        assert_eq!(joined.asked(), alone + joined.subjects().len());
        let cells = joined.cells().len();
        joined.join(of(Question::Volume));
        assert_eq!(joined.cells().len(), cells + 3 * 2 * 2 * 2, "three smaller shares are new");
    }

    #[test]
    fn a_smaller_share_makes_as_many_steps_in_more_epochs() {
        let grid = of(Question::EqualSteps);
        let volumes: Vec<_> = grid.cells().iter().map(|cell| (cell.fraction.get(), cell.epochs)).collect();
        for (share, epochs) in [(0.75, 4), (0.5, 6), (0.25, 12)] {
            assert!(volumes.contains(&(share, NonZeroU64::new(epochs))), "{share}: {volumes:?}");
        }
        let whole = of(Question::Acquisition);
        let is_shared = |cell: &&Cell| whole.cells().contains(cell);
        assert_eq!(
            grid.cells().iter().filter(|cell| is_shared(cell)).count(),
            8,
            "all pairs are Table 1's runs"
        );
    }

    #[test]
    fn the_sweep_has_eleven_values_in_four_settings_and_shares_what_others_train() {
        let sweep = of(Question::Strength);
        assert_eq!(sweep.cells().len(), 4 * 11 * 2);
        let mut others = of(Question::Acquisition);
        others.join(of(Question::Quality));
        let shared = sweep.cells().iter().filter(|cell| others.cells().contains(cell)).count();
        assert_eq!(shared, 4 * 2, "each setting's default β");
    }

    #[test]
    fn mixed_labels_share_what_either_annotator_trains() {
        let grid = of(Question::MixedLabels);
        assert_eq!(grid.cells().len(), (2 + 3 + 3) * 2, "alone, mixtures, slices");
        let whole = of(Question::Acquisition);
        let shared = grid.cells().iter().filter(|cell| whole.cells().contains(cell)).count();
        assert_eq!(shared, 2 * 2);
        let one = StudyRecipe::preset(Preset::Sandbox, &["study.annotators=[\"human\"]".to_owned()]).unwrap();
        assert!(Grid::of(Question::MixedLabels, &one).cells().is_empty(), "there is nobody to mix with");
    }

    #[test]
    fn overfitting_looks_at_every_checkpoint() {
        let grid = of(Question::Overfitting);
        assert_eq!(grid.subjects().len(), 2 + 8 * 4);
        let grid = of(Question::Acquisition);
        assert!(grid.subjects().iter().all(|s| !matches!(s, Subject::Trained { checkpoint: 0..=2, .. })));
    }
}
