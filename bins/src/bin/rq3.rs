//! What flipped labels do.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::study(study::Question::Quality)
}
