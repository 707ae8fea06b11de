//! Coverage of 95% intervals, if the ground truth is known: a check of intervals and judges.
//!
//! The ground truth of a policy is its mean gold quality on the held-out questions.

use std::collections::{BTreeMap, BTreeSet};

use experiment::{Analysis, EvaluationId, ExperimentError, LEVEL, Scorer, Scorers, Setup, Subject, percent};
use report::table::{Align, Column, Table, Value};
use stats::{
    ClusteredScores, Estimate, MeanEstimate, Method, Resamples, clopper_pearson_interval,
    difference_interval, mean_intervals,
};

use crate::error::StudyError;

/// Bootstrap resamples; fewer than for printed intervals, since only coverage counts.
const RESAMPLES: usize = 2_000;

/// Intervals compared with the ground truth, over all research questions of a study.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    seen: BTreeSet<EvaluationId>,
    /// By scorer, in the order of first appearance.
    on_benchmark: Vec<(String, Coverages)>,
    /// Gold on sets of held-out questions of the benchmark's size, set by set.
    on_sets: Vec<Coverages>,
}

/// The intervals of one scorer.
#[derive(Clone, Copy, Debug, Default)]
struct Coverages {
    score: Count,
    difference: Count,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    intervals: u64,
    covered: u64,
    /// Sum of estimate − truth.
    errors: f64,
}

/// A policy's scores and their ground truth.
struct Measured {
    scores: ClusteredScores,
    truth: f64,
}

impl Coverage {
    /// Adds the policies of one research question, each once.
    pub(crate) fn add(&mut self, analysis: &Analysis<'_>) -> Result<(), StudyError> {
        let scorers = Scorers::of(analysis.setup);
        let Some([gold, held_out]) = &scorers.gold else { return Ok(()) };
        let sets = sets(analysis, gold, held_out);
        self.on_sets.resize(sets.len().max(self.on_sets.len()), Coverages::default());
        let mut draws = Draws { analysis, made: BTreeMap::new() };
        for evaluated in analysis.evaluated {
            if !self.seen.insert(evaluated.id()) {
                continue;
            }
            let subject = &evaluated.subject;
            let baseline = Subject::Baseline { seed: subject.seed() };
            let baseline = (*subject != baseline).then_some(&baseline);
            for scorer in [&scorers.judge].into_iter().chain(&scorers.second).chain([gold]) {
                let of = |subject| measured(analysis, subject, (scorer, &|_| true), (held_out, &|_| true));
                let (policy, baseline) = (of(subject)?, baseline.map(of).transpose()?);
                self.of_scorer(&scorer.label).compare(&policy, baseline.as_ref(), &mut draws)?;
            }
            for (set, held) in sets.iter().zip(&mut self.on_sets) {
                let inside = |question: u64| set.contains(&question);
                let outside = |question: u64| !set.contains(&question);
                let of = |subject| measured(analysis, subject, (held_out, &inside), (held_out, &outside));
                held.compare(&of(subject)?, baseline.map(of).transpose()?.as_ref(), &mut draws)?;
            }
        }
        Ok(())
    }

    fn of_scorer(&mut self, label: &str) -> &mut Coverages {
        let at = self.on_benchmark.iter().position(|(name, _)| name == label).unwrap_or_else(|| {
            self.on_benchmark.push((label.to_owned(), Coverages::default()));
            self.on_benchmark.len() - 1
        });
        &mut self.on_benchmark[at].1
    }

