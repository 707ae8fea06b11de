//! Whether training overfits.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::question(&study::questions::Overfitting)
}
