//! The choice of β in the four settings of appendix A.1.

use std::collections::BTreeMap;

use experiment::{Cell, LEVEL, Scorer, Subject, loss_name, percent};
use pref_data::FlipRate;
use pref_loss::Beta;
use rand::seq::SliceRandom;
use stats::{Estimate, MeanEstimate};
use trainer::HeldOutMetrics;
use trainer::recipe::LossKind;

use crate::error::StudyError;
use crate::recipe::StudySection;
use crate::results::Results;

/// Number of random halves of the questions in the estimate of optimism.
const HALVINGS: usize = 200;

/// A setting in which β is tuned: a loss with a share of flipped labels, on all pairs of one annotator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) loss: LossKind,
    pub(crate) flip_rate: FlipRate,
}

impl Setting {
    /// Returns the paper's four settings: DPO and IPO on clean labels, DPO and cDPO with 5% flipped.
    pub(crate) fn all() -> [Self; 4] {
        let noisy = FlipRate::new(0.05).expect("within [0, 1]");
        [
            Self { loss: LossKind::Dpo, flip_rate: FlipRate::NONE },
            Self { loss: LossKind::Ipo, flip_rate: FlipRate::NONE },
            Self { loss: LossKind::Dpo, flip_rate: noisy },
            Self { loss: LossKind::Cdpo, flip_rate: noisy },
        ]
    }

    /// Returns the settings of the sweep: the paper's, then the other losses of the recipe on clean labels.
    pub(crate) fn swept(study: &StudySection) -> Vec<Self> {
        let mut settings = Self::all().to_vec();
        for &loss in study.losses.iter().flatten() {
            if settings.iter().all(|setting| setting.loss != loss) {
                settings.push(Self { loss, flip_rate: FlipRate::NONE });
            }
        }
        settings
    }

    /// Returns its name, such as `DPO, 5% flipped`, with the parameter that is swept in place of β.
    pub(crate) fn name(self) -> String {
        let name = loss_name(self.loss);
        match (self.flip_rate.get(), self.loss.strength()) {
            (0.0, "β") => name.to_owned(),
            (0.0, symbol) => format!("{name} ({symbol})"),
            (rate, _) => format!("{name}, {}% flipped", percent(rate)),
        }
    }

    /// Returns the run of this setting at one β.
    pub(crate) fn cell(self, study: &StudySection, beta: Beta, seed: u64) -> Cell {
        let Self { loss, flip_rate } = self;
        Cell { flip_rate, ..Cell::new(annotator(study), loss, beta, seed) }
    }

    /// Returns whether `subject` is a trained policy of this setting at `beta`.
    pub(crate) fn holds(self, results: &Results<'_>, subject: &Subject, beta: Beta) -> bool {
        let last = results.last_checkpoint();
        matches!(subject, Subject::Trained { cell, checkpoint }
            if *checkpoint == last && *cell == self.cell(&results.recipe.study, beta, cell.seed))
    }
}

/// Returns the annotator on whose labels β is tuned: `human` as in the paper, else the first one.
pub(crate) fn annotator(study: &StudySection) -> &str {
    let human = study.annotators.iter().find(|name| *name == "human");
    human.or(study.annotators.first()).map_or("human", String::as_str)
}

/// The chosen β of each setting, in the order of [`Setting::all`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chosen {
    betas: [Beta; 4],
    /// The data that chose it.
    pub(crate) by: Criterion,
}

/// The data by which β is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Criterion {
    /// Accuracy on held-out preferences.
    HeldOutPairs,
    /// The judge's scores, if no preferences are held out.
    Scores,
}

impl Criterion {
    /// Returns the choice in words, for a comparison that tests it on other data.
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::HeldOutPairs => "tuned on held-out pairs",
            Self::Scores => "tuned, cross-fitted over questions",
        }
    }
}

impl Chosen {
    /// Chooses by accuracy on held-out preferences, or else by the judge's scores; `None` if a setting lacks some β.
    pub(crate) fn of(results: &Results<'_>) -> Result<Option<Self>, StudyError> {
        let by_pairs: Option<Vec<Beta>> =
            Setting::all().into_iter().map(|setting| by_accuracy(results, setting)).collect();
        let (betas, by) = match by_pairs {
            Some(betas) => (Some(betas), Criterion::HeldOutPairs),
            None => {
                let betas = Setting::all().into_iter().map(|setting| by_score(results, setting));
                (betas.collect::<Result<Option<Vec<Beta>>, _>>()?, Criterion::Scores)
            }
        };
        Ok(betas.and_then(|betas| betas.try_into().ok()).map(|betas| Self { betas, by }))
    }

    /// Returns the β of one setting.
    pub(crate) fn beta(&self, setting: Setting) -> Beta {
        let at = Setting::all().into_iter().position(|other| other == setting);
        self.betas[at.expect("a setting is one of the four")]
    }
}

