#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod ask;
mod candidates;
mod error;
mod page;
mod prompt;
mod proportion;
mod ratings;
mod run;
mod statistics;
mod strategies;
mod verdict;

pub use ask::{Fallback, Game, Judgement, LlmAnnotator, Policies, Question, Unlabelled};
pub use candidates::{Candidates, Dialogue, Prompt, Prompts, Sampled, Sources, candidates, digest};
pub use error::AnnotateError;
pub use page::page;
pub use prompt::PromptTemplate;
pub use proportion::Proportion;
pub use ratings::{Aspect, AspectCalls, RATINGS, RatingQuestion};
pub use run::{AnnotatePlan, AnnotateReport, Annotation, annotate, plan, read_log, write_log};
pub use statistics::{AnnotatorStatistics, PositionBias, agreement_table, bias_table};
pub use strategies::{RatedPairs, Strategy, rated_pairs};
pub use verdict::Verdict;
