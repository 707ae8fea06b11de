//! All research questions, or some of their tables.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(&bins::STUDY)
}
