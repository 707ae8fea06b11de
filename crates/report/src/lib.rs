//! Tables, figures and self-contained pages.
//!
//! Values stay typed until they are rendered: a [`table::Table`] distinguishes intervals from names, a [`figure::Svg`] is
//! created by this crate only, a [`page::Report`] has both in one HTML file, and a [`browse::Browser`] shows dialogues
//! side by side. This crate computes no statistic.

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
