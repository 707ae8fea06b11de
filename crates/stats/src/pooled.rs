//! Differences between the cells of a study, with seed variances that the cells share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::distribution::length;
use crate::error::check_finite;
use crate::estimate::satterthwaite;
use crate::moderated::pool_variances;
use crate::{CrossedScores, Error, MeanEstimate, MeanSquare, StudySize, VarianceParts, moderate_variances};

/// How the seed variances of the cells of a group are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// One variance per group: the mean over its cells. Calibrated from two seeds and about eight cells.
    #[default]
    Pooled,
    /// One variance per cell, shrunk towards its group's: see [`moderate_variances`]. For groups of 20 cells or more.
    Moderated,
}

/// The seed variance of a group of cells.
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
}

/// The cells of a study, for differences that generalize to new seeds and new questions.
///
/// Two to four seeds of one cell are too few for an estimate of the variance between seeds. A study has many cells,
/// so the variance is pooled over the cells of a group. The variance of a contrast Σ wᵢ μᵢ has two parts:
/// - the variance over questions of the contrast's seed averages, within strata if there are any;
/// - Σ wᵢ² (s̃ᵢ² − cᵢ)/Sᵢ, where s̃ᵢ² is the pooled variance of seed means. cᵢ is the interaction of seeds and
///   questions, which the first part already contains. A negative sum counts as 0.
///
/// The degrees of freedom are Satterthwaite's. Seeds of different cells count as independent, which is conservative if
/// cells with equal seeds share random choices.
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
    questions: Vec<u64>,
    /// Indices of the questions of each stratum.
    strata: Vec<Vec<usize>>,
    /// Degrees of freedom that the cells of each group have together.
    pooled_df: BTreeMap<u64, f64>,
}

#[derive(Clone, Debug, PartialEq)]
struct Cell {
    group: u64,
    seed_count: usize,
    mean: f64,
    question_means: Vec<f64>,
    /// Variance of seed means, as observed and as combined over the group.
    observed: MeanSquare,
    combined: MeanSquare,
    /// The part of it that is the interaction of seeds and questions.
    interaction: MeanSquare,
}

impl PooledSeeds {
    /// Creates a study from cells with their groups.
    ///
    /// A cell with one seed is valid if its group has a cell with more.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewClusters`] without cells or with fewer than two questions; [`Error::OtherDesign`] unless all
    /// cells have the same questions and turns; [`Error::OneSeed`] for a group without a cell of two seeds.
    pub fn new<'a>(
        cells: impl IntoIterator<Item = (u64, &'a CrossedScores)>,
        pooling: Pooling,
    ) -> Result<Self, Error> {
        let cells: Vec<(u64, &CrossedScores)> = cells.into_iter().collect();
        let Some(&(_, first)) = cells.first() else { return Err(Error::TooFewClusters { clusters: 0 }) };
        for (_, cell) in &cells {
            first.check_same_questions(cell)?;
        }
        let questions: Vec<u64> = first.questions().collect();
        if questions.len() < 2 {
            return Err(Error::TooFewClusters { clusters: questions.len() });
        }
        let mut cells: Vec<Cell> = cells.into_iter().map(|(group, cell)| Cell::of(group, cell)).collect();
        let groups: BTreeMap<u64, Vec<usize>> =
            cells.iter().enumerate().fold(BTreeMap::new(), |mut groups, (index, cell)| {
                groups.entry(cell.group).or_insert_with(Vec::new).push(index);
                groups
            });
        let mut pooled_df = BTreeMap::new();
        for (&group, members) in &groups {
            pooled_df.insert(group, combine(&mut cells, members, pooling)?);
        }
        let strata = vec![(0..questions.len()).collect()];
        Ok(Self { cells, questions, strata, pooled_df })
    }

    /// Assigns each question to a stratum, such as its category, whose share of the benchmark is fixed.
    ///
    /// The variance over questions is then the one within strata, which is smaller if strata differ.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewClusters`] for a stratum with fewer than two questions: merge it with another one.
    pub fn with_strata(self, stratum_of: impl Fn(u64) -> u64) -> Result<Self, Error> {
        let mut strata: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (index, &question) in self.questions.iter().enumerate() {
            strata.entry(stratum_of(question)).or_default().push(index);
        }
        if let Some(small) = strata.values().find(|questions| questions.len() < 2) {
            return Err(Error::TooFewClusters { clusters: small.len() });
        }
        Ok(Self { strata: strata.into_values().collect(), ..self })
    }

