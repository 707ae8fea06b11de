#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod agreement;
mod bootstrap;
mod error;
mod tally;
mod vote;

pub use agreement::{Agreement, Kappa, choice_counts, fleiss_kappa, randolph_kappa};
pub use bootstrap::{ClusteredScores, Estimate, mean_interval, paired_difference_interval};
pub use error::Error;
pub use tally::{Choice, Interval, SignTest, Tally, sign_test, wilson_interval};
pub use vote::{MajorityVotes, Split, SplitPolicy, ThreeWaySplit, TwoWaySplit, Verdict, majority_vote};
