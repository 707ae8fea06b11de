//! Preferences acquired from models, and what they are worth.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(&bins::ANNOTATE)
}
