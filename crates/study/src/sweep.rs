//! The sweep over β (appendix A.1): four settings, and which β each of them would choose.

use std::collections::BTreeMap;

use pref_data::{FlipRate, Fraction};
use pref_loss::Beta;
use rand::seq::SliceRandom;
use stats::{Estimate, MeanEstimate};
use trainer::recipe::LossKind;

use crate::analysis::{Analysis, LEVEL, Scorer, Scorers};
use crate::cell::{Cell, Subject};
use crate::error::StudyError;
use crate::recipe::StudySection;

/// Halvings of the questions over which the optimism of a choice is averaged.
const HALVINGS: usize = 200;

/// What β is tuned for: a loss under a share of flipped labels, on all pairs of one annotator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) loss: LossKind,
    pub(crate) flip_rate: FlipRate,
}

impl Setting {
    /// The paper's four: DPO and IPO on labels as they are, DPO and cDPO where 5% are flipped.
    pub(crate) fn all() -> [Self; 4] {
        let noisy = FlipRate::new(0.05).expect("within [0, 1]");
        [
            Self { loss: LossKind::Dpo, flip_rate: FlipRate::NONE },
            Self { loss: LossKind::Ipo, flip_rate: FlipRate::NONE },
            Self { loss: LossKind::Dpo, flip_rate: noisy },
            Self { loss: LossKind::Cdpo, flip_rate: noisy },
        ]
    }

    /// The run of this setting at one β.
    pub(crate) fn cell(self, study: &StudySection, beta: Beta, seed: u64) -> Cell {
        let Self { loss, flip_rate } = self;
        let annotator = annotator(study).to_owned();
        Cell { annotator, slice: None, fraction: Fraction::ALL, flip_rate, loss, beta, epochs: None, seed }
    }

    /// Whether `subject` is a trained policy of this setting at `beta`.
    pub(crate) fn holds(self, analysis: &Analysis<'_>, subject: &Subject, beta: Beta) -> bool {
        let last = analysis.last_checkpoint();
        matches!(subject, Subject::Trained { cell, checkpoint }
            if *checkpoint == last && *cell == self.cell(&analysis.recipe.study, beta, cell.seed))
    }
}

/// Whose labels β is tuned on: the humans' where they are in the study, as in the paper, else the first annotator's.
pub(crate) fn annotator(study: &StudySection) -> &str {
    let human = study.annotators.iter().find(|name| *name == "human");
    human.or(study.annotators.first()).map_or("human", String::as_str)
}

/// The β that each setting chooses, in the order of [`Setting::all`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chosen {
    betas: [Beta; 4],
}

impl Chosen {
    /// By accuracy on held-out preferences where that was measured, else by the judge's scores; `None` where a setting was not
    /// trained at every β.
    pub(crate) fn of(analysis: &Analysis<'_>) -> Result<Option<Self>, StudyError> {
        let mut betas = Vec::new();
        for setting in Setting::all() {
            let by_accuracy = by_accuracy(analysis, setting);
            let Some(beta) =
                by_accuracy.map_or_else(|| by_score(analysis, setting), |beta| Ok(Some(beta)))?
            else {
                return Ok(None);
            };
            betas.push(beta);
        }
        Ok(betas.try_into().ok().map(|betas| Self { betas }))
    }

    /// The β of one setting.
    pub(crate) fn beta(&self, setting: Setting) -> Beta {
        let at = Setting::all().into_iter().position(|other| other == setting);
        self.betas[at.expect("a setting is one of the four")]
    }
}

/// The β with the highest accuracy on held-out preferences; of equals the largest, which stays closest to the reference.
/// `None` where it was not measured everywhere.
pub(crate) fn by_accuracy(analysis: &Analysis<'_>, setting: Setting) -> Option<Beta> {
    let mut best: Option<(f64, Beta)> = None;
    for &beta in &analysis.recipe.study.sweep_betas {
        let accuracy = analysis.held_out(&|s| setting.holds(analysis, s, beta), |m| Some(m.accuracy))?;
        if best.is_none_or(|(most, of)| accuracy > most || (accuracy == most && beta.get() > of.get())) {
            best = Some((accuracy, beta));
        }
    }
    best.map(|(_, beta)| beta)
}

/// The β with the highest mean score of the judge.
pub(crate) fn by_score(analysis: &Analysis<'_>, setting: Setting) -> Result<Option<Beta>, StudyError> {
    let scores = Curve::of(analysis, &Scorers::of(analysis.recipe).judge, setting)?;
    Ok(scores.map(|scores| scores.betas[scores.best(&scores.all())]))
}

/// One scorer's scores of a setting, β by β, on the same questions.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) betas: Vec<Beta>,
    /// By β, then by question.
    scores: Vec<Vec<f64>>,
}

/// What choosing β by the score that is then reported adds to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Optimism {
    /// The mean score of the chosen β on the questions that chose it.
    pub(crate) on_the_same: f64,
    /// The same on the other half of the questions.
    pub(crate) on_others: f64,
}

/// Whether a curve has its top between its ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Optimum {
    /// It has: the top, chosen on half of the questions, beats both ends on the other half.
    Interior {
        /// The top.
        at: Beta,
        /// By how much it beats the smallest and the largest β.
        over_ends: [Estimate; 2],
    },
    /// The top is the smallest or the largest β.
    Edge {
        /// Which.
        at: Beta,
    },
    /// The top is not distinguishable from at least one end.
    Flat {
        /// The top.
        at: Beta,
        /// By how much it beats the smallest and the largest β.
        over_ends: [Estimate; 2],
    },
}

