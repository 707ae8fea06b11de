//! MT-Bench: answer, judge, show, compare, browse.

use std::process::ExitCode;

use bins::{MtBench, mtbench, run};
use clap::Parser as _;

fn main() -> ExitCode {
    let args = MtBench::parse();
    run(|signals| mtbench(&args, signals))
}
