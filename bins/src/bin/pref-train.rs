//! One training run, from a recipe to a model folder.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(&bins::PREF_TRAIN)
}
