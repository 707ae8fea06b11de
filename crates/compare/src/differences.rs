//! Complete scores of one scorer, and differences between arms.

use std::collections::{BTreeMap, BTreeSet};

use stats::{
    CrossedScores, MeanEstimate, Observation, PooledSeeds, Pooling, SeedVariance, VarianceParts,
    join_small_groups,
};

use crate::{Error, Scores};

/// The means of one scorer by arm, seed and question, on the questions that all compared arms have.
#[derive(Debug)]
pub(crate) struct Complete {
    /// The kept questions, as indices of [`Scores`].
    pub(crate) questions: Vec<usize>,
    /// The questions that are left out, with the reason.
    pub(crate) left_out: Vec<(usize, String)>,
    /// The arms that have all kept questions, with the mean of each seed and kept question, `[seeds][questions]`.
    pub(crate) arms: BTreeMap<usize, Vec<Vec<f64>>>,
    /// The seeds of these arms.
    seeds: BTreeMap<usize, Vec<usize>>,
    /// The groups of these arms whose seeds vary alike.
    groups: BTreeMap<usize, u64>,
    pooling: Pooling,
    /// Strata of the kept questions, by position; one for all without categories.
    strata: Vec<usize>,
}

/// An estimated difference with its variances by source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    pub(crate) estimate: MeanEstimate,
    /// `None` if the arms have different numbers of seeds.
    pub(crate) parts: Option<VarianceParts>,
}

/// Scores of one answer's turn: their sum and number.
type Cell = BTreeMap<usize, (f64, usize)>;

impl Complete {
    /// Collects the scores of `scorer` on the questions on which each of `compared` is complete.
    pub(crate) fn new(scores: &Scores, scorer: usize, compared: &BTreeSet<usize>) -> Result<Self, Error> {
        // Arm → seed → question → turn.
        let mut cells: BTreeMap<usize, BTreeMap<usize, BTreeMap<usize, Cell>>> = BTreeMap::new();
        let mut turns: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for row in scores.rows.iter().filter(|row| row.scorer == scorer) {
            if compared.contains(&row.arm) {
                turns.entry(row.question).or_default().insert(row.turn);
            }
            let seed = cells.entry(row.arm).or_default().entry(row.seed).or_default();
            let Some(score) = row.score else { continue };
            let (sum, number) = seed.entry(row.question).or_default().entry(row.turn).or_insert((0.0, 0));
            (*sum, *number) = (*sum + score, *number + 1);
        }
        let name = |arm: usize| &scores.arms()[arm];
        if let Some(&arm) = compared.iter().find(|arm| !cells.contains_key(arm)) {
            let scorer = &scores.scorers()[scorer];
            return Err(Error::Incomparable(format!("{:?} has no scores of scorer {scorer:?}", name(arm))));
        }
        let missing = |arm: usize, question: usize| {
            let lacks = |seed: &BTreeMap<usize, Cell>| {
                let found = seed.get(&question);
                turns.get(&question).is_some_and(|turns| {
                    turns.iter().any(|turn| found.is_none_or(|cell| !cell.contains_key(turn)))
                })
            };
            cells[&arm].values().any(lacks)
        };
        let (mut questions, mut left_out) = (Vec::new(), Vec::new());
        for &question in turns.keys() {
            let without: Vec<&str> = compared
                .iter()
                .filter(|arm| missing(**arm, question))
                .map(|arm| name(*arm).as_str())
                .collect();
            match without.is_empty() {
                true => questions.push(question),
                false => left_out.push((question, without.join(", "))),
            }
        }
        if questions.len() < 2 {
            return Err(Error::Incomparable(format!(
                "{} of {} questions have scores of all compared arms; two or more are needed",
                questions.len(),
                turns.len()
            )));
        }
        let others =
            cells.keys().copied().filter(|&arm| questions.iter().all(|&question| !missing(arm, question)));
        let arms: BTreeMap<usize, Vec<Vec<f64>>> =
            others.map(|arm| (arm, means(&cells[&arm], &questions, &turns))).collect();
        let seeds = arms.keys().map(|arm| (*arm, cells[arm].keys().copied().collect())).collect();
        // Equal seeds of a study's arms share data and random streams; those of other tables need not.
        let is_study = arms.keys().all(|arm| scores.groups.contains_key(arm));
        let pooling = match arms.values().map(Vec::len).max() {
            None | Some(..2) => Pooling::Fixed,
            _ if is_study => Pooling::Paired,
            _ => Pooling::Pooled,
        };
        let groups = groups(scores, &arms);
        let strata = strata(scores, &questions);
        Ok(Self { questions, left_out, arms, seeds, groups, pooling, strata })
    }

