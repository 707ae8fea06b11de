//! Contrasts of policies, with seed variances that all policies of a study share.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use stats::{CrossedScores, MeanSquare, Observation, PooledSeeds, Pooling, join_small_groups};

use crate::cell::Subject;
use crate::error::ExperimentError;
use crate::evaluated::{Evaluated, EvaluationId};
use crate::scorers::Scorer;
use crate::setup::Setup;

/// Share of flipped labels from which the seeds of a policy vary more than those of a policy on clean labels.
const HEAVILY_FLIPPED: f64 = 0.1;

/// The evaluated policies of a study, from which all of its differences take the variance between seeds.
///
/// A policy here is a subject without its seed. Two to four seeds of one policy are too few for an estimate of the
/// variance between seeds, so it is pooled over policies whose seeds vary alike: [`PolicyGroup`].
pub struct Pools<'a> {
    setup: &'a Setup,
    evaluated: Vec<&'a Evaluated>,
    made: RefCell<BTreeMap<ScorerId, Option<Rc<Pool>>>>,
}

/// The name of a scorer and its question set.
type ScorerId = (String, &'static str);

/// A group of policies whose seeds vary alike; known before the scores are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyGroup {
    /// The bits of the learning rate, if it differs from the setup's: faster training varies more.
    learning_rate: Option<u64>,
    stage: Stage,
}

/// The labels of a policy, and how far its training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Trained policies on clean labels, and the supervised policy.
    Clean,
    /// Trained policies with 10% of flipped labels or more.
    Flipped,
    /// Checkpoints before the end of training.
    Early,
}

/// The policies of a study under one scorer.
pub struct Pool {
    policies: Vec<Subject>,
    groups: Vec<PolicyGroup>,
    cells: Vec<CrossedScores>,
    strata: BTreeMap<u64, u64>,
    pooling: Pooling,
    study: PooledSeeds,
    judge: Option<MeanSquare>,
}

impl PolicyGroup {
    fn of(policy: &Subject, last: usize) -> Self {
        let Subject::Trained { cell, checkpoint } = policy else { return Self::CLEAN };
        let stage = match cell.flip_rate.get() >= HEAVILY_FLIPPED {
            true => Stage::Flipped,
            false if *checkpoint < last => Stage::Early,
            false => Stage::Clean,
        };
        Self { learning_rate: cell.learning_rate.map(f64::to_bits), stage }
    }

    const CLEAN: Self = Self { learning_rate: None, stage: Stage::Clean };

    /// Returns its name in tables.
    pub fn name(self) -> String {
        let stage = match self.stage {
            Stage::Clean => "clean labels",
            Stage::Flipped => "10% flipped labels or more",
            Stage::Early => "earlier checkpoints",
        };
        let rate = self.learning_rate.map(|bits| format!(", learning rate {:e}", f64::from_bits(bits)));
        format!("{stage}{}", rate.unwrap_or_default())
    }
}

impl<'a> Pools<'a> {
    /// Returns the pools of these subjects, each of which counts once.
    pub fn new(setup: &'a Setup, evaluated: impl IntoIterator<Item = &'a Evaluated>) -> Self {
        let mut seen: BTreeSet<EvaluationId> = BTreeSet::new();
        let evaluated = evaluated.into_iter().filter(|evaluated| seen.insert(evaluated.id())).collect();
        Self { setup, evaluated, made: RefCell::default() }
    }

    /// Returns the policies under a scorer; `None` if fewer than two questions have scores.
    ///
    /// # Errors
    ///
    /// If the variances are not defined.
    pub fn of(&self, scorer: &Scorer) -> Result<Option<Rc<Pool>>, ExperimentError> {
        let key = (scorer.name.clone(), scorer.question_set);
        if let Some(pool) = self.made.borrow().get(&key) {
            return Ok(pool.clone());
        }
        let pool = self.pool(scorer)?.map(Rc::new);
        self.made.borrow_mut().insert(key, pool.clone());
        Ok(pool)
    }

