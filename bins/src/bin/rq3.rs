//! What flipped labels do.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::question(&study::questions::Noise)
}
