//! The arguments of every program: what it logs, and its colors.

use clap::{Args, ColorChoice};

#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct ConsoleArgs {
    /// Show the log on standard error; RUST_LOG selects by module
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) verbose: bool,
    /// Colors of messages and help; auto also reads `NO_COLOR` and `CLICOLOR_FORCE`
    #[arg(long, global = true, help_heading = "Output", value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
}
