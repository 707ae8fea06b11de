#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod adjusted;
mod agreement;
mod bootstrap;
mod bradley_terry;
mod correlation;
mod crossed;
mod distribution;
mod equivalence;
mod error;
mod multiple;
mod overfitting;
mod pairs;
mod permutation;
mod power;
mod proportion;
mod resamples;
mod sign;
mod tally;
mod trend;
mod vote;

pub use adjusted::{Adjusted, adjust};
pub use agreement::{Agreement, Kappa, choice_counts, fleiss_kappa, gwet_ac1, randolph_kappa};
pub use bootstrap::{
    ClusteredScores, Estimate, Method, difference_interval, mean_interval, mean_intervals,
    paired_difference_interval, unpaired_difference_interval,
};
pub use bradley_terry::{BradleyTerry, bradley_terry};
pub use correlation::{Correlation, kendall_tau, spearman_rho};
pub use crossed::{Components, CrossedScores, Design, MeanEstimate, Observation, Over};
pub use equivalence::{Equivalence, equivalence_test};
pub use error::Error;
pub use multiple::{benjamini_hochberg, holm};
pub use overfitting::{Checkpoint, Overfitting, OverfittingVerdict, Sign, judge_overfitting};
pub use pairs::{Alpha, CohenKappa, Metric, Weights, cohen_kappa, krippendorff_alpha};
pub use permutation::{
    HodgesLehmann, PMethod, PValue, WilcoxonTest, Zeros, hodges_lehmann, sign_flip_test, wilcoxon_test,
};
pub use power::{Plan, SeedsNeeded, Variances};
pub use proportion::{Interval, clopper_pearson_interval, wilson_interval};
pub use resamples::Resamples;
pub use sign::{McNemarTest, SignTest, mcnemar_test, sign_test};
pub use tally::{Choice, Tally};
pub use trend::{Trend, jonckheere_test, page_test};
pub use vote::{MajorityVotes, Split, SplitPolicy, ThreeWaySplit, TwoWaySplit, Verdict, majority_vote};
