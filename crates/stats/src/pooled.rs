//! Differences between the cells of a study, with seed variances that the cells share.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::distribution::{length, moments};
use crate::error::check_finite;
use crate::estimate::satterthwaite;
use crate::moderated::pool_variances;
use crate::seed_effects::{Pooling, SeedEffects, interaction_of, seed_effects};
use crate::{CrossedScores, Error, MeanEstimate, MeanSquare, StudySize, VarianceParts};

/// Degrees of freedom that a contrast has at least, if its groups have as many.
const LEAST_DF: f64 = 2.0;
/// Scores of contrasts are exact to this, in points.
const ROUNDING: f64 = 1e-12;

/// The variances of a group of cells.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedVariance {
    /// The group.
    pub group: u64,
    /// Its number of cells.
    pub cells: usize,
    /// Variance between training seeds, in squared points: unbiased, and therefore possibly negative.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Variance of one seed's answers to one question, turns averaged: sampling and judge, and seeds that differ from
    /// question to question.
    pub answers: MeanSquare,
    /// Variance between several scores of one seed's answer to a question: of samples or of judgments. `None` with one.
    pub repeats: Option<MeanSquare>,
}

/// The cells of a study, for differences that generalize to new seeds and new questions.
///
/// Two to four seeds of one cell are too few for an estimate of the variance between seeds. A study has many cells,
/// so the variance is pooled over the cells of a group. The variance of a contrast Σ wᵢ μᵢ, with Σ wᵢ = 0, has two parts:
/// - the variance over questions of the contrast's seed averages, within strata if there are any;
/// - Σ wᵢ² (s̃ᵢ² − cᵢ)/Sᵢ, where s̃ᵢ² is the pooled variance of seed means. cᵢ is the interaction of seeds and
///   questions, which the first part already contains. A negative sum counts as 0.
///
/// The degrees of freedom are Satterthwaite's. With [`Pooling::Pooled`], seeds of different cells count as independent,
/// which is conservative if cells with equal seeds share random choices; [`Pooling::Paired`] is for such cells.
///
/// Cells may lack questions. A contrast uses the questions that all of its cells have.
///
/// Choose the groups before you see the scores: cells whose seeds vary alike, such as all cells of one flip rate.
/// Coverage and familywise error are in the crate's README.
///
/// ```
/// use rand::RngExt;
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// use stats::{CrossedScores, Observation, PooledSeeds, Pooling};
///
/// let mut rng = ChaCha8Rng::seed_from_u64(0);
/// let mut cell = |gain: f64| {
///     CrossedScores::new((0..160).map(|i| {
///         let (seed, question) = (i / 80, i % 80);
///         let score = 5.0 + (question % 5) as f64 + gain + rng.random::<f64>();
///         Observation { seed, question, turn: 1, repeat: 0, score }
///     }))
/// };
/// let cells = [cell(0.0)?, cell(0.0)?, cell(1.5)?];
/// let study = PooledSeeds::new(cells.iter().map(|cell| (0, cell)), Pooling::Pooled)?;
/// assert!(study.difference(2, 0)?.p_value() < 0.001);
/// assert!(study.difference(1, 0)?.p_value() > 0.05);
/// // Questions of five categories.
/// let study = study.with_strata(|question| question % 5)?;
/// assert!(study.difference(2, 0)?.interval(0.95)?.low > 1.0);
/// # Ok::<(), stats::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PooledSeeds {
    cells: Vec<Cell>,
    /// The questions of all cells.
    questions: Vec<u64>,
    /// The stratum of each question.
    strata: Vec<u64>,
    effects: SeedEffects,
}

#[derive(Clone, Debug, PartialEq)]
struct Cell {
    group: u64,
    seeds: Vec<u64>,
    /// `[seeds][questions]` of the study, turns and repeats averaged; `None` where the cell lacks the question.
    scores: Vec<Vec<Option<f64>>>,
    /// Means of `scores` over seeds.
    question_means: Vec<Option<f64>>,
    repeats: usize,
    repeat_variance: MeanSquare,
}

