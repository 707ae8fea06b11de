//! Tables, figures and self-contained pages.
//!
//! Values stay typed until somebody asks for text: a [`table::Table`] knows intervals from names, a [`figure::Svg`] is
//! made here only, a [`page::Report`] takes both into one HTML file, and a [`browse::Browser`] shows dialogues side by
//! side. Nothing here knows what the numbers mean, and nothing computes one.

#![forbid(unsafe_code)]

pub mod browse;
mod escape;
pub mod figure;
mod files;
pub mod page;

pub mod sheet;
pub mod table;

pub use files::{ReportError, write_figures, write_page, write_report, write_tables};
