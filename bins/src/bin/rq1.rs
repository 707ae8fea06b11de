//! RQ1: acquisition of preferences.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(&bins::RQ1)
}
