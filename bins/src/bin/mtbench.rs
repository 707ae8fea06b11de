//! MT-Bench: answer, judge, show, compare, browse.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::main(&bins::MTBENCH)
}
