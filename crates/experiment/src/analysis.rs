//! Statistics of evaluated subjects: means and differences with their intervals.

use std::collections::BTreeMap;

use rand::Rng;
use report::table::Value;
use seeds::Seeds;
use stats::{ClusteredScores, Estimate, mean_interval, paired_difference_interval};
use trainer::HeldOutMetrics;

use crate::cell::{Subject, percent};
use crate::error::ExperimentError;
use crate::evaluated::{BENCHMARK, Collected, Evaluated, FURTHER, GOLD, Score};
use crate::failure::Failure;
use crate::fitted::FittedLabels;
use crate::judges;
use crate::setup::Setup;

/// Confidence level of every interval.
pub const LEVEL: f64 = 0.95;
/// Bootstrap resamples of an interval.
pub const RESAMPLES: usize = 10_000;
/// Decimals of scores in tables.
pub const SCORE_DECIMALS: usize = 2;
/// Bootstrap resamples for the held-out questions, whose intervals are narrow.
const FURTHER_RESAMPLES: usize = 2_000;

/// A scorer on a set of questions.
#[derive(Clone, Debug)]
pub struct Scorer {
    /// Its description in rows and sentences.
    pub label: String,
    /// Its heading in tables.
    pub title: String,
    /// Its name in [`Score`].
    pub name: String,
    /// Its question set.
    pub question_set: &'static str,
}

impl Scorer {
    /// Returns whether it gave a score.
    pub fn is_of(&self, score: &Score) -> bool {
        score.scorer == self.name && score.question_set == self.question_set
    }
}

/// The scorers of an experiment.
#[derive(Clone, Debug)]
pub struct Scorers {
    /// The main judge.
    pub judge: Scorer,
    /// A second judge; in the sandbox one with the LLM annotator's bias.
    pub second: Option<Scorer>,
    /// Gold quality on the benchmark and on the held-out questions, in the sandbox.
    pub gold: Option<[Scorer; 2]>,
}

impl Scorers {
    /// Returns the scorers of `setup`.
    pub fn of(setup: &Setup) -> Self {
        let scorer = |label: &str, title: &str, name: &str, question_set| Scorer {
            label: label.to_owned(),
            title: title.to_owned(),
            name: name.to_owned(),
            question_set,
        };
        let names = judges::names(&setup.judge);
        if !setup.is_sandbox() {
            let title = if names.len() > 1 { names[0].as_str() } else { "Judge" };
            return Self {
                judge: scorer(&names[0], title, &names[0], BENCHMARK),
                second: names.get(1).map(|name| scorer(name, name, name, BENCHMARK)),
                gold: None,
            };
        }
        let held_out = format!("gold, {} held-out questions", setup.sandbox.further_questions);
        let biased = "biased judge";
        Self {
            judge: scorer("judge", "Judge", &names[0], BENCHMARK),
            second: names.get(1).map(|name| scorer(biased, "Biased judge", name, BENCHMARK)),
            gold: Some([
                scorer("gold", "Gold", GOLD, BENCHMARK),
                scorer(&held_out, "Ground truth (held-out questions)", GOLD, FURTHER),
            ]),
        }
    }

    /// Returns all scorers, the main judge first.
    pub fn all(&self) -> Vec<&Scorer> {
        [&self.judge].into_iter().chain(&self.second).chain(self.gold.iter().flatten()).collect()
    }

    /// Returns the scorers of every table: the main judge, and the ground truth or else the second judge.
    pub fn shown(&self) -> Vec<&Scorer> {
        let other = match &self.gold {
            Some([_, held_out]) => Some(held_out),
            None => self.second.as_ref(),
        };
        [&self.judge].into_iter().chain(other).collect()
    }
}

/// Statistics of evaluated subjects.
pub struct Analysis<'a> {
    /// The setup of the experiment.
    pub setup: &'a Setup,
    /// The evaluated subjects.
    pub evaluated: &'a [Evaluated],
    /// The failed subjects.
    pub failed: &'a [Failure],
    seeds: Seeds,
}

impl<'a> Analysis<'a> {
    /// Analyzes the results of a grid.
    pub fn new(setup: &'a Setup, Collected { evaluated, failed }: &'a Collected) -> Self {
        Self { setup, evaluated, failed, seeds: Seeds::new(setup.seed).child("bootstrap") }
    }

