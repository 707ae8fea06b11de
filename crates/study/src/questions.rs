//! The research questions: the paper's, and further ones.
//!
//! To add a question, write one file with a type that implements [`Question`](crate::Question), and add it to [`ALL`].

mod acquisition;
mod epochs;
mod map;
mod mixtures;
mod noise;
mod overfitting;
mod robust;
mod smoothing;
mod steps;
mod sweep;
mod tuned;
mod volume;

pub use acquisition::Acquisition;
pub use epochs::Epochs;
pub use map::Conditions;
pub use mixtures::Mixtures;
pub use noise::Noise;
pub use overfitting::Overfitting;
pub use robust::RobustLosses;
pub use smoothing::SmoothingRules;
pub use steps::EqualSteps;
pub use sweep::Sweep;
pub use tuned::Tuned;
pub use volume::Volume;

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use experiment::{Axes, Grid};
use pref_data::{FlipRate, Fraction};
use trainer::recipe::LossKind;

use crate::question::Questions;
use crate::recipe::{StudyRecipe, StudySection};

/// All questions: the paper's in its order, then the others.
pub const ALL: Questions = &[
    &Acquisition,
    &Volume,
    &Noise,
    &Overfitting,
    &Sweep,
    &Tuned,
    &EqualSteps,
    &RobustLosses,
    &SmoothingRules,
    &Epochs,
    &Mixtures,
    &Conditions,
];

const DPO_IPO: &[LossKind] = &[LossKind::Dpo, LossKind::Ipo];
/// The volumes of Table 3.
const QUARTERS: &[f64] = &[1.0, 0.75, 0.5, 0.25];
/// The shares of flipped labels of Table 4.
const NOISE: &[f64] = &[0.0, 0.05, 0.25, 0.5, 0.75];
const CURVE: &str =
    "Quality (ground truth if known, else the judge's scores) at each level, with 95% intervals.";
const BARS: &str =
    "The judge's scores by category at the levels that the paper compares, with 95% intervals.";

/// Returns the axes of a question that varies nothing but `losses`.
fn axes<'a>(study: &'a StudySection, losses: &'a [LossKind]) -> Axes<'a> {
    Axes {
        annotators: &study.annotators,
        volumes: vec![(Fraction::ALL, None)],
        flip_rates: vec![FlipRate::NONE],
        losses,
        betas: &study.betas,
        seeds: study.seeds,
    }
}

/// Returns the grid of the supervised policy and the fully trained cells of `axes`.
fn final_grid(recipe: &StudyRecipe, axes: &Axes<'_>) -> Grid {
    let last = recipe.train.checkpoints.len() - 1;
    grid(recipe, axes, last..=last)
}

/// Returns the grid of the supervised policy and the cells of `axes` at the `checkpoints`.
fn grid(recipe: &StudyRecipe, axes: &Axes<'_>, checkpoints: RangeInclusive<usize>) -> Grid {
    let mut grid = Grid::baselines(recipe.study.seeds);
    for cell in axes.cells() {
        grid.add_cell(&cell, checkpoints.clone());
    }
    grid
}

/// Returns `epochs` unless they are the recipe's, since cells with the recipe's epochs are shared.
fn other_epochs(recipe: &StudyRecipe, epochs: NonZeroU64) -> Option<NonZeroU64> {
    (recipe.train.epochs.whole() != Some(epochs)).then_some(epochs)
}
