//! Whether preference data are good enough, and what would help.

use std::process::ExitCode;

use bins::{AuditArgs, run_logging};
use clap::Parser;

fn main() -> ExitCode {
    let audit = AuditArgs::parse();
    // The audit itself reports what the reader notes.
    run_logging("info,pref_data=error", |_| audit.run())
}
