#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod browse;
mod error;
mod escape;
pub mod figure;
mod files;
pub mod page;
pub mod table;

pub use error::ReportError;
pub use escape::escape;
pub use files::{write_figures, write_page, write_report, write_tables};
