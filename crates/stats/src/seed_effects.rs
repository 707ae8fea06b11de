//! The variance between the seeds of each cell of a study.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::distribution::{length, moments};
use crate::moderated::pool_variances;
use crate::{Error, MeanSquare, moderate_variances};

/// How the seed variances of the cells of a group are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// One variance per group: the mean over its cells. Calibrated from two seeds and about eight cells.
    #[default]
    Pooled,
    /// As `Pooled`, for cells whose equal seeds share random choices, such as data or sampling streams. The effect that a
    /// seed has on all cells cancels in a difference, and is therefore no part of the variance.
    Paired,
    /// One variance per cell, shrunk towards its group's: see [`moderate_variances`](crate::moderate_variances). For
    /// groups of 20 cells or more.
    Moderated,
    /// No variance between seeds: contrasts apply to these very policies. The only choice with one seed.
    Fixed,
}

/// The fewest cells with a variance between seeds of their own.
const FEWEST_CELLS: usize = 4;

/// Returns the groups of cells, with small groups joined to the largest one: those with fewer than four cells of as many
/// seeds as any cell has. `seeds` are the cells' numbers of seeds.
///
/// ```
/// use stats::join_small_groups;
///
/// assert_eq!(join_small_groups(&[0, 0, 0, 0, 1], &[2; 5]), [0; 5]);
/// let groups = [0, 0, 0, 0, 1, 1, 1, 1];
/// assert_eq!(join_small_groups(&groups, &[2; 8]), groups);
/// assert_eq!(join_small_groups(&groups, &[2, 2, 2, 2, 2, 2, 2, 1]), [0; 8]);
/// ```
pub fn join_small_groups<G: Copy + Ord>(groups: &[G], seeds: &[usize]) -> Vec<G> {
    let most = seeds.iter().max();
    let mut sizes: BTreeMap<G, usize> = BTreeMap::new();
    for (group, seeds) in groups.iter().zip(seeds) {
        *sizes.entry(*group).or_default() += usize::from(Some(seeds) == most);
    }
    let largest = sizes.iter().max_by_key(|(_, size)| **size).map(|(group, _)| *group);
    let joined = |group: &G| largest.filter(|_| sizes[group] < FEWEST_CELLS).unwrap_or(*group);
    groups.iter().map(joined).collect()
}

/// Variances between the seeds of the cells.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeedEffects {
    /// Of each group: the variance of seed means, and the part of it that is the interaction of seeds and questions.
    pub(crate) groups: BTreeMap<u64, (MeanSquare, MeanSquare)>,
    /// The variance of the effect that a seed has on all cells, if it is separated.
    pub(crate) common: Option<MeanSquare>,
    /// As `groups`, of each cell.
    cells: Vec<(MeanSquare, MeanSquare)>,
}

/// The seeds of a cell and its scores, `[seeds][questions]`; `None` where it lacks the question.
type Scores<'a> = (&'a [u64], &'a [Vec<Option<f64>>]);

impl SeedEffects {
    /// Returns the degrees of freedom of the group with the fewest.
    pub(crate) fn smallest_df(&self) -> f64 {
        self.groups.values().map(|(seeds, _)| seeds.degrees_of_freedom).fold(f64::INFINITY, f64::min)
    }

    /// Returns the variance of the seed means of a cell, and the part of it that is the interaction.
    pub(crate) fn of(&self, cell: usize) -> (MeanSquare, MeanSquare) {
        self.cells[cell]
    }
}

