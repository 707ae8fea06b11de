#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod claims;
mod error;
mod grid;
mod overfitting;
mod page;
mod table;
mod trends;

pub use claims::{Claim, Verdict, claims};
pub use error::Error;
pub use grid::{Grid, grid};
pub use page::{reanalysis, summary};
pub use table::{PaperTable, tables};
