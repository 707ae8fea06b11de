//! Shared code of the programs: terminal, signals, exit statuses, arguments.
//!
//! Stdout is for results, stderr for logs and progress. Exit statuses: 0 success, 2 bad input, 130 or 143 interrupted by
//! a signal (progress saved), 3 another process of the run failed first, 101 an internal error, 1 other errors.

#![forbid(unsafe_code)]

mod annotate_program;
mod audit_program;
mod batch_args;
mod compare_program;
mod console;
mod group_error;
mod groups;
mod launch;
mod mtbench_program;
mod no_answers;
mod preview_text;
mod program;
mod rating_program;
mod recipe_args;
mod registry_program;
mod study_plan;
mod study_program;
mod train_plan;
mod units;

pub use annotate_program::Annotate;
pub use audit_program::AuditArgs;
pub use console::{ConsoleProgress, SystemClock};
pub use launch::{RanksArgs, log_filter, placement};
pub use mtbench_program::{MtBench, mtbench};
pub use preview_text::preview_text;
pub use program::{Signals, Stopped, print_result, run, run_logging};
pub use rating_program::study_rating_sheets;
pub use study_program::{question, study};
pub use train_plan::train_plan;
