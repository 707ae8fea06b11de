#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod ask;
mod error;
mod page;
mod prompt;
mod run;
mod statistics;
mod verdict;

pub use ask::{Fallback, Game, Judgement, LlmAnnotator, Policies, Unlabelled};
pub use error::AnnotateError;
pub use page::page;
pub use prompt::PromptTemplate;
pub use run::{AnnotateReport, Annotation, annotate, read_log, write_log};
pub use statistics::{AnnotatorStatistics, PositionBias, Proportion, agreement_table, bias_table};
pub use verdict::Verdict;