    /// Estimates the difference `first` − `second` of two cells, which are counted from 0.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPolicy`] for a cell that does not exist.
    pub fn difference(&self, first: usize, second: usize) -> Result<MeanEstimate, Error> {
        let mut weights = vec![0.0; self.cells.len()];
        for (cell, weight) in [(first, 1.0), (second, -1.0)] {
            let unknown = Error::UnknownPolicy { policy: cell, policies: self.cells.len() };
            *weights.get_mut(cell).ok_or(unknown)? += weight;
        }
        self.contrast(&weights)
    }

    /// Estimates the contrast Σ wᵢ μᵢ over all cells, such as a linear trend or a mean of several cells.
    ///
    /// # Errors
    ///
    /// [`Error::OtherLength`] unless there is one weight per cell; [`Error::NotFinite`].
    pub fn contrast(&self, weights: &[f64]) -> Result<MeanEstimate, Error> {
        check_finite(weights)?;
        if weights.len() != self.cells.len() {
            return Err(Error::OtherLength { first: self.cells.len(), second: weights.len() });
        }
        let value = self.cells.iter().zip(weights).map(|(cell, weight)| weight * cell.mean).sum();
        let mut terms = self.question_terms(weights);
        let seeds = self.seed_terms(weights);
        if seeds.iter().map(|(variance, _)| variance).sum::<f64>() > 0.0 {
            terms.extend(seeds);
        }
        let (variance, degrees_of_freedom) = satterthwaite(&terms);
        Ok(MeanEstimate { value, standard_error: variance.max(0.0).sqrt(), degrees_of_freedom })
    }

    /// Returns the variances of the difference `first` − `second` by source, for the size of another study.
    ///
    /// The design does not separate sampling from the interaction of seeds and questions. All of it counts as
    /// sampling, so the required number of samples is a lower bound.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPolicy`] for a cell that does not exist; [`Error::OtherLength`] unless both cells have the same
    /// number of seeds.
    pub fn variance_parts(&self, first: usize, second: usize) -> Result<VarianceParts, Error> {
        let cell = |index: usize| {
            let unknown = Error::UnknownPolicy { policy: index, policies: self.cells.len() };
            self.cells.get(index).ok_or(unknown)
        };
        let (one, other) = (cell(first)?, cell(second)?);
        if one.seed_count != other.seed_count {
            return Err(Error::OtherLength { first: one.seed_count, second: other.seed_count });
        }
        let mut weights = vec![0.0; self.cells.len()];
        weights[first] += 1.0;
        weights[second] -= 1.0;
        let questions = length(self.questions.len());
        let over_questions: f64 = self.question_terms(&weights).iter().map(|(variance, _)| variance).sum();
        let seeds =
            satterthwaite(&[one, other].map(|cell| (cell.combined.value, cell.combined.degrees_of_freedom)));
        let interaction = one.interaction.value + other.interaction.value;
        Ok(VarianceParts {
            question: over_questions * questions - interaction * questions / one.seeds(),
            seed: seeds.0 - interaction,
            fixed: 0.0,
            sampling: interaction * questions,
            size: StudySize { seeds: one.seed_count, questions: self.questions.len(), samples: 1 },
            seed_df: if one.group == other.group { seeds.1.min(self.pooled_df[&one.group]) } else { seeds.1 },
        })
    }

    /// Returns the variance between training seeds of each group, in the order of groups.
    pub fn seed_variances(&self) -> Vec<SeedVariance> {
        let groups = self.pooled_df.keys().map(|&group| {
            let members: Vec<&Cell> = self.cells.iter().filter(|cell| cell.group == group).collect();
            let pooled = |of: fn(&Cell) -> MeanSquare| {
                let squares: Vec<MeanSquare> = members.iter().map(|cell| of(cell)).collect();
                pool_variances(&squares)
                    .unwrap_or(MeanSquare { value: 0.0, degrees_of_freedom: f64::INFINITY })
            };
            let (seeds, interaction) = (pooled(|cell| cell.observed), pooled(|cell| cell.interaction));
            let error = |square: MeanSquare| 2.0 * square.value * square.value / square.degrees_of_freedom;
            SeedVariance {
                group,
                cells: members.len(),
                value: seeds.value - interaction.value,
                standard_error: (error(seeds) + error(interaction)).sqrt(),
            }
        });
        groups.collect()
    }

    /// Returns the variance over seeds of a difference between two cells with `seeds` seeds, and its degrees of freedom;
    /// all cells are in one group. `None` if the seeds do not vary.
    pub(crate) fn pooled_seed_term(&self, seeds: usize) -> Option<(f64, f64)> {
        let cell = self.cells.first()?;
        let interactions: Vec<MeanSquare> = self.cells.iter().map(|cell| cell.interaction).collect();
        let excess = cell.combined.value - pool_variances(&interactions)?.value;
        (excess > 0.0).then(|| (2.0 * excess / length(seeds), cell.combined.degrees_of_freedom))
    }

