#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod comparison;
mod contrasts;
mod differences;
mod error;
mod form;
mod options;
mod output;
mod parquet_rows;
mod people;
mod place;
mod ratings;
mod reading;
mod scores;
mod source;
mod tested;

pub use comparison::{Comparison, ContrastRow, compare, compare_with_ratings};
pub use error::Error;
pub use options::Options;
pub use output::{to_csv, to_json};
pub use people::{CorrectedRow, JudgeCheck, People};
pub use place::Place;
pub use ratings::{Answer, QuestionCategory, Ratings, draw_questions};
pub use scores::{Scores, read_scores, study_arms};
pub use source::Source;
pub use tested::Measured;
