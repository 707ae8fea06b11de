//! Preferences acquired from models, and what they are worth.

use std::process::ExitCode;

use bins::{Annotate, run};
use clap::Parser;

fn main() -> ExitCode {
    let annotate = Annotate::parse();
    run(|signals| annotate.run(signals))
}
