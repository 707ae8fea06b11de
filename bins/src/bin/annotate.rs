//! Preferences acquired from models, and what they are worth.

use std::process::ExitCode;

use bins::{Annotate, run_logging};
use clap::Parser;

fn main() -> ExitCode {
    let annotate = Annotate::parse();
    run_logging(annotate.logged(), |signals| annotate.run(signals))
}
