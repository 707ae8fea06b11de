//! Beyond RQ4: more epochs, since the paper suspects that its two to three are too few to overfit.

use experiment::{Axes, Grid};
use pref_data::Fraction;
use report::table::Table;

use super::DPO_IPO;
use super::overfitting::PROGRESS;
use crate::claims::{Claim, Comparisons};
use crate::error::StudyError;
use crate::figures;
use crate::question::{About, Question};
use crate::recipe::StudyRecipe;
use crate::results::{Figure, Results};
use crate::tables::overfitting;

/// Whether more epochs overfit.
pub struct Epochs;

impl Question for Epochs {
    fn about(&self) -> About {
        About {
            name: "long",
            tables: &["long"],
            title: "Beyond RQ4: too many epochs",
            help: "The runs of RQ4 for more epochs; the paper suspects that its two to three are too few to overfit.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let study = &recipe.study;
        let volumes = vec![(Fraction::ALL, super::other_epochs(recipe, study.long_epochs))];
        let axes = Axes { volumes, ..super::axes(study, study.losses_or(DPO_IPO)) };
        super::grid(recipe, &axes, 0..=recipe.train.checkpoints.len() - 1)
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        let study = &results.recipe.study;
        let title = format!("Training loss and scores over {} epochs", study.long_epochs);
        Ok(vec![overfitting(results, study.losses_or(DPO_IPO), "table-long", title)?])
    }

    fn figures(&self, results: &Results<'_>) -> Result<Vec<Figure>, StudyError> {
        let svg = figures::progress(results, results.recipe.study.losses_or(DPO_IPO))?;
        Ok(vec![Figure { name: "figure-long", svg, caption: PROGRESS }])
    }

    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let of = Comparisons::new(results, results.recipe.study.losses_or(DPO_IPO))?;
        Ok(of.falls("More epochs"))
    }
}
