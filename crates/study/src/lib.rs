//! The research questions as grids over one engine.

#![forbid(unsafe_code)]

pub mod figure;
pub mod report;
pub mod results;
pub mod table;
