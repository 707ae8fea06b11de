#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod answer;
mod claims;
mod components;
mod conclusion;
mod conditions;
mod contrast;
mod coverage;
mod design;
mod error;
mod evidence;
mod figures;
#[cfg(test)]
mod fixtures;
mod headline;
mod levels;
mod manifest;
mod methods;
pub mod paper;
mod people;
mod printed;
mod question;
pub mod questions;
mod raters;
pub mod recipe;
mod required;
mod results;
mod run;
mod study;
mod summary;
mod tables;
mod tested;
mod tuning;
mod verdict;
mod verdicts;

pub use claims::{Answers, Claim, Expectation, Headline};
pub use conclusion::{Findings, conclude};
pub use contrast::{Contrast, Select};
pub use design::{Assumptions, JudgeFit, Spread, design};
pub use error::StudyError;
pub use headline::ANSWERS;
pub use question::{About, Question, Questions};
pub use results::{Figure, Results};
pub use run::registry;
pub use study::Study;