    fn pool(&self, scorer: &Scorer) -> Result<Option<Pool>, ExperimentError> {
        let failed = || ExperimentError::stats(format!("variances of {}", scorer.label));
        let (mut policies, mut scores): (Vec<Subject>, Vec<Vec<&Evaluated>>) = Default::default();
        for &evaluated in &self.evaluated {
            let policy = evaluated.subject.without_seed();
            match policies.iter().position(|known| *known == policy) {
                Some(at) => scores[at].push(evaluated),
                None => {
                    policies.push(policy);
                    scores.push(vec![evaluated]);
                }
            }
        }
        let mut kept = (Vec::new(), Vec::new());
        let mut strata: BTreeMap<u64, u64> = BTreeMap::new();
        let mut categories: Vec<&str> = Vec::new();
        for (policy, evaluated) in policies.into_iter().zip(&scores) {
            let rows = complete_rows(evaluated, scorer);
            if rows.iter().map(|row| row.question).collect::<BTreeSet<_>>().len() < 2 {
                continue;
            }
            kept.0.push(policy);
            kept.1.push(CrossedScores::new(rows).map_err(failed())?);
            for score in evaluated.iter().flat_map(|e| &e.evaluation.scores).filter(|s| scorer.is_of(s)) {
                let known = categories.iter().position(|category| *category == score.category);
                let at = known.unwrap_or_else(|| {
                    categories.push(&score.category);
                    categories.len() - 1
                });
                strata.insert(score.question_id, at as u64);
            }
        }
        let (policies, cells) = kept;
        if policies.is_empty() {
            return Ok(None);
        }
        let last = self.setup.last_checkpoint();
        let groups: Vec<PolicyGroup> = policies.iter().map(|policy| PolicyGroup::of(policy, last)).collect();
        let judge = judge_variance(self.evaluated.iter().copied(), scorer, self.setup);
        Pool::new(policies, groups, cells, strata).map(|pool| Some(Pool { judge, ..pool })).map_err(failed())
    }
}

/// Returns the variance between ratings of the same answer; `None` for a judge that rates once.
fn judge_variance<'a>(
    evaluated: impl Iterator<Item = &'a Evaluated>,
    scorer: &Scorer,
    setup: &Setup,
) -> Option<MeanSquare> {
    let scores =
        evaluated.flat_map(|evaluated| &evaluated.evaluation.scores).filter(|score| scorer.is_of(score));
    let variances: Vec<f64> = scores.filter_map(|score| score.judge_variance).collect();
    let repeats = setup
        .judge
        .all()
        .find(|judge| judge.name() == scorer.name)
        .map_or(setup.judge.repeats, |judge| judge.repeats);
    let degrees_of_freedom = variances.len() as f64 * (f64::from(repeats.get()) - 1.0);
    let value = variances.iter().sum::<f64>() / variances.len() as f64;
    (degrees_of_freedom > 0.0).then_some(MeanSquare { value, degrees_of_freedom })
}

impl Pool {
    fn new(
        policies: Vec<Subject>,
        groups: Vec<PolicyGroup>,
        cells: Vec<CrossedScores>,
        strata: BTreeMap<u64, u64>,
    ) -> Result<Self, stats::Error> {
        let seeds: Vec<usize> = cells.iter().map(|cell| cell.design().seeds).collect();
        let groups = join_small_groups(&groups, &seeds);
        // Equal seeds share data and the random streams of answers.
        let pooling = match seeds.iter().any(|&seeds| seeds > 1) {
            true => Pooling::Paired,
            false => Pooling::Fixed,
        };
        let study = study(&groups, &cells, &strata, pooling)?;
        Ok(Self { policies, groups, cells, strata, pooling, study, judge: None })
    }

    /// Returns the policies of the study with seed 0, in the order of its cells.
    pub fn policies(&self) -> &[Subject] {
        &self.policies
    }

    /// Returns the statistics of the study.
    pub fn study(&self) -> &PooledSeeds {
        &self.study
    }

    /// Returns the scores of the policy with index `at`.
    pub fn scores(&self, at: usize) -> &CrossedScores {
        &self.cells[at]
    }