impl PooledSeeds {
    /// Creates a study from cells with their groups.
    ///
    /// A cell with one seed is valid if its group has a cell with more.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewClusters`] without cells or with fewer than two questions; [`Error::OneSeed`] for a group without a
    /// cell of two seeds, unless the pooling is [`Pooling::Fixed`].
    pub fn new<'a>(
        cells: impl IntoIterator<Item = (u64, &'a CrossedScores)>,
        pooling: Pooling,
    ) -> Result<Self, Error> {
        let cells: Vec<(u64, &CrossedScores)> = cells.into_iter().collect();
        let questions: BTreeSet<u64> = cells.iter().flat_map(|(_, cell)| cell.questions()).collect();
        let questions: Vec<u64> = questions.into_iter().collect();
        if cells.is_empty() || questions.len() < 2 {
            return Err(Error::TooFewClusters { clusters: questions.len() });
        }
        let cells: Vec<Cell> =
            cells.into_iter().map(|(group, cell)| Cell::of(group, cell, &questions)).collect();
        let groups: Vec<u64> = cells.iter().map(|cell| cell.group).collect();
        let scores: Vec<_> = cells.iter().map(|cell| (&cell.seeds[..], &cell.scores[..])).collect();
        let effects = seed_effects(&groups, &scores, pooling)?;
        let strata = vec![0; questions.len()];
        Ok(Self { cells, questions, strata, effects })
    }

    /// Assigns each question to a stratum, such as its category, whose share of the benchmark is fixed.
    ///
    /// The variance over questions is then the one within strata, which is smaller if strata differ. A contrast merges
    /// the strata of which it has a single question.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewClusters`] for a stratum with fewer than two questions: merge it with another one.
    pub fn with_strata(self, stratum_of: impl Fn(u64) -> u64) -> Result<Self, Error> {
        let strata: Vec<u64> = self.questions.iter().map(|&question| stratum_of(question)).collect();
        let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
        strata.iter().for_each(|&stratum| *sizes.entry(stratum).or_default() += 1);
        match sizes.values().find(|&&size| size < 2) {
            Some(&clusters) => Err(Error::TooFewClusters { clusters }),
            None => Ok(Self { strata, ..self }),
        }
    }

