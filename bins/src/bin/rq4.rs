//! RQ4: overfitting.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(&bins::RQ4)
}
