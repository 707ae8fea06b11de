//! Beyond RQ2: volume at equal optimizer steps, which the paper's design confounds with volume.

use std::num::NonZeroU64;

use experiment::{Axes, Grid};
use pref_data::Fraction;
use report::table::Table;

use super::{CURVE, DPO_IPO, QUARTERS};
use crate::claims::{Claim, Comparisons};
use crate::error::StudyError;
use crate::figures;
use crate::levels::Levels;
use crate::question::{About, Question};
use crate::recipe::{StudyRecipe, StudySection};
use crate::results::{Figure, Results};
use crate::tables::{TableText, by_level, controls};

/// How scores depend on the volume of preferences at equal optimizer steps.
pub struct EqualSteps;

impl Question for EqualSteps {
    fn about(&self) -> About {
        About {
            name: "steps",
            tables: &["steps"],
            title: "Beyond RQ2: volume at equal steps",
            help: "Nested shares of the pairs, smaller ones with more epochs, so that all runs have as many optimizer steps.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let study = &recipe.study;
        let epochs = |share: Fraction| {
            let epochs = NonZeroU64::new((recipe.train.epochs.get() / share.get()).round() as u64);
            epochs.and_then(|epochs| super::other_epochs(recipe, epochs))
        };
        let volumes = study.volumes_or(QUARTERS).into_iter().map(|share| (share, epochs(share))).collect();
        super::final_grid(recipe, &Axes { volumes, ..super::axes(study, study.losses_or(DPO_IPO)) })
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        let note = "Smaller shares have more epochs, so that all policies have as many steps. They differ in the number of \
                    distinct pairs, which Table 3 confounds with the number of steps.";
        let title = "Scores by volume of preferences, at equal optimizer steps";
        let text = TableText { id: "table-steps", title, note: note.to_owned() };
        Ok(vec![
            by_level(results, &levels(&results.recipe.study), text)?,
            controls(results, "table-steps-length")?,
        ])
    }

    fn figures(&self, results: &Results<'_>) -> Result<Vec<Figure>, StudyError> {
        let svg = figures::by_level(results, &levels(&results.recipe.study))?;
        Ok(vec![Figure { name: "figure-steps", svg, caption: CURVE }])
    }

    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let study = &results.recipe.study;
        let of = Comparisons::new(results, study.losses_or(DPO_IPO))?;
        let shares = study.volumes_or(QUARTERS);
        let mut claims = Vec::new();
        for annotator in of.annotators() {
            claims.extend(
                of.losses.iter().map(|&loss| of.volume_trend(annotator, loss, &shares, "Equal steps")),
            );
        }
        Ok(claims)
    }
}

fn levels(study: &StudySection) -> Levels<'_> {
    Levels::of_volume(&study.volumes_or(QUARTERS), study.losses_or(DPO_IPO))
}
