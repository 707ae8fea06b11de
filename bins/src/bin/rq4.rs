//! Whether training overfits.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::study(study::Question::Overfitting)
}