    /// Returns the table of coverage; `None` without ground truth.
    pub(crate) fn table(&self, setup: &Setup) -> Result<Option<Table>, StudyError> {
        if self.on_benchmark.is_empty() {
            return Ok(None);
        }
        let questions = setup.questions;
        let further = setup.sandbox.further_questions;
        let mut rows = Vec::new();
        let benchmark = format!("the benchmark's {questions}");
        for (scorer, held) in &self.on_benchmark {
            for (what, count) in held.counts() {
                rows.extend(count.row([scorer, &benchmark, what], &count.binomial()?));
            }
        }
        let sets = format!("{} other sets of {questions}", self.on_sets.len());
        for at in 0..self.on_sets.first().map_or(0, |held| held.counts().len()) {
            let what = Coverages::default().counts()[at].0;
            let by_set: Vec<Count> = self.on_sets.iter().map(|held| held.counts()[at].1).collect();
            let all = by_set.iter().fold(Count::default(), |all, &one| all.with(one));
            rows.extend(all.row(["gold", &sets, what], &over_sets(&by_set)?));
        }
        Ok(Some(Table {
            id: "coverage".into(),
            title: format!("Coverage of 95% intervals over {questions} questions"),
            columns: [("Scorer", Align::Left), ("Questions", Align::Left), ("Estimate", Align::Left)]
                .into_iter()
                .chain(
                    ["Intervals", "Covered", "Coverage, %", "Mean error"].map(|title| (title, Align::Right)),
                )
                .map(|(title, align)| Column::new(title, align))
                .collect(),
            rows,
            notes: notes(further),
        }))
    }
}

fn notes(further: usize) -> Vec<String> {
    let level = percent(LEVEL);
    vec![
        format!(
            "Covered: intervals that contain the ground truth, for each policy, seed and checkpoint. The ground truth is mean gold \
             quality on {further} held-out questions (for the other sets: on those outside of the set). It has a sampling error, so \
             that the coverage of a correct interval is slightly below {level}%. Mean error: estimate − ground truth, in points. A \
             judge whose intervals miss the ground truth while those of gold cover it is biased."
        ),
        "Brackets: for the benchmark, exact binomial 95% intervals that treat policies as independent. They are too narrow, since all \
         policies answer the same questions. The other sets are independent of each other: their brackets are t-intervals over \
         sets."
            .to_owned(),
    ]
}

impl Coverages {
    fn compare(
        &mut self,
        policy: &Measured,
        baseline: Option<&Measured>,
        draws: &mut Draws<'_>,
    ) -> Result<(), StudyError> {
        self.score.compare(draws.mean(&policy.scores)?, policy.truth);
        if let Some(baseline) = baseline {
            let interval = draws.difference(&policy.scores, &baseline.scores)?;
            self.difference.compare(interval, policy.truth - baseline.truth);
        }
        Ok(())
    }

    fn counts(&self) -> [(&'static str, Count); 2] {
        [("score", self.score), ("difference from SFT", self.difference)]
    }
}

impl Count {
    fn compare(&mut self, interval: Estimate, truth: f64) {
        self.intervals += 1;
        self.covered += u64::from(!interval.excludes(truth));
        self.errors += interval.value - truth;
    }

    fn with(self, other: Self) -> Self {
        Self {
            intervals: self.intervals + other.intervals,
            covered: self.covered + other.covered,
            errors: self.errors + other.errors,
        }
    }

    fn share(self) -> f64 {
        self.covered as f64 / self.intervals.max(1) as f64
    }

    fn binomial(self) -> Result<[f64; 2], StudyError> {
        if self.intervals == 0 {
            return Ok([f64::NAN; 2]);
        }
        let interval = clopper_pearson_interval(self.covered, self.intervals, LEVEL);
        let interval = interval.map_err(StudyError::stats("coverage"))?;
        Ok([interval.low, interval.high])
    }

