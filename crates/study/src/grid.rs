//! Grids: the cells that a research question asks for.

use pref_data::{FlipRate, Fraction};
use pref_loss::Beta;
use trainer::recipe::LossKind;

use crate::cell::{Cell, Subject};
use crate::recipe::StudySection;

/// A research question of the paper.
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
}

/// The subjects that have to be evaluated to answer a question.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    subjects: Vec<Subject>,
}

/// The values that each property of a cell takes.
#[derive(Clone, Debug)]
struct Axes<'a> {
    annotators: &'a [String],
    fractions: Vec<Fraction>,
    flip_rates: Vec<FlipRate>,
    losses: &'a [LossKind],
    betas: &'a [Beta],
    seeds: u64,
}

impl Grid {
    /// The grid of `question` under `study`, whose models have `checkpoints` checkpoints.
    pub fn of(question: Question, study: &StudySection, checkpoints: usize) -> Self {
        let axes = Axes {
            annotators: &study.annotators,
            fractions: vec![Fraction::ALL],
            flip_rates: vec![FlipRate::NONE],
            losses: question.losses(study),
            betas: &study.betas,
            seeds: study.seeds,
        };
        let axes = match question {
            Question::Acquisition => {
                Axes { fractions: question.fractions(study), flip_rates: question.flip_rates(study), ..axes }
            }
            Question::Volume => Axes { fractions: question.fractions(study), ..axes },
            Question::Quality => Axes { flip_rates: question.flip_rates(study), ..axes },
            Question::Overfitting => axes,
        };
        let mut grid = Self::default();
        for seed in 0..study.seeds {
            grid.add(Subject::Baseline { seed });
        }
        let first = if question == Question::Overfitting { 0 } else { checkpoints - 1 };
        for cell in axes.cells() {
            for checkpoint in first..checkpoints {
                grid.add(Subject::Trained { cell: cell.clone(), checkpoint });
            }
        }
        grid
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
        if !self.subjects.contains(&subject) {
            self.subjects.push(subject);
        }
    }
}

impl Question {
    /// All of them, in the paper's order.
    pub const ALL: [Self; 4] = [Self::Acquisition, Self::Volume, Self::Quality, Self::Overfitting];

    /// Its short name, which is also its program's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acquisition => "rq1",
            Self::Volume => "rq2",
            Self::Quality => "rq3",
            Self::Overfitting => "rq4",
        }
    }

    /// The losses that the question compares, where the recipe does not name others.
    pub(crate) fn losses(self, study: &StudySection) -> &[LossKind] {
        const DPO_IPO: &[LossKind] = &[LossKind::Dpo, LossKind::Ipo];
        const DPO_CDPO: &[LossKind] = &[LossKind::Dpo, LossKind::Cdpo];
        match (&study.losses, self) {
            (Some(losses), _) => losses,
            (None, Self::Quality) => DPO_CDPO,
            (None, _) => DPO_IPO,
        }
    }

    /// The volumes that the question compares, where the recipe does not name others.
    pub(crate) fn fractions(self, study: &StudySection) -> Vec<Fraction> {
        let defaults: &[f64] = if self == Self::Volume { &[1.0, 0.75, 0.5, 0.25] } else { &[1.0] };
        let defaults = || defaults.iter().filter_map(|&share| Fraction::new(share).ok()).collect();
        study.volumes.clone().unwrap_or_else(defaults)
    }

    /// The noise levels that the question compares, where the recipe does not name others.
    pub(crate) fn flip_rates(self, study: &StudySection) -> Vec<FlipRate> {
        let defaults: &[f64] = if self == Self::Quality { &[0.0, 0.05, 0.25, 0.5, 0.75] } else { &[0.0] };
        let defaults = || defaults.iter().filter_map(|&rate| FlipRate::new(rate).ok()).collect();
        study.flip_rates.clone().unwrap_or_else(defaults)
    }
}

impl Axes<'_> {
    /// Every combination; the last axis moves fastest but for seeds, which move slowest, so that a study that is
    /// killed has whole replicates first.
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for seed in 0..self.seeds {
            for annotator in self.annotators {
                for &fraction in &self.fractions {
                    for &flip_rate in &self.flip_rates {
                        for &loss in self.losses {
                            for &beta in self.betas {
                                let annotator = annotator.clone();
                                cells.push(Cell { annotator, fraction, flip_rate, loss, beta, seed });
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

    fn study() -> StudySection {
        StudySection {
            bench: None,
            questions: 80,
            seeds: 2,
            annotators: vec!["human".into(), "gpt-4-turbo".into()],
            volumes: None,
            flip_rates: None,
            betas: vec![Beta::new(0.1).unwrap()],
            losses: None,
        }
    }

    #[test]
    fn questions_share_their_cells() {
        let cells = |question| {
            let grid = Grid::of(question, &study(), 4);
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
    fn overfitting_looks_at_every_checkpoint() {
        let grid = Grid::of(Question::Overfitting, &study(), 4);
        assert_eq!(grid.subjects().len(), 2 + 8 * 4);
        let grid = Grid::of(Question::Acquisition, &study(), 4);
        assert!(grid.subjects().iter().all(|s| !matches!(s, Subject::Trained { checkpoint: 0..=2, .. })));
    }
}
