//! Whether preference data are good enough, and what would help.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(&bins::AUDIT)
}
