#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod comparison;
mod contrasts;
mod differences;
mod error;
mod form;
mod output;
mod parquet_rows;
mod people;
mod place;
mod ratings;
mod reading;
mod scores;
mod source;
mod tested;

pub use comparison::{Comparison, ContrastRow, Options, compare, compare_with_ratings};
pub use error::Error;
pub use output::{to_csv, to_json};
pub use people::{CorrectedRow, JudgeCheck, Measured, People};
pub use place::Place;
pub use ratings::{QuestionCategory, Ratings, draw_questions};
pub use scores::{Scores, read_scores, study_arms};
pub use source::Source;
