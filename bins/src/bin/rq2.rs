//! RQ2: volume of preferences.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(&bins::RQ2)
}
