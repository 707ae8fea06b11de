#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod comparison;
mod contrasts;
mod differences;
mod error;
mod form;
mod output;
mod parquet_rows;
mod place;
mod reading;
mod scores;
mod source;

pub use comparison::{Comparison, ContrastRow, Options, compare};
pub use error::Error;
pub use output::{to_csv, to_json};
pub use place::Place;
pub use scores::{Scores, read_scores};
pub use source::Source;
