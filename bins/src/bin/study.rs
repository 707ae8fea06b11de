//! All tables of the paper, or some of them, as grids over one engine.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::study()
}
