//! RQ4: overfitting (Table 5).

use experiment::Grid;
use report::table::Table;
use trainer::recipe::LossKind;

use super::DPO_IPO;
use crate::claims::{Answers, Claim, Comparisons, Expectation, Headline};
use crate::contrast::Contrast;
use crate::error::StudyError;
use crate::figures;
use crate::paper::statements;
use crate::question::{About, Question};
use crate::recipe::{PaperSet, StudyRecipe};
use crate::results::{Figure, Results};
use crate::tables::{is_baseline, overfitting};

pub(super) const PROGRESS: &str =
    "Quality (ground truth if known, else the judge's scores) and relative training loss at each checkpoint.";

/// Whether training overfits.
pub struct Overfitting;

impl Question for Overfitting {
    fn about(&self) -> About {
        About {
            name: "rq4",
            tables: &["5"],
            title: "RQ4: overfitting",
            help: "Training loss and scores at the checkpoints of the same runs.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let axes = super::axes(&recipe.study, recipe.study.losses_or(DPO_IPO));
        super::grid(recipe, &axes, 0..=recipe.train.checkpoints.len() - 1)
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        let losses = results.recipe.study.losses_or(DPO_IPO);
        let title = "Training loss and scores during training".to_owned();
        Ok(vec![overfitting(results, losses, "table-5", title)?])
    }

    fn figures(&self, results: &Results<'_>) -> Result<Vec<Figure>, StudyError> {
        let svg = figures::progress(results, results.recipe.study.losses_or(DPO_IPO))?;
        Ok(vec![Figure { name: "figure-5", svg, caption: PROGRESS }])
    }

    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let of = Comparisons::new(results, results.recipe.study.losses_or(DPO_IPO))?;
        let runs =
            of.annotators().iter().flat_map(|annotator| of.losses.iter().map(move |&loss| (annotator, loss)));
        let claims = of.falls("Table 5").into_iter().zip(runs);
        let claims = claims.map(|(claim, (annotator, loss))| {
            let claim = Claim { printed: of.printed_5(loss, annotator), ..claim };
            match loss {
                LossKind::Dpo => of.claimed(claim, "DPO does not show overfitting", Expectation::NotLower),
                LossKind::Ipo => of.claimed(claim, statements::IPO_OVERFITS, Expectation::Lower),
                _ => claim,
            }
        });
        Ok(claims.collect())
    }

    fn headlines<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Headline<'a>>, StudyError> {
        let of = Comparisons::new(results, results.recipe.study.losses_or(DPO_IPO))?;
        let last = results.last_checkpoint();
        if last == 0 {
            return Ok(Vec::new());
        }
        let fall = Contrast::fall((0..=last).map(|at| of.all_at_checkpoint(at)).collect());
        let answers = Answers::new("no", "yes", "no");
        let control = Contrast::difference(of.all_at_checkpoint(last), Box::new(is_baseline));
        Ok(vec![Headline {
            control: Some(control),
            ..of.headline(
                ["Does it overfit?", "Did training go on for too long?"],
                "end − earlier peak".to_owned(),
                fall,
                answers,
            )
        }])
    }

    fn printed(&self, set: PaperSet) -> &'static [usize] {
        if set == PaperSet::Gair { &[5] } else { &[] }
    }
}
