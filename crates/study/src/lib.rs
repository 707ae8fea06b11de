//! The research questions as grids over one engine.

#![forbid(unsafe_code)]
