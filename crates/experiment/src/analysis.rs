//! Statistics of evaluated subjects: means and differences with their intervals.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use rand::Rng;
use report::table::Value;
use seeds::Seeds;
use stats::{ClusteredScores, Estimate, MeanEstimate, Method, Resamples, mean_intervals};
use trainer::HeldOutMetrics;

use crate::cell::{Subject, percent};
use crate::error::ExperimentError;
use crate::evaluated::{Collected, Evaluated, FURTHER, Score};
use crate::failure::Failure;
use crate::fitted::FittedLabels;
use crate::pools::{Pool, Pools};
use crate::scorers::Scorer;
use crate::setup::Setup;

/// Confidence level of every interval.
pub const LEVEL: f64 = 0.95;
/// Bootstrap resamples of an interval.
pub const RESAMPLES: usize = 10_000;
/// Decimals of scores in tables.
pub const SCORE_DECIMALS: usize = 2;
/// Bootstrap resamples for the held-out questions, whose intervals are narrow.
const FURTHER_RESAMPLES: usize = 2_000;

/// Statistics of evaluated subjects.
pub struct Analysis<'a> {
    /// The setup of the experiment.
    pub setup: &'a Setup,
    /// The evaluated subjects.
    pub evaluated: &'a [Evaluated],
    /// The failed subjects.
    pub failed: &'a [Failure],
    seeds: Seeds,
    pools: Rc<Pools<'a>>,
    /// The policies of `evaluated`, with seed 0, and their subjects.
    policies: Vec<(Subject, Vec<&'a Subject>)>,
    /// The resamples of means, by their numbers of questions and of resamples. Drawing them again takes most of a table's time.
    drawn: RefCell<BTreeMap<(usize, usize), Rc<Resamples>>>,
}

/// A selection of subjects.
pub type Selection<'s> = &'s dyn Fn(&Subject) -> bool;

impl<'a> Analysis<'a> {
    /// Analyzes the results of a grid, whose policies share the variance between seeds.
    pub fn new(setup: &'a Setup, collected: &'a Collected) -> Self {
        Self::within(setup, collected, Rc::new(Pools::new(setup, &collected.evaluated)))
    }

    /// Analyzes the results of a grid that is a part of the study in `pools`.
    pub fn within(
        setup: &'a Setup,
        Collected { evaluated, failed }: &'a Collected,
        pools: Rc<Pools<'a>>,
    ) -> Self {
        let mut policies: Vec<(Subject, Vec<&Subject>)> = Vec::new();
        for subject in evaluated.iter().map(|evaluated| &evaluated.subject) {
            let policy = subject.without_seed();
            match policies.iter_mut().find(|(known, _)| *known == policy) {
                Some((_, subjects)) => subjects.push(subject),
                None => policies.push((policy, vec![subject])),
            }
        }
        let seeds = Seeds::new(setup.seed).child("bootstrap");
        Self { setup, evaluated, failed, seeds, pools, policies, drawn: RefCell::default() }
    }

    /// Returns the policies of the study under a scorer; `None` without scores.
    ///
    /// # Errors
    ///
    /// If the variances are not defined.
    pub fn pool(&self, scorer: &Scorer) -> Result<Option<Rc<Pool>>, ExperimentError> {
        self.pools.of(scorer)
    }

    /// Returns the indices in `pool` of the policies of this grid of which a subject is selected.
    pub fn selected(&self, pool: &Pool, keep: Selection<'_>) -> Vec<usize> {
        let is_selected = |policy: &Subject| {
            let subjects = self.policies.iter().filter(|(known, _)| known == policy).flat_map(|(_, of)| of);
            subjects.into_iter().any(|subject| keep(subject))
        };
        (0..pool.policies().len()).filter(|&at| is_selected(&pool.policies()[at])).collect()
    }

    /// Returns the evaluated subjects of a policy, one for each seed.
    pub fn seeds_of<'s>(&'s self, policy: &'s Subject) -> impl Iterator<Item = &'a Evaluated> + 's {
        self.evaluated.iter().filter(move |evaluated| evaluated.subject.without_seed() == *policy)
    }

    /// Returns the weights of a weighted sum of mean scores of selections on the policies of `pool`; `None` if a
    /// selection is empty.
    pub fn weights(&self, pool: &Pool, terms: &[(f64, Selection<'_>)]) -> Option<Vec<f64>> {
        let mut weights = vec![0.0; pool.policies().len()];
        for (weight, keep) in terms {
            let selected = self.selected(pool, keep);
            if selected.is_empty() {
                return None;
            }
            for &at in &selected {
                weights[at] += weight / selected.len() as f64;
            }
        }
        Some(weights)
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
        let interval = self.interval(&scores, resamples(scorer));
        interval.map(Some).map_err(ExperimentError::stats(format!("mean of {}", scorer.label)))
    }

    /// Returns the mean of scores with its percentile interval.
    fn interval(&self, scores: &ClusteredScores, resamples: usize) -> Result<Estimate, stats::Error> {
        let draws = self.draws(scores.clusters(), resamples)?;
        Ok(mean_intervals(&[scores], &draws, LEVEL, Method::Percentile)?.remove(0))
    }

    /// Returns the resamples of a number of questions. All means of that many questions share them.
    fn draws(&self, clusters: usize, resamples: usize) -> Result<Rc<Resamples>, stats::Error> {
        let key = (clusters, resamples);
        if let Some(drawn) = self.drawn.borrow().get(&key) {
            return Ok(Rc::clone(drawn));
        }
        let drawn = Rc::new(Resamples::draw(clusters, resamples, &mut self.rng())?);
        self.drawn.borrow_mut().insert(key, Rc::clone(&drawn));
        Ok(drawn)
    }

    /// Returns the difference of two selections over new questions and, if there are several seeds, new seeds; `None` if
    /// one has no scores.
    ///
    /// # Errors
    ///
    /// If the difference is not defined.
    pub fn difference(
        &self,
        scorer: &Scorer,
        first: Selection<'_>,
        second: Selection<'_>,
    ) -> Result<Option<MeanEstimate>, ExperimentError> {
        let Some(pool) = self.pool(scorer)? else { return Ok(None) };
        let Some(weights) = self.weights(&pool, &[(1.0, first), (-1.0, second)]) else { return Ok(None) };
        match pool.study().contrast(&weights) {
            Ok(estimate) => Ok(Some(estimate)),
            Err(stats::Error::TooFewClusters { .. }) => Ok(None),
            Err(error) => Err(ExperimentError::stats(format!("difference of {}", scorer.label))(error)),
        }
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

    /// Returns a note on the differences of a table.
    pub fn difference_note(&self) -> String {
        match self.setup.seeds {
            1 => "Differences: t-intervals over questions, stratified by category. With one seed they apply to these very \
                  policies, and to no other run of the same training."
                .to_owned(),
            _ => "Differences: t-intervals over questions, stratified by category, and seeds. The variance between seeds is \
                  pooled over the policies of the study."
                .to_owned(),
        }
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
        let Some(difference) = self.difference(scorer, first, second)? else {
            return Ok(self.absent(&[first, second]));
        };
        let failed = ExperimentError::stats(format!("difference of {}", scorer.label));
        let interval = difference.interval(LEVEL).map_err(failed)?;
        let (value, low, high) = (difference.value, interval.low, interval.high);
        Ok(Value::Difference { value, low, high, decimals: SCORE_DECIMALS })
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
        let estimate =
            analysis.interval(&scores, FURTHER_RESAMPLES).map_err(ExperimentError::stats(what()))?;
        means.insert(category, (estimate.value, estimate.low, estimate.high));
    }
    Ok(means)
}
