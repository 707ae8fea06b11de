//! MT-Bench: answer, judge, show, compare, browse.

use std::process::ExitCode;

use bins::{MtBench, mtbench, run_logging};
use clap::Parser as _;

fn main() -> ExitCode {
    let args = MtBench::parse();
    run_logging(args.logged(), |signals| mtbench(&args, signals))
}