/// Returns the β with the highest accuracy on held-out preferences, the largest of equals; `None` if some accuracy is
/// missing.
pub(crate) fn by_accuracy(results: &Results<'_>, setting: Setting) -> Option<Beta> {
    let mut best: Option<(f64, Beta)> = None;
    for &beta in &results.recipe.study.sweep_betas {
        let accuracy =
            results.scores.held_out(&|s| setting.holds(results, s, beta), HeldOutMetrics::accuracy)?;
        if best.is_none_or(|(most, of)| accuracy > most || (accuracy == most && beta.get() > of.get())) {
            best = Some((accuracy, beta));
        }
    }
    best.map(|(_, beta)| beta)
}

/// Returns the β with the highest mean score of the judge.
pub(crate) fn by_score(results: &Results<'_>, setting: Setting) -> Result<Option<Beta>, StudyError> {
    let scores = Curve::of(results, &results.scorers().judge, setting)?;
    Ok(scores.map(|scores| scores.betas[scores.best(&scores.all())]))
}

/// The scores of a setting by β, on the same questions.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) betas: Vec<Beta>,
    /// By β, then by question.
    scores: Vec<Vec<f64>>,
}

/// The bias of choosing β by the reported score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Optimism {
    /// Mean score of the chosen β on the questions that chose it.
    pub(crate) on_the_same: f64,
    /// Mean score of the chosen β on the other half of the questions.
    pub(crate) on_others: f64,
}

/// The position of the best β in its range.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Optimum {
    /// The best β, chosen on half of the questions, scores above both ends on the other half.
    Interior {
        /// The best β.
        at: Beta,
        /// Its gains over the smallest and the largest β.
        over_ends: [Estimate; 2],
    },
    /// The best β is the smallest or the largest one.
    Edge {
        /// The best β.
        at: Beta,
    },
    /// The best β does not differ significantly from at least one end.
    Flat {
        /// The best β.
        at: Beta,
        /// Its gains over the smallest and the largest β.
        over_ends: [Estimate; 2],
    },
}

impl Curve {
    /// Returns the curve of a setting; `None` if a β is missing.
    pub(crate) fn of(
        results: &Results<'_>,
        scorer: &Scorer,
        setting: Setting,
    ) -> Result<Option<Self>, StudyError> {
        let mut betas = results.recipe.study.sweep_betas.clone();
        betas.sort_by(|a, b| a.get().total_cmp(&b.get()));
        let mut scores = Vec::new();
        for &beta in &betas {
            let of_beta = question_means(results, scorer, &|s| setting.holds(results, s, beta));
            scores.push(of_beta);
        }
        // A question without a rating at one β is left out for all.
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

    /// Returns the indices of all questions.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.scores.first().map_or(0, Vec::len)).collect()
    }

    /// Returns the index of the β with the highest mean over `questions`, the largest of equals.
    pub(crate) fn best(&self, questions: &[usize]) -> usize {
        let means = (0..self.betas.len()).map(|beta| self.mean(beta, questions));
        means.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(beta, _)| beta)
    }

    fn mean(&self, beta: usize, questions: &[usize]) -> f64 {
        let sum: f64 = questions.iter().map(|&question| self.scores[beta][question]).sum();
        sum / questions.len().max(1) as f64
    }

    /// Returns the optimism of choosing on half of the questions, averaged over random halves.
    pub(crate) fn optimism(&self, results: &Results<'_>) -> Optimism {
        let mut rng = results.scores.rng();
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

    /// Returns the position of the best β, chosen on even questions and tested on odd ones.
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

/// Returns the mean scores of the selected subjects by question.
fn question_means(
    results: &Results<'_>,
    scorer: &Scorer,
    keep: &dyn Fn(&Subject) -> bool,
) -> BTreeMap<u64, f64> {
    let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (_, score) in results.scores.scored(scorer, keep) {
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
    use crate::recipe::{Preset, StudyRecipe};

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
    fn the_position_of_the_best_beta_is_found() {
        let top = curve([5.0, 6.0, 8.0, 7.0, 5.0], 0.1).optimum().unwrap();
        assert!(matches!(top, Optimum::Interior { at, .. } if at.get() == 0.1), "{top:?}");
        let edge = curve([5.0, 6.0, 7.0, 8.0, 9.0], 0.1).optimum().unwrap();
        assert!(matches!(edge, Optimum::Edge { at } if at.get() == 0.9), "{edge:?}");
        let flat = curve([5.0, 5.0, 5.01, 5.0, 5.0], 0.5).optimum().unwrap();
        assert!(matches!(flat, Optimum::Flat { .. }), "{flat:?}");
    }

    #[test]
    fn the_sweep_has_the_losses_of_the_recipe() {
        let losses = "study.losses=[\"ipo\", \"simpo\", \"orpo\", \"robust\"]".to_owned();
        let swept = |overrides: &[String]| {
            let recipe = StudyRecipe::preset(Preset::Sandbox, overrides).unwrap();
            Setting::swept(&recipe.study)
        };
        assert_eq!(swept(&[]), Setting::all());
        let names: Vec<String> = swept(&[losses])[4..].iter().map(|setting| setting.name()).collect();
        assert_eq!(names, ["SimPO", "ORPO (λ)", "robust DPO"]);
    }

    #[test]
    fn the_largest_beta_of_equals_is_chosen() {
        let curve = curve([5.0, 7.0, 7.0, 7.0, 5.0], 0.0);
        assert_eq!(curve.betas[curve.best(&curve.all())].get(), 0.5);
    }
}