    /// Returns a row of the table; `None` without intervals.
    fn row(self, names: [&str; 3], [low, high]: &[f64; 2]) -> Option<Vec<Value>> {
        let mut row: Vec<Value> = names.into_iter().map(Value::text).collect();
        row.extend([Value::Count(self.intervals), Value::Count(self.covered)]);
        let share = |share: f64| 100.0 * share;
        row.push(Value::Interval {
            value: share(self.share()),
            low: share(*low),
            high: share(*high),
            decimals: 1,
        });
        row.push(Value::Number { value: self.errors / self.intervals as f64, decimals: 2 });
        (self.intervals > 0).then_some(row)
    }
}

/// Returns a t-interval of the share over sets, within [0, 1]; NaN for one set.
fn over_sets(by_set: &[Count]) -> Result<[f64; 2], StudyError> {
    let shares: Vec<f64> = by_set.iter().map(|count| count.share()).collect();
    if shares.len() < 2 {
        return Ok([f64::NAN; 2]);
    }
    let interval = MeanEstimate::of(&shares).and_then(|mean| mean.interval(LEVEL));
    let interval = interval.map_err(StudyError::stats("coverage of other sets"))?;
    Ok([interval.low.max(0.0), interval.high.min(1.0)])
}

/// Returns the scores on the questions of `on`, and the ground truth from those of `held_out`.
fn measured(
    analysis: &Analysis<'_>,
    subject: &Subject,
    on: (&Scorer, &dyn Fn(u64) -> bool),
    held_out: (&Scorer, &dyn Fn(u64) -> bool),
) -> Result<Measured, StudyError> {
    let scores = |(scorer, keep): (&Scorer, &dyn Fn(u64) -> bool)| {
        let is_subject = |other: &Subject| other == subject;
        let rows = analysis.scored(scorer, &is_subject).filter(|(_, score)| keep(score.question_id));
        ClusteredScores::new(rows.filter_map(|(_, score)| Some((score.question_id, score.score?))))
            .map_err(StudyError::stats(format!("scores of {}", scorer.label)))
    };
    let truth = scores(held_out)?.mean().ok_or_else(|| {
        ExperimentError::Unsupported(format!("{subject}: no held-out question has a gold score"))
    })?;
    Ok(Measured { scores: scores(on)?, truth })
}

/// Returns disjoint sets of held-out questions with the benchmark's number of questions per category.
fn sets(analysis: &Analysis<'_>, gold: &Scorer, held_out: &Scorer) -> Vec<BTreeSet<u64>> {
    // All policies answer the same questions.
    let Some(first) = analysis.evaluated.first().map(|evaluated| &evaluated.subject) else {
        return Vec::new();
    };
    let by_category = |scorer: &Scorer| {
        let mut ids: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (_, score) in analysis.scored(scorer, &|subject| subject == first) {
            ids.entry(&score.category).or_default().insert(score.question_id);
        }
        ids
    };
    let (wanted, there) = (by_category(gold), by_category(held_out));
    let of = |category: &str| there.get(category).map_or(0, BTreeSet::len);
    let sets = wanted.iter().map(|(category, ids)| of(category) / ids.len()).min().unwrap_or(0);
    let set = |at: usize| {
        let parts = wanted.iter().flat_map(|(category, ids)| {
            there.get(category).into_iter().flatten().skip(at * ids.len()).take(ids.len()).copied()
        });
        parts.collect()
    };
    (0..sets).map(set).collect()
}

/// Resamples, one for each number of questions.
struct Draws<'a> {
    analysis: &'a Analysis<'a>,
    made: BTreeMap<usize, Resamples>,
}

