//! Human comparisons of two models.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(&bins::AGREEMENT)
}