    /// Returns the number of cells.
    pub fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Estimates the difference `first` − `second` of two cells, which are counted from 0.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPolicy`] for a cell that does not exist; [`Error::TooFewClusters`] for cells with fewer than two
    /// common questions.
    pub fn difference(&self, first: usize, second: usize) -> Result<MeanEstimate, Error> {
        self.contrast(&self.weights_of_difference(first, second)?)
    }

    /// Estimates the contrast Σ wᵢ μᵢ over all cells, such as a linear trend or a difference of means of several cells.
    ///
    /// # Errors
    ///
    /// [`Error::OtherLength`] unless there is one weight per cell; [`Error::NotFinite`]; [`Error::TooFewClusters`] for
    /// cells with fewer than two common questions.
    pub fn contrast(&self, weights: &[f64]) -> Result<MeanEstimate, Error> {
        let common = self.common_questions(&[weights])?;
        let values = self.of_questions(weights, &common);
        let mut terms = self.question_terms(&values, &common);
        let seeds = self.seed_terms(weights, &common);
        if seeds.iter().map(|(variance, _)| variance).sum::<f64>() > 0.0 {
            terms.extend(seeds);
        }
        let (variance, df) = satterthwaite(&terms);
        // A small difference of two large variances has next to no degrees of freedom by Satterthwaite's formula.
        let degrees_of_freedom = df.max(self.effects.smallest_df().min(LEAST_DF));
        let (value, _) = moments(&values);
        Ok(MeanEstimate { value, standard_error: variance.max(0.0).sqrt(), degrees_of_freedom })
    }

    /// Returns the variances of the difference `first` − `second` by source: [`contrast_parts`](Self::contrast_parts).
    ///
    /// # Errors
    ///
    /// As [`contrast_parts`](Self::contrast_parts); [`Error::UnknownPolicy`] for a cell that does not exist.
    pub fn variance_parts(&self, first: usize, second: usize) -> Result<VarianceParts, Error> {
        self.contrast_parts(&self.weights_of_difference(first, second)?)
    }

    /// Returns the variances of a contrast by source, for the size of another study.
    ///
    /// With one sample per answer the design does not separate sampling from the interaction of seeds and questions. All
    /// of it counts as sampling then, so the required number of samples is a lower bound.
    ///
    /// # Errors
    ///
    /// As [`contrast`](Self::contrast); [`Error::OtherLength`] unless all cells of the contrast have the same number of
    /// seeds.
    pub fn contrast_parts(&self, weights: &[f64]) -> Result<VarianceParts, Error> {
        let common = self.common_questions(&[weights])?;
        let used: Vec<(&Cell, f64)> =
            self.cells.iter().zip(weights.iter().copied()).filter(|(_, weight)| *weight != 0.0).collect();
        let Some((first, _)) = used.first() else { return Err(Error::TooFewClusters { clusters: 0 }) };
        if let Some((other, _)) = used.iter().find(|(cell, _)| cell.seeds.len() != first.seeds.len()) {
            return Err(Error::OtherLength { first: first.seeds.len(), second: other.seeds.len() });
        }
        let (questions, seeds, samples) = (common.len(), first.seeds.len(), first.repeats);
        let [q, s, r] = [questions, seeds, samples].map(length);
        let of_questions = self.question_terms(&self.of_questions(weights, &common), &common);
        let over_questions: f64 = of_questions.iter().map(|(variance, _)| variance).sum();
        // Parts are 0 or more, so that no extrapolation to another size is negative.
        let interaction = self.interaction(weights, &common).clamp(0.0, over_questions * q * s);
        let sampling = match samples {
            1 => interaction,
            _ => used.iter().map(|(cell, weight)| weight * weight * cell.repeat_variance.value).sum(),
        };
        let sampling = sampling.min(interaction * r);
        let terms = self.seed_terms(weights, &common);
        Ok(VarianceParts {
            question: over_questions * q - interaction / s,
            seed: terms.iter().map(|(variance, _)| variance).sum::<f64>() * s,
            fixed: interaction - sampling / r,
            sampling,
            size: StudySize { seeds, questions, samples },
            // The first term of each group is the one of its seeds; the others are small.
            seed_df: terms.iter().map(|(_, df)| *df).fold(f64::INFINITY, f64::min),
        })
    }

    /// Returns the variances of each group, in the order of groups.
    pub fn seed_variances(&self) -> Vec<SeedVariance> {
        let error = |square: MeanSquare| 2.0 * square.value * square.value / square.degrees_of_freedom;
        // The expected mean square of seeds contains the interaction.
        let at_least = |seeds: MeanSquare, interaction: MeanSquare| MeanSquare {
            value: seeds.value.max(interaction.value),
            ..seeds
        };
        let of_group = |(&group, &(seeds, interaction)): (&u64, &(MeanSquare, MeanSquare))| {
            let members = || self.cells.iter().filter(move |cell| cell.group == group);
            let repeats: Vec<MeanSquare> = members().map(|cell| cell.repeat_variance).collect();
            let q = length(self.questions.len());
            SeedVariance {
                group,
                cells: members().count(),
                value: seeds.value - interaction.value,
                standard_error: (error(at_least(seeds, interaction)) + error(interaction)).sqrt(),
                answers: MeanSquare { value: interaction.value * q, ..interaction },
                repeats: pool_variances(&repeats),
            }
        };
        self.effects.groups.iter().map(of_group).collect()
    }

    /// Returns the variance over seeds of a difference between two cells with `seeds` seeds, and its degrees of freedom;
    /// all cells are in one group. `None` if the seeds do not vary.
    pub(crate) fn pooled_seed_term(&self, seeds: usize) -> Option<(f64, f64)> {
        let (combined, interaction) = self.effects.groups.values().next()?;
        let excess = combined.value - interaction.value;
        (excess > 0.0).then(|| (2.0 * excess / length(seeds), combined.degrees_of_freedom))
    }

    /// Returns the covariances of the errors of several contrasts.
    pub(crate) fn covariances<C: AsRef<[f64]>>(&self, contrasts: &[C]) -> Result<Vec<Vec<f64>>, Error> {
        let weights: Vec<&[f64]> = contrasts.iter().map(AsRef::as_ref).collect();
        let common = self.common_questions(&weights)?;
        let loadings: Vec<Vec<f64>> =
            weights.iter().map(|weights| self.noise_loadings(weights, &common)).collect();
        let product = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| a * b).sum();
        Ok(loadings.iter().map(|a| loadings.iter().map(|b| product(a, b)).collect()).collect())
    }

    fn weights_of_difference(&self, first: usize, second: usize) -> Result<Vec<f64>, Error> {
        let mut weights = vec![0.0; self.cells.len()];
        for (cell, weight) in [(first, 1.0), (second, -1.0)] {
            let unknown = Error::UnknownPolicy { policy: cell, policies: self.cells.len() };
            *weights.get_mut(cell).ok_or(unknown)? += weight;
        }
        Ok(weights)
    }

    /// Returns the loadings of a contrast's error on independent standard normal variables: one per question, then one
    /// per cell.
    fn noise_loadings(&self, weights: &[f64], common: &[usize]) -> Vec<f64> {
        let values = self.of_questions(weights, common);
        let mut loadings = vec![0.0; common.len()];
        for members in self.strata_of(common) {
            let n = length(members.len());
            let (mean, _) = moments(&members.iter().map(|&at| values[at]).collect::<Vec<_>>());
            // Their squares add up to the variance over questions.
            let scale = n / length(common.len()) / (n * (n - 1.0)).sqrt();
            for &at in &members {
                loadings[at] = scale * (values[at] - mean);
            }
        }
        let share = self.share_of_seeds(weights, common);
        let seeds = (0..self.cells.len()).map(|at| {
            let (combined, interaction) = self.effects.of(at);
            let excess = share * (combined.value - interaction.value).max(0.0);
            weights[at] * (excess / self.cells[at].seed_count()).sqrt()
        });
        loadings.extend(seeds);
        loadings
    }

    /// Returns the indices of the questions that all cells with a weight in some contrast have.
    fn common_questions(&self, contrasts: &[&[f64]]) -> Result<Vec<usize>, Error> {
        for weights in contrasts {
            check_finite(weights)?;
            if weights.len() != self.cells.len() {
                return Err(Error::OtherLength { first: self.cells.len(), second: weights.len() });
            }
        }
        let is_used = |at: usize| contrasts.iter().any(|weights| weights[at] != 0.0);
        let used: Vec<&Cell> =
            (0..self.cells.len()).filter(|&at| is_used(at)).map(|at| &self.cells[at]).collect();
        let has = |question: &usize| used.iter().all(|cell| cell.question_means[*question].is_some());
        let common: Vec<usize> = (0..self.questions.len()).filter(has).collect();
        if common.len() < 2 { Err(Error::TooFewClusters { clusters: common.len() }) } else { Ok(common) }
    }

    /// Returns the value of a contrast on each of the `common` questions.
    fn of_questions(&self, weights: &[f64], common: &[usize]) -> Vec<f64> {
        let of = |&question: &usize| {
            let terms = self.cells.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
            let value: f64 =
                terms.map(|(cell, weight)| weight * cell.question_means[question].unwrap_or_default()).sum();
            // Rounding of the weights must not look like an effect of equal scores.
            (value / ROUNDING).round() * ROUNDING
        };
        common.iter().map(of).collect()
    }

    /// Returns the positions in `common` of each stratum, those with a single question merged.
    fn strata_of(&self, common: &[usize]) -> Vec<Vec<usize>> {
        let mut strata: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, &question) in common.iter().enumerate() {
            strata.entry(self.strata[question]).or_default().push(at);
        }
        let (mut strata, single): (Vec<_>, Vec<_>) =
            strata.into_values().partition(|members| members.len() > 1);
        let single: Vec<usize> = single.into_iter().flatten().collect();
        match (single.len(), strata.last_mut()) {
            (0, _) => {}
            (1, Some(last)) => last.extend(single),
            _ => strata.push(single),
        }
        strata
    }

    /// Returns the variance of a contrast over questions, one term per stratum, with degrees of freedom.
    fn question_terms(&self, values: &[f64], common: &[usize]) -> Vec<(f64, f64)> {
        let of_stratum = |members: Vec<usize>| {
            let n = length(members.len());
            let (_, squares) = moments(&members.iter().map(|&at| values[at]).collect::<Vec<_>>());
            ((n / length(common.len())).powi(2) * squares / (n - 1.0) / n, n - 1.0)
        };
        self.strata_of(common).into_iter().map(of_stratum).collect()
    }

    /// Returns the share of the variance between seeds that a contrast of paired cells has, in (0, 1\].
    ///
    /// Policies that share data and random streams may differ little, such as two checkpoints of one run. The interaction of
    /// seeds and questions shows it, which a single contrast estimates well. In the sandbox, the seeds of contrasts with half
    /// of the interaction of independent policies still vary like those of independent ones, and much less with a tenth.
    fn share_of_seeds(&self, weights: &[f64], common: &[usize]) -> f64 {
        if self.effects.common.is_none() {
            return 1.0;
        }
        let questions = length(self.questions.len());
        let independent =
            |(at, weight): (usize, &f64)| weight * weight * self.effects.of(at).1.value * questions;
        let independent: f64 = weights.iter().enumerate().map(independent).sum();
        if independent > 0.0 { (2.0 * self.interaction(weights, common) / independent).min(1.0) } else { 1.0 }
    }

    /// Returns the variance of a contrast over seeds, without the interaction of seeds and questions.
    fn seed_terms(&self, weights: &[f64], common: &[usize]) -> Vec<(f64, f64)> {
        let mut terms = Vec::new();
        let paired = self.share_of_seeds(weights, common);
        for (group, (pooled, _)) in &self.effects.groups {
            let cells = || {
                let all = self.cells.iter().enumerate().zip(weights);
                let of_group = all.filter(|((_, cell), weight)| cell.group == *group && **weight != 0.0);
                of_group.map(|((at, cell), weight)| {
                    (self.effects.of(at), paired * weight * weight / cell.seed_count())
                })
            };
            let of_cells: Vec<(f64, f64)> = cells()
                .map(|((combined, _), share)| (share * combined.value, combined.degrees_of_freedom))
                .filter(|(variance, _)| *variance > 0.0)
                .collect();
            if of_cells.is_empty() {
                continue;
            }
            // Cells of a group share one estimate, so their degrees of freedom do not add up beyond the group's.
            let (variance, df) = satterthwaite(&of_cells);
            terms.push((variance, df.min(pooled.degrees_of_freedom)));
            terms.extend(cells().map(|((_, interaction), share)| {
                (-share * interaction.value, interaction.degrees_of_freedom)
            }));
        }
        let sum: f64 = weights.iter().sum();
        if let Some(common) = self.effects.common.filter(|_| sum.abs() > 1e-9) {
            let seeds = self.cells.iter().map(|cell| cell.seeds.len()).max().unwrap_or(1);
            terms.push((sum * sum * common.value / length(seeds), common.degrees_of_freedom));
        }
        terms
    }

    /// Returns the variance of a contrast that is due to the interaction of seeds and questions, for one seed and one
    /// question.
    fn interaction(&self, weights: &[f64], common: &[usize]) -> f64 {
        let used: Vec<(&Cell, f64)> =
            self.cells.iter().zip(weights.iter().copied()).filter(|(_, weight)| *weight != 0.0).collect();
        let Some((first, _)) = used.first() else { return 0.0 };
        let seeds = &first.seeds;
        if seeds.len() < 2 || used.iter().any(|(cell, _)| cell.seeds != *seeds) {
            // Other seeds: the interactions are independent.
            let of = |(cell, weight): &(&Cell, f64)| weight * weight * interaction_of(&cell.rows(common));
            return used.iter().map(of).sum();
        }
        let rows: Vec<Vec<f64>> = (0..seeds.len())
            .map(|seed| {
                let of = |&question: &usize| {
                    used.iter().map(|(cell, w)| w * cell.scores[seed][question].unwrap_or_default()).sum()
                };
                common.iter().map(of).collect()
            })
            .collect();
        interaction_of(&rows)
    }
}

impl Cell {
    fn seed_count(&self) -> f64 {
        length(self.seeds.len())
    }

    fn rows(&self, common: &[usize]) -> Vec<Vec<f64>> {
        let row = |row: &Vec<Option<f64>>| common.iter().map(|&q| row[q].unwrap_or_default()).collect();
        self.scores.iter().map(row).collect()
    }

    fn of(group: u64, cell: &CrossedScores, questions: &[u64]) -> Self {
        let seeds: Vec<u64> = cell.seeds().collect();
        let own: BTreeMap<u64, usize> =
            cell.questions().enumerate().map(|(at, question)| (question, at)).collect();
        let means = cell.cell_means();
        let row = |seed: usize| -> Vec<Option<f64>> {
            questions
                .iter()
                .map(|question| own.get(question).map(|at| means[seed * own.len() + at]))
                .collect()
        };
        let scores: Vec<Vec<Option<f64>>> = (0..seeds.len()).map(row).collect();
        let mean = |question: usize| -> Option<f64> {
            let sum: Option<f64> = scores.iter().map(|row| row[question]).sum();
            sum.map(|sum| sum / length(seeds.len()))
        };
        Self {
            group,
            question_means: (0..questions.len()).map(mean).collect(),
            seeds,
            scores,
            repeats: cell.design().repeats,
            repeat_variance: cell.repeat_variance(),
        }
    }
}