impl Curve {
    /// `None` where a β is missing.
    pub(crate) fn of(
        analysis: &Analysis<'_>,
        scorer: &Scorer,
        setting: Setting,
    ) -> Result<Option<Self>, StudyError> {
        let mut betas = analysis.recipe.study.sweep_betas.clone();
        betas.sort_by(|a, b| a.get().total_cmp(&b.get()));
        let mut scores = Vec::new();
        for &beta in &betas {
            let of_beta = question_means(analysis, scorer, &|s| setting.holds(analysis, s, beta));
            scores.push(of_beta);
        }
        // A question without a readable verdict at one β is left out for all.
        let whole: Vec<u64> = scores
            .first()
            .map(|first: &BTreeMap<u64, f64>| {
                first.keys().copied().filter(|id| scores.iter().all(|of| of.contains_key(id))).collect()
            })
            .unwrap_or_default();
        if whole.len() < 4 {
            return Ok(None);
        }
        let scores = scores.iter().map(|of| whole.iter().map(|id| of[id]).collect()).collect();
        Ok(Some(Self { betas, scores }))
    }

    /// Every question, by its place.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.scores.first().map_or(0, Vec::len)).collect()
    }

    /// The place of the β with the highest mean over `questions`; of equals the largest.
    pub(crate) fn best(&self, questions: &[usize]) -> usize {
        let means = (0..self.betas.len()).map(|beta| self.mean(beta, questions));
        means.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(beta, _)| beta)
    }

    fn mean(&self, beta: usize, questions: &[usize]) -> f64 {
        let sum: f64 = questions.iter().map(|&question| self.scores[beta][question]).sum();
        sum / questions.len().max(1) as f64
    }

    /// What choosing on half of the questions comes to on either half, over many halvings.
    pub(crate) fn optimism(&self, analysis: &Analysis<'_>) -> Optimism {
        let mut rng = analysis.rng();
        let mut questions = self.all();
        let (mut on_the_same, mut on_others) = (0.0, 0.0);
        for _ in 0..HALVINGS {
            questions.shuffle(&mut rng);
            let (choosing, other) = questions.split_at(questions.len() / 2);
            let best = self.best(choosing);
            on_the_same += self.mean(best, choosing) / HALVINGS as f64;
            on_others += self.mean(best, other) / HALVINGS as f64;
        }
        Optimism { on_the_same, on_others }
    }

    /// Whether the top lies between the ends: chosen on every other question, compared on the rest.
    pub(crate) fn optimum(&self) -> Result<Optimum, StudyError> {
        let (choosing, other): (Vec<usize>, Vec<usize>) =
            self.all().into_iter().partition(|question| question.is_multiple_of(2));
        let best = self.best(&choosing);
        let at = self.betas[best];
        let ends = [0, self.betas.len() - 1];
        if ends.contains(&best) {
            return Ok(Optimum::Edge { at });
        }
        let over = |end: usize| -> Result<Estimate, StudyError> {
            let differences: Vec<f64> =
                other.iter().map(|&q| self.scores[best][q] - self.scores[end][q]).collect();
            let failed = || StudyError::stats("the top of the sweep");
            let mean = MeanEstimate::of(&differences).map_err(failed())?;
            let interval = mean.interval(LEVEL).map_err(failed())?;
            Ok(Estimate {
                value: mean.value,
                low: interval.low,
                high: interval.high,
                level: LEVEL,
                clusters: differences.len(),
                resamples: 0,
            })
        };
        let over_ends = [over(ends[0])?, over(ends[1])?];
        Ok(match over_ends.iter().all(|over| over.low > 0.0) {
            true => Optimum::Interior { at, over_ends },
            false => Optimum::Flat { at, over_ends },
        })
    }
}

/// Mean scores of selected subjects by question.
fn question_means(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    keep: &dyn Fn(&Subject) -> bool,
) -> BTreeMap<u64, f64> {
    let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (_, score) in analysis.scored(scorer, keep) {
        if let Some(value) = score.score {
            let (sum, count) = sums.entry(score.question_id).or_default();
            *sum += value;
            *count += 1.0;
        }
    }
    sums.into_iter().map(|(id, (sum, count))| (id, sum / count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores that depend on β through `shape`, with noise that differs from question to question.
    fn curve(shape: [f64; 5], noise: f64) -> Curve {
        let betas = [0.01, 0.05, 0.1, 0.5, 0.9].map(|beta| Beta::new(beta).unwrap());
        let wobble = |beta: usize, question: usize| noise * ((question * 7 + beta * 3) % 5) as f64;
        let scores = shape
            .iter()
            .enumerate()
            .map(|(beta, mean)| (0..80).map(|question| mean + wobble(beta, question)).collect())
            .collect();
        Curve { betas: betas.into(), scores }
    }

    #[test]
    fn a_top_between_the_ends_is_told_from_one_at_an_end_and_from_none() {
        let top = curve([5.0, 6.0, 8.0, 7.0, 5.0], 0.1).optimum().unwrap();
        assert!(matches!(top, Optimum::Interior { at, .. } if at.get() == 0.1), "{top:?}");
        let edge = curve([5.0, 6.0, 7.0, 8.0, 9.0], 0.1).optimum().unwrap();
        assert!(matches!(edge, Optimum::Edge { at } if at.get() == 0.9), "{edge:?}");
        let flat = curve([5.0, 5.0, 5.01, 5.0, 5.0], 0.5).optimum().unwrap();
        assert!(matches!(flat, Optimum::Flat { .. }), "{flat:?}");
    }

    #[test]
    fn of_equal_scores_the_largest_beta_is_chosen() {
        let curve = curve([5.0, 7.0, 7.0, 7.0, 5.0], 0.0);
        assert_eq!(curve.betas[curve.best(&curve.all())].get(), 0.5);
    }
}
