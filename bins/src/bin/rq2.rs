//! What the volume of preferences does.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::question(&study::questions::Volume)
}