/// Estimates the variances of the cells, which belong to `groups`.
pub(crate) fn seed_effects(
    groups: &[u64],
    cells: &[Scores<'_>],
    pooling: Pooling,
) -> Result<SeedEffects, Error> {
    const NONE: MeanSquare = MeanSquare { value: 0.0, degrees_of_freedom: f64::INFINITY };
    if pooling == Pooling::Fixed {
        let groups_of = groups.iter().map(|&group| (group, (NONE, NONE))).collect();
        return Ok(SeedEffects { groups: groups_of, common: None, cells: vec![(NONE, NONE); cells.len()] });
    }
    if pooling == Pooling::Paired
        && let Some(paired) = paired(groups, cells)
    {
        return Ok(paired);
    }
    let observed: Vec<(MeanSquare, MeanSquare)> = cells.iter().map(|(_, scores)| observed(scores)).collect();
    let mut of_groups = BTreeMap::new();
    let mut of_cells = observed.clone();
    for &group in groups {
        let members: Vec<usize> = (0..cells.len()).filter(|&at| groups[at] == group).collect();
        let squares = |of: fn(&(MeanSquare, MeanSquare)) -> MeanSquare| -> Vec<MeanSquare> {
            members.iter().map(|&at| of(&observed[at])).collect()
        };
        let seeds = squares(|(seeds, _)| *seeds);
        let pooled = pool_variances(&seeds).ok_or(Error::OneSeed)?;
        let interaction = pool_variances(&squares(|(_, interaction)| *interaction)).ok_or(Error::OneSeed)?;
        let combined = match pooling {
            Pooling::Moderated => moderate_variances(&seeds)?.moderated,
            _ => vec![pooled; members.len()],
        };
        for (&at, combined) in members.iter().zip(combined) {
            let own = observed[at].1;
            of_cells[at] = (combined, if own.degrees_of_freedom > 0.0 { own } else { interaction });
        }
        of_groups.insert(group, (pooled, interaction));
    }
    Ok(SeedEffects { groups: of_groups, common: None, cells: of_cells })
}

/// Returns the mean squares of a cell's seed means and of its interaction, both as variances of a seed mean.
fn observed(scores: &[Vec<Option<f64>>]) -> (MeanSquare, MeanSquare) {
    let rows: Vec<Vec<f64>> = scores.iter().map(|row| row.iter().flatten().copied().collect()).collect();
    let (s, q) = (rows.len(), rows.first().map_or(0, Vec::len));
    let (_, squares) = moments(&rows.iter().map(|row| moments(row).0).collect::<Vec<_>>());
    let df = length(s) - 1.0;
    let interaction_df = df * (length(q) - 1.0).max(0.0);
    (
        MeanSquare { value: if df > 0.0 { squares / df } else { 0.0 }, degrees_of_freedom: df },
        MeanSquare { value: interaction_of(&rows) / length(q.max(1)), degrees_of_freedom: interaction_df },
    )
}

/// Estimates the variances of seed effects that differ between cells; `None` if fewer than two cells have all seeds, or
/// there is one seed.
///
/// The effect that a seed has on all cells is the mean over cells, question by question. What remains of a cell's effect
/// has the expected mean square σᵢ² (1 − 2/K) + Σⱼ σⱼ²/K² for K cells, which is solved for the variance of each group.
fn paired(groups: &[u64], cells: &[Scores<'_>]) -> Option<SeedEffects> {
    let seeds: BTreeSet<u64> = cells.iter().flat_map(|(seeds, _)| seeds.iter().copied()).collect();
    let whole: Vec<usize> = (0..cells.len()).filter(|&at| cells[at].0.len() == seeds.len()).collect();
    if whole.len() < 2 || seeds.len() < 2 {
        return None;
    }
    let questions = cells[0].1.first().map_or(0, Vec::len);
    let common: Vec<Vec<f64>> = (0..seeds.len())
        .map(|seed| {
            let mean = |question: usize| {
                let scores: Vec<f64> = whole.iter().filter_map(|&at| cells[at].1[seed][question]).collect();
                moments(&scores).0
            };
            (0..questions).map(mean).collect()
        })
        .collect();
    let rest: Vec<(MeanSquare, MeanSquare)> = whole
        .iter()
        .map(|&at| {
            let without = |(row, common): (&Vec<Option<f64>>, &Vec<f64>)| -> Vec<Option<f64>> {
                row.iter().zip(common).map(|(score, common)| score.map(|score| score - common)).collect()
            };
            observed(&cells[at].1.iter().zip(&common).map(without).collect::<Vec<_>>())
        })
        .collect();
    let of_whole: Vec<u64> = whole.iter().map(|&at| groups[at]).collect();
    let seeds_of = solve(&of_whole, &rest.iter().map(|(seeds, _)| *seeds).collect::<Vec<_>>());
    let interactions =
        solve(&of_whole, &rest.iter().map(|(_, interaction)| *interaction).collect::<Vec<_>>());
    let of_group = |group: u64| -> Option<(MeanSquare, MeanSquare)> {
        Some((*seeds_of.get(&group)?, *interactions.get(&group)?))
    };
    let of_cells: Option<Vec<(MeanSquare, MeanSquare)>> =
        groups.iter().map(|&group| of_group(group)).collect();
    let of_groups: Option<BTreeMap<u64, (MeanSquare, MeanSquare)>> =
        groups.iter().map(|&group| Some((group, of_group(group)?))).collect();
    let (_, squares) = moments(&common.iter().map(|row| finite_mean(row)).collect::<Vec<_>>());
    let df = length(seeds.len()) - 1.0;
    let common = MeanSquare { value: squares / df, degrees_of_freedom: df };
    Some(SeedEffects { groups: of_groups?, common: Some(common), cells: of_cells? })
}

/// Returns the mean over the questions that some cell has.
fn finite_mean(row: &[f64]) -> f64 {
    moments(&row.iter().copied().filter(|value| value.is_finite()).collect::<Vec<_>>()).0
}

/// Returns the variance of each group from the mean squares of what the mean over cells leaves.
fn solve(groups: &[u64], rest: &[MeanSquare]) -> BTreeMap<u64, MeanSquare> {
    let k = length(rest.len());
    let total = rest.iter().map(|square| square.value).sum::<f64>() / (1.0 - 1.0 / k);
    let mut of_groups: BTreeMap<u64, (f64, f64, f64)> = BTreeMap::new();
    for (&group, square) in groups.iter().zip(rest) {
        let (sum, df, cells) = of_groups.entry(group).or_default();
        *sum += square.value;
        *df += square.degrees_of_freedom * (1.0 - 1.0 / k);
        *cells += 1.0;
    }
    let several = of_groups.len() > 1 && rest.len() > 2;
    let solved = |(group, (sum, df, cells)): (u64, (f64, f64, f64))| {
        // Two cells do not tell which of them varies.
        let value = if several { (sum / cells - total / k / k) / (1.0 - 2.0 / k) } else { total / k };
        (group, MeanSquare { value: value.max(0.0), degrees_of_freedom: df })
    };
    of_groups.into_iter().map(solved).collect()
}

/// Returns the mean square of the interaction of rows and columns; 0 for one row.
pub(crate) fn interaction_of(rows: &[Vec<f64>]) -> f64 {
    let (s, q) = (rows.len(), rows.first().map_or(0, Vec::len));
    if s < 2 || q < 2 {
        return 0.0;
    }
    let row_means: Vec<f64> = rows.iter().map(|row| moments(row).0).collect();
    let mean = moments(&row_means).0;
    let column = |at: usize| rows.iter().map(|row| row[at]).sum::<f64>() / length(s);
    let squares: f64 = (0..q)
        .map(|at| {
            let column = column(at);
            rows.iter()
                .zip(&row_means)
                .map(|(row, of_row)| (row[at] - of_row - column + mean).powi(2))
                .sum::<f64>()
        })
        .sum();
    squares / length((s - 1) * (q - 1))
}