    /// Returns the variance between ratings of the same answer; `None` for a judge that rates once.
    pub fn judge_variance(&self) -> Option<MeanSquare> {
        self.judge
    }

    /// Returns whether differences generalize to new seeds: there are several.
    pub fn has_seeds(&self) -> bool {
        self.pooling != Pooling::Fixed
    }

    /// Returns the group of each variance of [`PooledSeeds::seed_variances`].
    pub fn group(&self, variance: &stats::SeedVariance) -> PolicyGroup {
        let ids = ids(&self.groups);
        let found = self.groups.iter().zip(ids).find(|(_, id)| *id == variance.group);
        found.map_or(PolicyGroup::CLEAN, |(group, _)| *group)
    }

    /// Returns the statistics of the study with further cells of the clean group, such as cross-fitted choices.
    ///
    /// # Errors
    ///
    /// If the variances are not defined.
    pub fn with_cells(&self, further: &[CrossedScores]) -> Result<PooledSeeds, stats::Error> {
        let clean = self.groups.first().copied().unwrap_or(PolicyGroup::CLEAN);
        let groups: Vec<PolicyGroup> =
            self.groups.iter().copied().chain(further.iter().map(|_| clean)).collect();
        let cells: Vec<CrossedScores> = self.cells.iter().chain(further).cloned().collect();
        study(&groups, &cells, &self.strata, self.pooling)
    }
}

fn study(
    groups: &[PolicyGroup],
    cells: &[CrossedScores],
    strata: &BTreeMap<u64, u64>,
    pooling: Pooling,
) -> Result<PooledSeeds, stats::Error> {
    let cells = ids(groups).into_iter().zip(cells);
    let study = PooledSeeds::new(cells, pooling)?;
    let stratified = study.clone().with_strata(|question| strata.get(&question).copied().unwrap_or_default());
    // A category with a single question has no variance: the questions then count as one sample.
    Ok(stratified.unwrap_or(study))
}

/// Returns a number for each group, in the order of groups.
fn ids(groups: &[PolicyGroup]) -> Vec<u64> {
    let all: BTreeSet<PolicyGroup> = groups.iter().copied().collect();
    groups.iter().map(|group| all.range(..group).count() as u64).collect()
}

/// Returns a policy's scores, turns averaged, on the questions that every seed has completely. A turn without a rating
/// excludes its question.
fn complete_rows(evaluated: &[&Evaluated], scorer: &Scorer) -> Vec<Observation> {
    let mut sums: BTreeMap<(u64, u64, u64), (f64, f64)> = BTreeMap::new();
    let mut incomplete: BTreeSet<u64> = BTreeSet::new();
    for (seed, score) in evaluated.iter().flat_map(|evaluated| {
        let seed = evaluated.subject.seed();
        evaluated.evaluation.scores.iter().filter(|score| scorer.is_of(score)).map(move |score| (seed, score))
    }) {
        let Some(value) = score.score else {
            incomplete.insert(score.question_id);
            continue;
        };
        let (sum, turns) = sums.entry((seed, score.question_id, score.sample)).or_default();
        *sum += value;
        *turns += 1.0;
    }
    let seeds: BTreeSet<u64> = sums.keys().map(|(seed, ..)| *seed).collect();
    let samples: BTreeSet<u64> = sums.keys().map(|(.., sample)| *sample).collect();
    let mut answers: BTreeMap<u64, usize> = BTreeMap::new();
    sums.keys().for_each(|(_, question, _)| *answers.entry(*question).or_default() += 1);
    incomplete.extend(answers.iter().filter(|(_, n)| **n != seeds.len() * samples.len()).map(|(id, _)| *id));
    let rows = sums.into_iter().filter(|((_, question, _), _)| !incomplete.contains(question));
    let row = |((seed, question, sample), (sum, turns)): ((u64, u64, u64), (f64, f64))| Observation {
        seed,
        question,
        turn: 1,
        repeat: sample,
        score: sum / turns,
    };
    rows.map(row).collect()
}
