//! RQ3: noise of the labels.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(&bins::RQ3)
}
