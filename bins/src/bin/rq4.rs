//! RQ4: overfitting.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::question(&study::questions::Overfitting)
}