    /// Returns the number of strata.
    pub(crate) fn strata(&self) -> usize {
        self.strata.iter().collect::<BTreeSet<_>>().len()
    }

    /// Returns the largest number of seeds of an arm.
    pub(crate) fn seeds(&self) -> usize {
        self.arms.values().map(Vec::len).max().unwrap_or(0)
    }

    /// Returns the means of an arm over seeds, by question.
    pub(crate) fn question_means(&self, arm: usize) -> Vec<f64> {
        let seeds = &self.arms[&arm];
        let mean =
            |question: usize| seeds.iter().map(|seed| seed[question]).sum::<f64>() / seeds.len() as f64;
        (0..self.questions.len()).map(mean).collect()
    }

    /// Estimates differences between arms; over seeds and questions if an arm has several seeds, else over questions.
    /// Also returns the variance between seeds of each group of arms, if there are several seeds.
    pub(crate) fn differences(
        &self,
        contrasts: &[[usize; 2]],
    ) -> Result<(Vec<Difference>, Vec<SeedVariance>), Error> {
        let failed = Error::stats("the variance between seeds");
        let crossed = |(arm, scores): (&usize, &Vec<Vec<f64>>)| crossed(&self.seeds[arm], scores);
        let cells: Vec<CrossedScores> =
            self.arms.iter().map(crossed).collect::<Result<_, _>>().map_err(failed)?;
        let place = |arm: usize| self.arms.keys().position(|known| *known == arm).unwrap_or_default();
        let pooled = PooledSeeds::new(self.groups.values().copied().zip(&cells), self.pooling)
            .and_then(|pooled| pooled.with_strata(|question| self.strata[question as usize] as u64))
            .map_err(Error::stats("the variance between seeds"))?;
        let difference = |[first, second]: &[usize; 2]| {
            let (first, second) = (place(*first), place(*second));
            let estimate = pooled.difference(first, second).map_err(Error::stats("a difference"))?;
            Ok(Difference { estimate, parts: pooled.variance_parts(first, second).ok() })
        };
        let differences = contrasts.iter().map(difference).collect::<Result<_, Error>>()?;
        let seed_variances =
            if self.pooling == Pooling::Fixed { Vec::new() } else { pooled.seed_variances() };
        Ok((differences, seed_variances))
    }
}

/// Returns the means of turns of samples, `[seeds][questions]`.
fn means(
    seeds: &BTreeMap<usize, BTreeMap<usize, Cell>>,
    questions: &[usize],
    turns: &BTreeMap<usize, BTreeSet<usize>>,
) -> Vec<Vec<f64>> {
    let of_question = |seed: &BTreeMap<usize, Cell>, question: usize| {
        let turns = &turns[&question];
        let cell = &seed[&question];
        let sum: f64 = turns.iter().map(|turn| cell[turn].0 / cell[turn].1 as f64).sum();
        sum / turns.len() as f64
    };
    seeds
        .values()
        .map(|seed| questions.iter().map(|&question| of_question(seed, question)).collect())
        .collect()
}

/// Returns the group of each arm, as in a study.
fn groups(scores: &Scores, arms: &BTreeMap<usize, Vec<Vec<f64>>>) -> BTreeMap<usize, u64> {
    let group = |arm: &usize| scores.groups.get(arm).copied().unwrap_or_default();
    let groups: Vec<u64> = arms.keys().map(group).collect();
    let seeds: Vec<usize> = arms.values().map(Vec::len).collect();
    arms.keys().copied().zip(join_small_groups(&groups, &seeds)).collect()
}

fn crossed(seeds: &[usize], scores: &[Vec<f64>]) -> Result<CrossedScores, stats::Error> {
    let rows = seeds.iter().zip(scores).flat_map(|(&seed, questions)| {
        questions.iter().enumerate().map(move |(question, &score)| Observation {
            seed: seed as u64,
            question: question as u64,
            turn: 1,
            repeat: 0,
            score,
        })
    });
    CrossedScores::new(rows)
}

/// Returns the stratum of each question: its category, with categories of one question merged.
fn strata(scores: &Scores, questions: &[usize]) -> Vec<usize> {
    let Some(categories) =
        questions.iter().map(|question| scores.categories.get(question)).collect::<Option<Vec<_>>>()
    else {
        return vec![0; questions.len()];
    };
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for category in &categories {
        *sizes.entry(category).or_default() += 1;
    }
    let large: Vec<&str> = sizes.iter().filter(|(_, size)| **size > 1).map(|(name, _)| *name).collect();
    // A stratum needs two questions: the single ones are one stratum, or join the first.
    let single = sizes.len() - large.len();
    let rest = if single == 1 { 0 } else { large.len() };
    categories.iter().map(|category| large.iter().position(|name| name == category).unwrap_or(rest)).collect()
}
