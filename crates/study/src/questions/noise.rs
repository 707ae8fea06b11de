//! RQ3: the quality of labels, under flip noise (Table 4).

use experiment::{Axes, Grid, loss_name, percent};
use report::table::Table;
use trainer::recipe::LossKind;

use super::{BARS, CURVE, NOISE};
use crate::claims::{Answers, Claim, Comparisons, Expectation, Headline, printed_trend};
use crate::contrast::Contrast;
use crate::error::StudyError;
use crate::figures;
use crate::levels::{Axis, Levels};
use crate::paper::statements;
use crate::question::{About, Question};
use crate::recipe::{PaperSet, StudyRecipe, StudySection};
use crate::results::{Figure, Results};
use crate::tables::{TableText, by_level, controls, labels};

const DPO_CDPO: &[LossKind] = &[LossKind::Dpo, LossKind::Cdpo];

/// The share of flipped labels whose effect the headline has: about as many as annotators disagree on.
const MODERATE: f64 = 0.25;

/// How scores depend on the share of flipped labels.
pub struct Noise;

impl Question for Noise {
    fn about(&self) -> About {
        About {
            name: "rq3",
            tables: &["4"],
            title: "RQ3: noise of the labels",
            help: "The same policy, optimized on labels of which a random share is flipped.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let study = &recipe.study;
        let flip_rates = study.flip_rates_or(NOISE);
        super::final_grid(recipe, &Axes { flip_rates, ..super::axes(study, study.losses_or(DPO_CDPO)) })
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        let noise = levels(&results.recipe.study);
        let smoothing = results.recipe.loss.label_smoothing;
        let note = format!("The label smoothing of cDPO is {smoothing} at every share of flipped labels.");
        let text = TableText { id: "table-4", title: "Scores under flipped labels", note };
        let mut made = vec![by_level(results, &noise, text)?];
        made.extend(labels(results, &noise, "table-4-labels")?);
        made.push(controls(results, "table-4-length")?);
        Ok(made)
    }

    fn figures(&self, results: &Results<'_>) -> Result<Vec<Figure>, StudyError> {
        let curve = figures::by_level(results, &levels(&results.recipe.study))?;
        let [human, llm] = figures::human_and_llm(results);
        let compared = [
            (LossKind::Cdpo, human, [0.25, 0.5]),
            (LossKind::Cdpo, llm, [0.25, 0.5]),
            (LossKind::Dpo, llm, [0.05, 0.5]),
        ];
        let title = "Judged scores by category and share of flipped labels";
        let bars = figures::comparisons(results, Axis::Noise, title, compared)?;
        let mut drawn = vec![Figure { name: "figure-4-curve", svg: curve, caption: CURVE }];
        drawn.extend(bars.map(|svg| Figure { name: "figure-4", svg, caption: BARS }));
        Ok(drawn)
    }

    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let study = &results.recipe.study;
        let of = Comparisons::new(results, study.losses_or(DPO_CDPO))?;
        let rates = study.flip_rates_or(NOISE);
        let mut claims = Vec::new();
        for annotator in of.annotators() {
            for &loss in of.losses {
                let levels = rates.iter().map(|&rate| (rate.get(), of.at_noise(loss, annotator, rate)));
                let printed = of.printed(4, loss, annotator);
                let comparison = format!("{annotator}, {}: trend with flipped labels", loss_name(loss));
                let trend = Claim {
                    printed: printed.map(|scores| printed_trend(NOISE, &scores)),
                    control: Some(of.training_effect(loss, annotator)),
                    ..Claim::new(of.place(4), comparison, Contrast::trend(levels.collect()))
                };
                claims.push(match loss {
                    LossKind::Dpo | LossKind::Cdpo => {
                        let says = format!("{} ({})", statements::NO_NOISE_TREND, loss_name(loss));
                        of.claimed(trend, says, Expectation::NoEffect)
                    }
                    _ => trend,
                });
            }
            let cdpo = of.under_noise(annotator, [LossKind::Cdpo, LossKind::Dpo], &rates, of.place(4));
            claims
                .extend(cdpo.map(|claim| of.claimed(claim, statements::CDPO_BELOW_DPO, Expectation::Lower)));
        }
        Ok(claims)
    }

    fn headlines<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Headline<'a>>, StudyError> {
        let study = &results.recipe.study;
        let of = Comparisons::new(results, study.losses_or(DPO_CDPO))?;
        let mut rates = study.flip_rates_or(NOISE);
        rates.sort_by(|one, other| one.get().total_cmp(&other.get()));
        let noisy = rates.iter().find(|rate| rate.get() >= MODERATE).or(rates.last());
        let (Some(&clean), Some(&noisy)) = (rates.first(), noisy) else { return Ok(Vec::new()) };
        let mut headlines = Vec::new();
        if noisy != clean {
            let at = |loss, annotator, rate| of.at_noise(loss, annotator, rate);
            let flips =
                of.over_all(|loss, annotator| (at(loss, annotator, noisy), at(loss, annotator, clean)));
            let comparison = format!("{}% − {}% flipped", percent(noisy.get()), percent(clean.get()));
            let answers = Answers::new("no, they help", "yes", "no");
            headlines.push(of.headline(
                ["Do flips harm?", "How noisy may the labels be?"],
                comparison,
                flips,
                answers,
            ));
        }
        let both = |annotator| of.at_all_noise(annotator, [LossKind::Cdpo, LossKind::Dpo], &rates);
        let smoothed: Vec<_> = of.annotators().iter().flat_map(|annotator| both(annotator)).collect();
        if !smoothed.is_empty() {
            let smoothed = Contrast::mean_difference(smoothed);
            let answers = Answers::new("yes", "no, worse", "no");
            let comparison = "cDPO − DPO, flips".to_owned();
            headlines.push(of.headline(
                ["Is cDPO better?", "Which loss for noisy labels?"],
                comparison,
                smoothed,
                answers,
            ));
        }
        Ok(headlines)
    }

    fn printed(&self, set: PaperSet) -> &'static [usize] {
        if set == PaperSet::Gair { &[4] } else { &[12, 14] }
    }
}

fn levels(study: &StudySection) -> Levels<'_> {
    Levels::of_noise(&study.flip_rates_or(NOISE), study.losses_or(DPO_CDPO))
}
