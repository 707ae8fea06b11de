//! Errors.

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A score is NaN or infinite.
    #[error(
        "row {row}, cluster {cluster}: {value} is not a finite number; drop the row or count it as missing"
    )]
    NotFinite {
        /// The row, counted from 0.
        row: usize,
        /// The row's cluster.
        cluster: u64,
        /// The value.
        value: f64,
    },
    /// The variance between clusters is undefined.
    #[error("{clusters} cluster(s): a clustered bootstrap needs two or more")]
    TooFewClusters {
        /// Returns the number of clusters.
        clusters: usize,
    },
    /// Two sets of scores that are to be compared cluster by cluster do not have the same clusters.
    #[error(
        "the scores are not paired: clusters {only_first:?} have scores on the first side only, {only_second:?} on the second"
    )]
    UnpairedClusters {
        /// Clusters without a score on the second side.
        only_first: Vec<u64>,
        /// Clusters without a score on the first side.
        only_second: Vec<u64>,
    },
    /// A confidence level is not a probability strictly between 0 and 1.
    #[error("confidence level {level}: write 0.95 for 95%")]
    Level {
        /// The level.
        level: f64,
    },
    /// A bootstrap without resamples.
    #[error("a bootstrap needs one resample or more; 10000 is a good number")]
    NoResamples,
    /// More successes than trials, or no trials.
    #[error("{successes} successes in {trials} trials is not a proportion")]
    Proportion {
        /// Successes.
        successes: u64,
        /// Trials.
        trials: u64,
    },
    /// An item that nobody rated has no vote.
    #[error("item {item} has no ratings")]
    NoVotes {
        /// The item, counted from 0.
        item: usize,
    },
    /// Too few items or raters for an agreement.
    #[error("too few {what}: agreement needs {needed} or more")]
    TooFew {
        /// What is too few: items or raters.
        what: &'static str,
        /// How many are needed.
        needed: u64,
    },
    /// An item was rated by another number of raters than the first one.
    #[error(
        "item {item} has {raters} ratings where item 0 has {expected}: kappa needs the same number of raters for every item"
    )]
    UnequalRaters {
        /// The item, counted from 0.
        item: usize,
        /// Its ratings.
        raters: u64,
        /// The first item's ratings.
        expected: u64,
    },
    /// An item counts another number of categories than the first one.
    #[error("item {item} counts {categories} categories where item 0 counts {expected}")]
    UnequalCategories {
        /// The item, counted from 0.
        item: usize,
        /// Its categories.
        categories: usize,
        /// The first item's categories.
        expected: usize,
    },
    /// Draws were made for another number of clusters.
    #[error(
        "{clusters} clusters of scores, but the resamples have {resampled}; draw resamples for the scores"
    )]
    ResampledClusters {
        /// Clusters of the scores.
        clusters: usize,
        /// Clusters of the draws.
        resampled: usize,
    },
    /// A crossed design has a hole.
    #[error(
        "seed {seed}, question {question}, turn {turn} {problem}; complete it, or drop the question for all seeds"
    )]
    Incomplete {
        /// The seed.
        seed: u64,
        /// The question.
        question: u64,
        /// The turn.
        turn: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two crossed designs are not the same.
    #[error(
        "the scores are not paired: {first:?} with its seeds and questions is another design than {second:?}"
    )]
    OtherDesign {
        /// The first one's size.
        first: crate::Design,
        /// The second one's.
        second: crate::Design,
    },
    /// One seed does not identify the variance between seeds.
    #[error(
        "one seed has no variance between seeds; train two or more seeds, or restrict the claim to these models"
    )]
    OneSeed,
    /// A power outside of its range.
    #[error("power {power}: must lie between 1 − level = {} and 1, such as 0.8", 1.0 - level)]
    Power {
        /// The power asked for.
        power: f64,
        /// The plan's confidence level.
        level: f64,
    },
    /// An invalid margin of equivalence.
    #[error("margin {margin}: give the largest difference that would not matter, in score points, above 0")]
    Margin {
        /// The margin.
        margin: f64,
    },
    /// Two sides that are to be compared value by value have different lengths.
    #[error("{second} values where {first} were expected: both sides must have the same number")]
    OtherLength {
        /// The first side's length.
        first: usize,
        /// The second side's.
        second: usize,
    },
    /// A correlation or trend of something that does not vary.
    #[error("all values of {side} are the same: there is no order to compare with")]
    Constant {
        /// Which side.
        side: &'static str,
    },
    /// A p-value outside of [0, 1].
    #[error("value {index} is {value}, which is not a probability")]
    NotProbability {
        /// Its place, counted from 0.
        index: usize,
        /// The value.
        value: f64,
    },
    /// An unbounded Bradley–Terry strength.
    #[error(
        "policy {policy} cannot be placed: no chain of games leads to it in which each {relation} the next; \
         leave it out, or let it meet others"
    )]
    Unconnected {
        /// The policy, counted from 0.
        policy: usize,
        /// Which chain is missing.
        relation: &'static str,
    },
    /// A policy beyond the table.
    #[error("policy {policy} of {policies}: they are counted from 0")]
    UnknownPolicy {
        /// The policy asked for.
        policy: usize,
        /// How many there are.
        policies: usize,
    },
}

/// Returns an error with the index of the first value that is NaN or infinite.
pub(crate) fn check_finite(values: &[f64]) -> Result<(), Error> {
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((row, &value)) => Err(Error::NotFinite { row, cluster: row as u64, value }),
        None => Ok(()),
    }
}

/// Returns an error unless `level` is strictly between 0 and 1.
pub(crate) fn check_level(level: f64) -> Result<(), Error> {
    if 0.0 < level && level < 1.0 { Ok(()) } else { Err(Error::Level { level }) }
}