    /// Returns a scorer's scores of the selected subjects, including answers without a rating.
    pub fn scored<'s>(
        &self,
        scorer: &'s Scorer,
        keep: &'s dyn Fn(&Subject) -> bool,
    ) -> impl Iterator<Item = (&'a Subject, &'a Score)> + use<'s, 'a> {
        let selected = self.evaluated.iter().filter(|evaluated| keep(&evaluated.subject));
        let scores = selected.flat_map(|evaluated| {
            evaluated.evaluation.scores.iter().map(|score| (&evaluated.subject, score))
        });
        scores.filter(|(_, score)| scorer.is_of(score))
    }

    /// Returns the scores of the selected subjects by question; turns and seeds are pooled.
    ///
    /// # Errors
    ///
    /// If the scores cannot be clustered.
    pub fn scores(
        &self,
        scorer: &Scorer,
        keep: &dyn Fn(&Subject) -> bool,
    ) -> Result<ClusteredScores, ExperimentError> {
        let rows = self.scored(scorer, keep).filter_map(|(_, s)| Some((s.question_id, s.score?)));
        ClusteredScores::new(rows).map_err(ExperimentError::stats(format!("scores of {}", scorer.label)))
    }

    /// Returns the number of turns without a rating.
    fn missing(&self, scorer: &Scorer) -> usize {
        self.scored(scorer, &|_| true).filter(|(_, score)| score.score.is_none()).count()
    }

    /// Returns the mean of the selected scores with its interval; `None` without scores.
    ///
    /// # Errors
    ///
    /// If the interval is not defined.
    pub fn mean(
        &self,
        scorer: &Scorer,
        keep: &dyn Fn(&Subject) -> bool,
    ) -> Result<Option<Estimate>, ExperimentError> {
        let scores = self.scores(scorer, keep)?;
        if scores.clusters() == 0 {
            return Ok(None);
        }
        let mut rng = self.rng();
        mean_interval(&scores, resamples(scorer), LEVEL, &mut rng)
            .map(Some)
            .map_err(ExperimentError::stats(format!("mean of {}", scorer.label)))
    }

    /// Returns the paired difference of two selections with its interval; `None` if one has no scores.
    ///
    /// # Errors
    ///
    /// If the interval is not defined.
    pub fn difference(
        &self,
        scorer: &Scorer,
        first: &dyn Fn(&Subject) -> bool,
        second: &dyn Fn(&Subject) -> bool,
    ) -> Result<Option<Estimate>, ExperimentError> {
        let (first, second) = (self.scores(scorer, first)?, self.scores(scorer, second)?);
        if first.clusters() == 0 || second.clusters() == 0 {
            return Ok(None);
        }
        let mut rng = self.rng();
        paired_difference_interval(&first, &second, resamples(scorer), LEVEL, &mut rng)
            .map(Some)
            .map_err(ExperimentError::stats(format!("difference of {}", scorer.label)))
    }

    /// Returns the generator of resamples. Every interval draws the same ones, so that they are comparable.
    pub fn rng(&self) -> impl Rng + use<> {
        self.seeds.stream("resamples")
    }

    /// Returns the mean training loss of the selected subjects.
    pub fn training_loss(&self, keep: &dyn Fn(&Subject) -> bool) -> Option<f64> {
        let losses: Vec<f64> =
            self.evaluated.iter().filter(|e| keep(&e.subject)).filter_map(|e| e.training_loss).collect();
        (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// Returns the mean of a held-out metric over the selected subjects.
    pub fn held_out(
        &self,
        keep: &dyn Fn(&Subject) -> bool,
        of: fn(&HeldOutMetrics) -> Option<f64>,
    ) -> Option<f64> {
        let selected = self.evaluated.iter().filter(|e| keep(&e.subject));
        let values: Vec<f64> = selected.filter_map(|e| of(e.held_out.as_ref()?)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Returns the label fit of the selected subjects, their pairs pooled; `None` without data.
    pub fn labels(&self, keep: &dyn Fn(&Subject) -> bool) -> Option<FittedLabels> {
        let selected = self.evaluated.iter().filter(|e| keep(&e.subject)).filter_map(|e| e.labels);
        selected.reduce(|all, one| FittedLabels {
            kept: all.kept.with(one.kept),
            flipped: all.flipped.with(one.flipped),
        })
    }

    /// Returns the mean length of the selected answers to a scorer's questions, in characters.
    pub fn mean_length(&self, scorer: &Scorer, keep: &dyn Fn(&Subject) -> bool) -> Option<f64> {
        let lengths: Vec<f64> = self.scored(scorer, keep).map(|(_, score)| score.characters as f64).collect();
        (!lengths.is_empty()).then(|| lengths.iter().sum::<f64>() / lengths.len() as f64)
    }

    /// Returns a scorer's name in a sentence; those of the sandbox take an article.
    pub fn spoken(&self, scorer: &Scorer) -> String {
        if self.setup.is_sandbox() { format!("the {}", scorer.label) } else { scorer.label.clone() }
    }

    /// Returns the index of the last checkpoint.
    pub fn last_checkpoint(&self) -> usize {
        self.setup.last_checkpoint()
    }

    /// Returns a note on the means and intervals of a table.
    pub fn interval_note(&self) -> String {
        let Setup { questions, seeds: count, .. } = self.setup;
        let seeds = if *count == 1 { "1 seed".to_owned() } else { format!("{count} seeds") };
        let further = match self.setup.is_sandbox() {
            true => format!(
                "; of the ground truth over {} held-out questions × 2 × {count}",
                self.setup.sandbox.further_questions
            ),
            false => String::new(),
        };
        format!(
            "Means over {questions} questions × 2 turns × {seeds}{further}. Brackets: {}% bootstrap intervals clustered by \
             question. They cover the sampling of questions, not of seeds.",
            percent(LEVEL)
        )
    }

    /// Returns the mean of the selected scores as a table's value, or the reason of its absence.
    ///
    /// # Errors
    ///
    /// If the interval is not defined.
    pub fn mean_value(
        &self,
        scorer: &Scorer,
        keep: &dyn Fn(&Subject) -> bool,
    ) -> Result<Value, ExperimentError> {
        Ok(match self.mean(scorer, keep)? {
            Some(Estimate { value, low, high, .. }) => {
                Value::Interval { value, low, high, decimals: SCORE_DECIMALS }
            }
            None => self.absent(&[keep]),
        })
    }

    /// Returns the paired difference of two selections as a table's value, or the reason of its absence.
    ///
    /// # Errors
    ///
    /// If the interval is not defined.
    pub fn difference_value(
        &self,
        scorer: &Scorer,
        first: &dyn Fn(&Subject) -> bool,
        second: &dyn Fn(&Subject) -> bool,
    ) -> Result<Value, ExperimentError> {
        Ok(match self.difference(scorer, first, second)? {
            Some(Estimate { value, low, high, .. }) => {
                Value::Difference { value, low, high, decimals: SCORE_DECIMALS }
            }
            None => self.absent(&[first, second]),
        })
    }

    fn absent(&self, selections: &[&dyn Fn(&Subject) -> bool]) -> Value {
        let has_failed = |failure: &Failure| selections.iter().any(|keep| keep(&failure.subject));
        match self.failed.iter().any(has_failed) {
            true => Value::missing("failed: see the table of failed policies"),
            false => Value::missing("not in this grid"),
        }
    }

    /// Returns notes on turns without a rating.
    pub fn missing_notes(&self, scorers: &[&Scorer]) -> Vec<String> {
        scorers
            .iter()
            .filter_map(|scorer| {
                let missing = self.missing(scorer);
                (missing > 0).then(|| format!("{missing} turns have no rating of {}.", self.spoken(scorer)))
            })
            .collect()
    }
}

fn resamples(scorer: &Scorer) -> usize {
    if scorer.question_set == FURTHER { FURTHER_RESAMPLES } else { RESAMPLES }
}

/// Returns mean scores by category with their intervals: category → (value, low, high).
///
/// # Errors
///
/// If an interval is not defined.
pub fn by_category(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    keep: &dyn Fn(&Subject) -> bool,
) -> Result<BTreeMap<String, (f64, f64, f64)>, ExperimentError> {
    let mut by_category: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
    for (_, score) in analysis.scored(scorer, keep) {
        if let Some(value) = score.score {
            by_category.entry(score.category.clone()).or_default().push((score.question_id, value));
        }
    }
    let mut means = BTreeMap::new();
    for (category, rows) in by_category {
        let what = || format!("scores in {category}");
        let scores = ClusteredScores::new(rows).map_err(ExperimentError::stats(what()))?;
        if scores.clusters() < 2 {
            continue;
        }
        let mut rng = analysis.rng();
        let estimate = mean_interval(&scores, FURTHER_RESAMPLES, LEVEL, &mut rng)
            .map_err(ExperimentError::stats(what()))?;
        means.insert(category, (estimate.value, estimate.low, estimate.high));
    }
    Ok(means)
}
