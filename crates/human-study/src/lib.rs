#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod answer_ratings;
mod comparison;
mod error;
mod files;
mod key;
mod ratings;
mod report;
mod sheet;
mod tables;

pub use answer_ratings::{
    AnswerRating, AnswerToRate, RatingItem, RatingKey, RatingSheet, RatingSheets, answer_ratings_csv,
    rating_sheets,
};
pub use comparison::{Comparison, Item};
pub use error::Error;
pub use key::{Key, Shown, Side, StudySheets};
pub use ratings::{Rating, parse_ratings, ratings_csv, read_ratings};
pub use report::{CategoryRates, Coefficient, PairAgreement, StudyReport};
pub use sheet::{ComparisonItem, ComparisonSheet};