    /// Returns the loadings of a contrast's error on independent standard normal variables: one per question, then one
    /// per cell.
    pub(crate) fn noise_loadings(&self, weights: &[f64]) -> Vec<f64> {
        let all = length(self.questions.len());
        let mut loadings = vec![0.0; self.questions.len()];
        for questions in &self.strata {
            let n = length(questions.len());
            let values: Vec<f64> =
                questions.iter().map(|&question| self.contrast_of_question(weights, question)).collect();
            let (mean, _) = crate::distribution::moments(&values);
            // Their squares add up to the variance over questions.
            let scale = n / all / (n * (n - 1.0)).sqrt();
            for (&question, value) in questions.iter().zip(&values) {
                loadings[question] = scale * (value - mean);
            }
        }
        let seeds = self.cells.iter().zip(weights).map(|(cell, weight)| {
            let excess = (cell.combined.value - cell.interaction.value).max(0.0);
            weight * (excess / cell.seeds()).sqrt()
        });
        loadings.extend(seeds);
        loadings
    }

    fn contrast_of_question(&self, weights: &[f64], question: usize) -> f64 {
        self.cells.iter().zip(weights).map(|(cell, weight)| weight * cell.question_means[question]).sum()
    }

    /// Returns the variance of a contrast over questions, one term per stratum, with degrees of freedom.
    fn question_terms(&self, weights: &[f64]) -> Vec<(f64, f64)> {
        let all = length(self.questions.len());
        let strata = self.strata.iter().map(|questions| {
            let n = length(questions.len());
            let values: Vec<f64> =
                questions.iter().map(|&question| self.contrast_of_question(weights, question)).collect();
            let (_, squares) = crate::distribution::moments(&values);
            ((n / all).powi(2) * squares / (n - 1.0) / n, n - 1.0)
        });
        strata.collect()
    }

    /// Returns the variance of a contrast over seeds, without the interaction of seeds and questions.
    fn seed_terms(&self, weights: &[f64]) -> Vec<(f64, f64)> {
        let mut terms = Vec::new();
        for (group, &pooled_df) in &self.pooled_df {
            let cells = || self.cells.iter().zip(weights).filter(|(cell, _)| cell.group == *group);
            let share = |weight: f64, cell: &Cell| weight * weight / cell.seeds();
            let of_cells: Vec<(f64, f64)> = cells()
                .map(|(cell, &weight)| {
                    (share(weight, cell) * cell.combined.value, cell.combined.degrees_of_freedom)
                })
                .filter(|(variance, _)| *variance > 0.0)
                .collect();
            if of_cells.is_empty() {
                continue;
            }
            // Cells of a group share one estimate, so their degrees of freedom do not add up beyond the group's.
            let (variance, df) = satterthwaite(&of_cells);
            terms.push((variance, df.min(pooled_df)));
            terms.extend(cells().map(|(cell, &weight)| {
                (-share(weight, cell) * cell.interaction.value, cell.interaction.degrees_of_freedom)
            }));
        }
        terms
    }
}

impl Cell {
    fn seeds(&self) -> f64 {
        length(self.seed_count)
    }

    fn of(group: u64, scores: &CrossedScores) -> Self {
        let (seed_means, question_means) = (scores.seed_means(), scores.question_means());
        let (mean, squares) = crate::distribution::moments(&seed_means);
        let df = length(seed_means.len()) - 1.0;
        let observed =
            MeanSquare { value: if df > 0.0 { squares / df } else { 0.0 }, degrees_of_freedom: df };
        let interaction = scores.interaction();
        Self {
            group,
            seed_count: seed_means.len(),
            mean,
            question_means,
            observed,
            combined: observed,
            interaction,
        }
    }
}

/// Combines the variances of the cells of a group and returns the group's degrees of freedom.
fn combine(cells: &mut [Cell], members: &[usize], pooling: Pooling) -> Result<f64, Error> {
    let squares = |of: fn(&Cell) -> MeanSquare| -> Vec<MeanSquare> {
        members.iter().map(|&index| of(&cells[index])).collect()
    };
    let observed = squares(|cell| cell.observed);
    let pooled = pool_variances(&observed).ok_or(Error::OneSeed)?;
    let interaction = pool_variances(&squares(|cell| cell.interaction)).ok_or(Error::OneSeed)?;
    let combined = match pooling {
        Pooling::Pooled => vec![pooled; members.len()],
        Pooling::Moderated => moderate_variances(&observed)?.moderated,
    };
    for (&index, combined) in members.iter().zip(combined) {
        cells[index].combined = combined;
        if cells[index].interaction.degrees_of_freedom <= 0.0 {
            cells[index].interaction = interaction;
        }
    }
    Ok(pooled.degrees_of_freedom)
}
