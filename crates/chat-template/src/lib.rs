#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod ast;
mod calls;
mod error;
mod filters;
mod format;
mod interpreter;
mod json;
mod lexer;
mod limits;
mod methods;
mod ops;
mod parser;
mod strftime;
mod template;
mod tests;
mod text;
mod value;

pub use error::{Problem, TemplateError};
pub use template::{Date, Inputs, Rendered, Template};
