//! RQ2: the volume of preferences (Table 3).

use experiment::{Axes, Grid, loss_name, percent};
use pref_data::Fraction;
use report::table::Table;
use trainer::recipe::LossKind;

use super::{BARS, CURVE, DPO_IPO, QUARTERS};
use crate::claims::{Answers, Claim, Comparisons, Expectation, Headline, printed_trend};
use crate::contrast::Contrast;
use crate::error::StudyError;
use crate::figures;
use crate::levels::{Axis, Levels};
use crate::paper::statements;
use crate::question::{About, Question};
use crate::recipe::{PaperSet, StudyRecipe, StudySection};
use crate::results::{Figure, Results};
use crate::tables::{TableText, by_level, controls};

/// How scores depend on the volume of preferences.
pub struct Volume;

impl Question for Volume {
    fn about(&self) -> About {
        About {
            name: "rq2",
            tables: &["3"],
            title: "RQ2: volume of preferences",
            help: "The same policy, optimized on nested shares of the pairs.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let study = &recipe.study;
        let volumes = study.volumes_or(QUARTERS).into_iter().map(|share| (share, None)).collect();
        super::final_grid(recipe, &Axes { volumes, ..super::axes(study, study.losses_or(DPO_IPO)) })
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        let note =
            "At equal epochs a smaller share has fewer optimizer steps: volume and steps are confounded."
                .to_owned();
        let text = TableText { id: "table-3", title: "Scores by volume of preferences", note };
        Ok(vec![
            by_level(results, &levels(&results.recipe.study), text)?,
            controls(results, "table-3-length")?,
        ])
    }

    fn figures(&self, results: &Results<'_>) -> Result<Vec<Figure>, StudyError> {
        let curve = figures::by_level(results, &levels(&results.recipe.study))?;
        let [human, llm] = figures::human_and_llm(results);
        let compared = [
            (LossKind::Ipo, human, [0.25, 1.0]),
            (LossKind::Ipo, llm, [0.25, 1.0]),
            (LossKind::Dpo, human, [0.5, 1.0]),
        ];
        let title = "Judged scores by category and volume";
        let bars = figures::comparisons(results, Axis::Volume, title, compared)?;
        let mut drawn = vec![Figure { name: "figure-3-curve", svg: curve, caption: CURVE }];
        drawn.extend(bars.map(|svg| Figure { name: "figure-3", svg, caption: BARS }));
        Ok(drawn)
    }

    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let study = &results.recipe.study;
        let of = Comparisons::new(results, study.losses_or(DPO_IPO))?;
        let shares = study.volumes_or(QUARTERS);
        let mut claims = Vec::new();
        for annotator in of.annotators() {
            for &loss in of.losses {
                let printed = of.printed(3, loss, annotator);
                let trend = Claim {
                    printed: printed.map(|scores| printed_trend(QUARTERS, &scores)),
                    ..of.volume_trend(annotator, loss, &shares, of.place(3))
                };
                claims.push(match loss {
                    LossKind::Dpo | LossKind::Ipo => {
                        let says = format!("{} ({})", statements::NO_VOLUME_TREND, loss_name(loss));
                        of.claimed(trend, says, Expectation::NoEffect)
                    }
                    _ => trend,
                });
            }
            claims.extend(ipo_against_dpo(&of, annotator, &shares));
        }
        Ok(claims)
    }

    fn headlines<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Headline<'a>>, StudyError> {
        let study = &results.recipe.study;
        let of = Comparisons::new(results, study.losses_or(DPO_IPO))?;
        let mut shares = study.volumes_or(QUARTERS);
        shares.sort_by(|one, other| other.get().total_cmp(&one.get()));
        let [most, less, ..] = shares[..] else { return Ok(Vec::new()) };
        let at = |loss, annotator, share| of.at_volume(loss, annotator, share);
        let more = of.over_all(|loss, annotator| (at(loss, annotator, most), at(loss, annotator, less)));
        let comparison = format!("{}% − {}% pairs", percent(most.get()), percent(less.get()));
        let answers = Answers::new("yes", "no, they harm", "no");
        Ok(vec![of.headline(["Do more pairs help?", "How much data is needed?"], comparison, more, answers)])
    }

    fn printed(&self, set: PaperSet) -> &'static [usize] {
        if set == PaperSet::Gair { &[3] } else { &[11, 13] }
    }
}

fn levels(study: &StudySection) -> Levels<'_> {
    Levels::of_volume(&study.volumes_or(QUARTERS), study.losses_or(DPO_IPO))
}

/// Returns the difference between IPO and DPO on half of the pairs or more.
fn ipo_against_dpo<'a>(of: &Comparisons<'a>, annotator: &'a str, shares: &[Fraction]) -> Option<Claim<'a>> {
    let large: Vec<Fraction> = shares.iter().copied().filter(|share| share.get() >= 0.5).collect();
    if large.is_empty() || !of.has(DPO_IPO) {
        return None;
    }
    let at = |loss, share| of.at_volume(loss, annotator, share);
    let pairs = large.iter().map(|&share| (at(LossKind::Ipo, share), at(LossKind::Dpo, share)));
    let printed = of.printed(3, LossKind::Ipo, annotator).zip(of.printed(3, LossKind::Dpo, annotator));
    let comparison = format!("{annotator}: IPO − DPO, at 50% or more");
    let claim = Claim {
        printed: printed.map(|(ipo, dpo)| (0..3).map(|row| ipo[row] - dpo[row]).sum::<f64>() / 3.0),
        control: Some(of.training_effect(LossKind::Dpo, annotator)),
        ..Claim::new(of.place(3), comparison, Contrast::mean_difference(pairs.collect()))
    };
    Some(of.claimed(claim, statements::IPO_BELOW_DPO, Expectation::Lower))
}
