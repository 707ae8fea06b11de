//! The programs: arguments, terminal, signals, exit statuses.
//!
//! Stdout is for results, stderr for logs and progress. Exit statuses: 0 success, 2 bad input, 130 or 143 interrupted by
//! a signal (progress saved), 3 another process of the run failed first, 101 an internal error, 1 other errors.

#![forbid(unsafe_code)]

mod agreement_program;
mod annotate_program;
mod audit_program;
mod batch_args;
mod call_args;
mod compare_program;
mod console;
mod console_args;
mod design_args;
mod group_error;
mod groups;
mod launch;
mod launched;
mod log_file;
mod mtbench_program;
mod no_answers;
mod preview_text;
mod program;
mod programs;
mod rating_program;
mod recipe_args;
mod registry_program;
mod study_plan;
mod study_program;
mod terminal;
mod train_plan;
mod train_program;
mod units;

pub use programs::{
    AGREEMENT, ANNOTATE, AUDIT, MTBENCH, PREF_TRAIN, Program, RQ1, RQ2, RQ3, RQ4, STUDY, commands, main,
    preflab,
};
