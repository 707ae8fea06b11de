#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod comparison;
mod error;
mod files;
mod key;
mod ratings;
mod report;
mod sheet;
mod tables;

pub use comparison::{Comparison, Item};
pub use error::Error;
pub use key::{Key, Shown, Side, StudySheets};
pub use ratings::{Rating, parse_ratings, ratings_csv, read_ratings};
pub use report::{CategoryRates, Coefficient, PairAgreement, StudyReport};
pub use sheet::{ComparisonItem, ComparisonSheet};
