//! How the way of acquiring preferences changes what DPO and IPO make of a policy.

use std::process::ExitCode;

fn main() -> ExitCode {
    bins::question(&study::questions::Acquisition)
}
