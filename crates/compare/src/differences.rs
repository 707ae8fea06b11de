//! Complete scores of one scorer, and differences between arms.

use std::collections::{BTreeMap, BTreeSet};

use stats::{
    CrossedScores, MeanEstimate, Observation, PooledSeeds, Pooling, SeedVariance, StudySize, VarianceParts,
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
        let arms = others.map(|arm| (arm, means(&cells[&arm], &questions, &turns))).collect();
        let strata = strata(scores, &questions);
        Ok(Self { questions, left_out, arms, strata })
    }

    /// Returns the number of strata.
    pub(crate) fn strata(&self) -> usize {
        self.strata.iter().collect::<BTreeSet<_>>().len()
    }

    /// Returns the positions of the questions of each stratum.
    pub(crate) fn by_stratum(&self) -> Vec<Vec<usize>> {
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (position, &stratum) in self.strata.iter().enumerate() {
            members.entry(stratum).or_default().push(position);
        }
        members.into_values().collect()
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
    /// Also returns the variance between seeds, if there are several.
    pub(crate) fn differences(
        &self,
        contrasts: &[[usize; 2]],
    ) -> Result<(Vec<Difference>, Option<SeedVariance>), Error> {
        if self.seeds() < 2 {
            let differences = contrasts.iter().map(|contrast| Ok(self.over_questions(*contrast)));
            return Ok((differences.collect::<Result<_, Error>>()?, None));
        }
        let failed = Error::stats("the variance between seeds");
        let cells: Vec<CrossedScores> =
            self.arms.values().map(|seeds| crossed(seeds)).collect::<Result<_, _>>().map_err(failed)?;
        let place = |arm: usize| self.arms.keys().position(|known| *known == arm).unwrap_or_default();
        let pooled = PooledSeeds::new(cells.iter().map(|cell| (0, cell)), Pooling::Pooled)
            .and_then(|pooled| pooled.with_strata(|question| self.strata[question as usize] as u64))
            .map_err(Error::stats("the variance between seeds"))?;
        let difference = |[first, second]: &[usize; 2]| {
            let (first, second) = (place(*first), place(*second));
            let estimate = pooled.difference(first, second).map_err(Error::stats("a difference"))?;
            Ok(Difference { estimate, parts: pooled.variance_parts(first, second).ok() })
        };
        let differences = contrasts.iter().map(difference).collect::<Result<_, Error>>()?;
        Ok((differences, pooled.seed_variances().first().copied()))
    }

    /// Estimates a difference of fixed policies over questions, within strata.
    fn over_questions(&self, [first, second]: [usize; 2]) -> Difference {
        let [one, other] = [first, second].map(|arm| self.question_means(arm));
        let differences: Vec<f64> = one.iter().zip(&other).map(|(one, other)| one - other).collect();
        let n = differences.len() as f64;
        let (mut variance, mut uncertainty) = (0.0, 0.0);
        for members in self.by_stratum() {
            let (size, values) = (members.len() as f64, members.iter().map(|&at| differences[at]));
            let mean = values.clone().sum::<f64>() / size;
            let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
            let term = (size / n).powi(2) * squares / (size - 1.0) / size;
            (variance, uncertainty) = (variance + term, uncertainty + term * term / (size - 1.0));
        }
        let degrees_of_freedom = if uncertainty > 0.0 { variance * variance / uncertainty } else { n - 1.0 };
        let estimate = MeanEstimate {
            value: differences.iter().sum::<f64>() / n,
            standard_error: variance.sqrt(),
            degrees_of_freedom,
        };
        let size = StudySize { seeds: 1, questions: differences.len(), samples: 1 };
        let parts = VarianceParts {
            question: variance * n,
            seed: 0.0,
            fixed: 0.0,
            sampling: 0.0,
            size,
            seed_df: 1.0,
        };
        Difference { estimate, parts: Some(parts) }
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

fn crossed(seeds: &[Vec<f64>]) -> Result<CrossedScores, stats::Error> {
    let rows = seeds.iter().enumerate().flat_map(|(seed, questions)| {
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
