#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod adjusted;
mod agreement;
mod bootstrap;
mod bradley_terry;
mod clusters;
mod correlation;
mod crossed;
mod design;
mod detectable;
mod distribution;
mod equivalence;
mod error;
mod estimate;
mod logistic;
mod max_contrast;
mod moderated;
mod multiple;
mod overfitting;
mod pairs;
mod permutation;
mod pooled;
mod power;
mod ppi;
mod proportion;
mod resamples;
mod seed_effects;
mod selection;
mod sign;
mod tally;
mod trend;
mod vote;

pub use adjusted::{Adjusted, adjust};
pub use agreement::{Agreement, Kappa, choice_counts, fleiss_kappa, gwet_ac1, randolph_kappa};
pub use bootstrap::{
    Estimate, Method, difference_interval, mean_interval, mean_intervals, paired_difference_interval,
    unpaired_difference_interval,
};
pub use bradley_terry::{BradleyTerry, bradley_terry};
pub use clusters::ClusteredScores;
pub use correlation::{Correlation, kendall_tau, spearman_rho};
pub use crossed::{Components, CrossedScores, Observation};
pub use design::{Design, Over, Variances};
pub use detectable::{DetectableEffect, PlannedTest, RequiredSample, Source, StudySize, VarianceParts};
pub use equivalence::{Assay, Conclusion, Equivalence, equivalence_test, equivalence_tests};
pub use error::Error;
pub use estimate::MeanEstimate;
pub use logistic::{LogisticFit, LogisticRow, logistic_regression};
pub use max_contrast::{Alternative, MaxContrast, all_pairs, dose_response, falls_from_peak};
pub use moderated::{MeanSquare, ModeratedVariances, moderate_variances};
pub use multiple::{benjamini_hochberg, holm};
pub use overfitting::{Checkpoint, Overfitting, OverfittingVerdict, Sign, judge_overfitting};
pub use pairs::{Alpha, CohenKappa, Metric, Weights, cohen_kappa, krippendorff_alpha};
pub use permutation::{
    HodgesLehmann, PMethod, PValue, WilcoxonTest, Zeros, hodges_lehmann, sign_flip_test, wilcoxon_test,
};
pub use pooled::{PooledSeeds, SeedVariance};
pub use power::{Plan, SeedsNeeded};
pub use ppi::{CorrectedMean, PpiEstimate, RatedItem, correct_by_people, ppi_mean};
pub use proportion::{Interval, clopper_pearson_interval, wilson_interval};
pub use resamples::Resamples;
pub use seed_effects::{Pooling, join_small_groups};
pub use selection::{CrossFitted, SelectedSetting, cross_fit, select_by_cross_fitting};
pub use sign::{McNemarTest, SignTest, mcnemar_test, sign_test};
pub use tally::{Choice, Tally};
pub use trend::{Trend, jonckheere_test, page_test};
pub use vote::{MajorityVotes, Split, SplitPolicy, ThreeWaySplit, TwoWaySplit, Verdict, majority_vote};
