//! Every program of this workspace as one command.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::preflab()
}
