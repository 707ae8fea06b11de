//! What the programs share: the terminal, signals, exit statuses, and the arguments of a study.
//!
//! Stdout is for results, stderr for logs and progress. Exit statuses: 0 done, 2 bad input, 130 or 143 stopped by a
//! signal (what was done is kept), 3 another process of the run failed first, 1 anything else.

#![forbid(unsafe_code)]

mod annotate_program;
mod console;
mod launch;
mod mtbench_program;
mod program;
mod registry_program;
mod study_plan;
mod study_program;
mod train_plan;

pub use annotate_program::Annotate;
pub use console::{ConsoleProgress, SystemClock};
pub use launch::{RanksArgs, log_filter, placement};
pub use mtbench_program::{MtBench, mtbench};
pub use program::{Signals, Stopped, print_result, run, run_logging};
pub use study_program::{question, study};
pub use train_plan::train_plan;