impl Draws<'_> {
    fn mean(&mut self, scores: &ClusteredScores) -> Result<Estimate, StudyError> {
        let draws = self.of(scores.clusters())?;
        let intervals = mean_intervals(&[scores], draws, LEVEL, Method::Percentile);
        Ok(intervals.map_err(StudyError::stats("coverage"))?[0])
    }

    fn difference(
        &mut self,
        first: &ClusteredScores,
        second: &ClusteredScores,
    ) -> Result<Estimate, StudyError> {
        let draws = self.of(first.clusters())?;
        difference_interval(first, second, draws, LEVEL, Method::Percentile)
            .map_err(StudyError::stats("coverage"))
    }

    fn of(&mut self, clusters: usize) -> Result<&Resamples, StudyError> {
        if !self.made.contains_key(&clusters) {
            let drawn = Resamples::draw(clusters, RESAMPLES, &mut self.analysis.rng());
            self.made.insert(clusters, drawn.map_err(StudyError::stats("coverage"))?);
        }
        Ok(&self.made[&clusters])
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use seeds::Seeds;

    use super::*;
    use experiment::{BENCHMARK, Collected, Evaluated, Evaluation, FURTHER, GOLD, Key, Score};

    use crate::recipe::{Preset, StudyRecipe};

    const POLICIES: u64 = 40;
    const BIAS: f64 = 1.0;

    /// A policy with scores around 6, an unbiased judge and a biased one.
    fn policy(setup: &Setup, seed: u64) -> Evaluated {
        let scorers = Scorers::of(setup);
        let biased = scorers.second.expect("the sandbox has one").name;
        let mut rng = Seeds::new(seed).stream("scores");
        let mut scores = Vec::new();
        for (set, questions) in [(BENCHMARK, 80), (FURTHER, 1_000)] {
            for question_id in 0..questions {
                let truth = 6.0 + rng.random_range(-3.0..3.0);
                let mut add = |scorer: &str, value: f64| {
                    scores.push(Score {
                        question_set: set.to_owned(),
                        question_id,
                        category: ["writing", "math"][question_id as usize % 2].to_owned(),
                        sample: 0,
                        turn: 1,
                        scorer: scorer.to_owned(),
                        score: Some(value),
                        judge_variance: None,
                        characters: 10,
                    });
                };
                add(GOLD, truth);
                if set == BENCHMARK {
                    add(&scorers.judge.name, truth);
                    add(&biased, truth + BIAS);
                }
            }
        }
        Evaluated {
            subject: Subject::Baseline { seed },
            evaluation: Evaluation::from_scores(scores),
            key: Key::of("source", &"sandbox"),
            step: 0,
            training_loss: None,
            held_out: None,
            labels: None,
        }
    }

    #[test]
    fn unbiased_intervals_cover_the_ground_truth_and_biased_ones_do_not() {
        let recipe = StudyRecipe::preset(Preset::Sandbox, &[]).unwrap().setup();
        let evaluated = (0..POLICIES).map(|seed| policy(&recipe, seed)).collect();
        let collected = Collected { evaluated, failed: Vec::new() };
        let analysis = Analysis::new(&recipe, &collected);
        let mut coverage = Coverage::default();
        coverage.add(&analysis).unwrap();
        coverage.add(&analysis).unwrap();
        let shares: Vec<(&str, Count)> =
            coverage.on_benchmark.iter().map(|(name, held)| (name.as_str(), held.score)).collect();
        assert!(shares.iter().all(|(_, count)| count.intervals == POLICIES), "each policy once: {shares:?}");
        let [(_, judge), (_, biased), (gold, of_gold)] = shares[..] else { panic!("{shares:?}") };
        assert_eq!((gold, judge), ("gold", of_gold));
        assert!((0.85..=1.0).contains(&of_gold.share()), "{of_gold:?}");
        assert!(biased.share() < 0.2 && (biased.errors / POLICIES as f64 - BIAS).abs() < 0.1, "{biased:?}");

        assert_eq!(coverage.on_sets.len(), 12, "1000 questions hold twelve sets of 80");
        let all = coverage.on_sets.iter().fold(Count::default(), |all, held| all.with(held.score));
        assert_eq!(all.intervals, 12 * POLICIES);
        assert!((0.91..0.97).contains(&all.share()), "{all:?}");

        let table = coverage.table(&recipe).unwrap().unwrap();
        assert_eq!(table.rows.len(), 4, "no policy differs from SFT here: {:?}", table.rows);
    }

    #[test]
    fn sets_are_disjoint_and_have_the_categories_of_the_benchmark() {
        let recipe = StudyRecipe::preset(Preset::Sandbox, &[]).unwrap().setup();
        let collected = Collected { evaluated: vec![policy(&recipe, 0)], failed: Vec::new() };
        let analysis = Analysis::new(&recipe, &collected);
        let scorers = Scorers::of(&recipe);
        let [gold, held_out] = scorers.gold.as_ref().unwrap();
        let sets = sets(&analysis, gold, held_out);
        assert!(sets.iter().all(|set| set.len() == 80 && set.iter().filter(|id| *id % 2 == 0).count() == 40));
        assert_eq!(sets.iter().flatten().collect::<BTreeSet<_>>().len(), 80 * sets.len());
    }
}
