//! Beyond RQ3: robust DPO and KTO under flip noise, of which the paper tries cDPO only.

use experiment::{Axes, Grid};
use report::table::Table;
use trainer::recipe::LossKind;

use super::{CURVE, NOISE};
use crate::claims::{Claim, Comparisons};
use crate::error::StudyError;
use crate::figures;
use crate::levels::Levels;
use crate::question::{About, Question};
use crate::recipe::{StudyRecipe, StudySection};
use crate::results::{Figure, Results};
use crate::tables::{TableText, by_level, controls, labels};

const LOSSES: &[LossKind] = &[LossKind::Dpo, LossKind::Cdpo, LossKind::Robust, LossKind::Kto];

/// Whether robust DPO or KTO tolerate flip noise better than cDPO.
pub struct RobustLosses;

impl Question for RobustLosses {
    fn about(&self) -> About {
        About {
            name: "robust",
            tables: &["robust"],
            title: "Beyond RQ3: losses for flipped labels",
            help: "DPO, cDPO, robust DPO and KTO on labels of which a random share is flipped.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let study = &recipe.study;
        let flip_rates = study.flip_rates_or(NOISE);
        super::final_grid(recipe, &Axes { flip_rates, ..super::axes(study, study.losses_or(LOSSES)) })
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        let noise = levels(&results.recipe.study);
        let smoothing = results.recipe.loss.label_smoothing;
        let note = format!(
            "cDPO and robust DPO assume a share of wrong labels of {smoothing}, at every share of flipped labels. Robust DPO's \
             loss is unbiased if the assumption holds; cDPO's is not. KTO scores each response on its own, and its loss \
             saturates for responses far on the wrong side."
        );
        let title = "Scores under flipped labels, with losses for flipped labels";
        let mut made = vec![by_level(results, &noise, TableText { id: "table-robust", title, note })?];
        made.extend(labels(results, &noise, "table-robust-labels")?);
        made.push(controls(results, "table-robust-length")?);
        Ok(made)
    }

    fn figures(&self, results: &Results<'_>) -> Result<Vec<Figure>, StudyError> {
        let svg = figures::by_level(results, &levels(&results.recipe.study))?;
        Ok(vec![Figure { name: "figure-robust", svg, caption: CURVE }])
    }

    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let study = &results.recipe.study;
        let of = Comparisons::new(results, study.losses_or(LOSSES))?;
        let rates = study.flip_rates_or(NOISE);
        let mut claims = Vec::new();
        for annotator in of.annotators() {
            for loss in [LossKind::Robust, LossKind::Kto] {
                for other in [LossKind::Dpo, LossKind::Cdpo] {
                    claims.extend(of.under_noise(annotator, [loss, other], &rates, "Noise"));
                }
            }
        }
        Ok(claims)
    }
}

fn levels(study: &StudySection) -> Levels<'_> {
    Levels::of_noise(&study.flip_rates_or(NOISE), study.losses_or(LOSSES))
}
