//! What can go wrong.

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A score is NaN or infinite.
    #[error("row {row}, cluster {cluster}: {value} is no score; drop the row or count it as missing")]
    NotFinite {
        /// The row, counted from 0.
        row: usize,
        /// The row's cluster.
        cluster: u64,
        /// The value.
        value: f64,
    },
    /// Between-cluster variation cannot be seen.
    #[error("{clusters} cluster(s): a clustered bootstrap needs two or more")]
    TooFewClusters {
        /// How many clusters there are.
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
    #[error("{successes} successes in {trials} trials are no proportion")]
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
    /// Agreement over too little.
    #[error("too few {what}: agreement needs {needed} or more")]
    TooFew {
        /// What there is too little of: items or raters.
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
}
