#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod args;
mod ast;
mod date;
mod error;
mod format;
mod interpreter;
mod json;
mod lexer;
mod limits;
mod ops;
mod parser;
mod strftime;
mod template;
mod text;
mod value;

pub use date::Date;
pub use error::{Problem, TemplateError};
pub use template::{Inputs, Rendered, Template};
