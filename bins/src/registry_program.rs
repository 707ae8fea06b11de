//! `study ls`, `study show`, `study describe`: what lies in a study's folder, and what its data are.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use report::table::{Format, Table};
use study::{Registry, Runner, describe};

use crate::program::print_result;
use crate::study_program::{RecipeArgs, recipe};

/// What is asked about a study instead of running it.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// List the cells of a study's folder: what each is, which questions it serves, how far it is, its scores
    Ls {
        #[command(flatten)]
        folder: Folder,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show everything of one cell: training, scores with intervals, answers beside the supervised policy's, recipe
    Show {
        /// The cell's name in `study ls`, or its beginning
        #[arg(value_name = "CELL")]
        cell: String,
        #[command(flatten)]
        folder: Folder,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Describe the datasets of a recipe: sizes, domains, annotators
    Describe {
        #[command(flatten)]
        recipe: RecipeArgs,
        #[command(flatten)]
        format: FormatArg,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Folder {
    /// The study's folder
    #[arg(long, value_name = "DIR", default_value = "runs/sandbox")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct FormatArg {
    /// How tables are printed: text, md, csv, tex or json
    #[arg(long, default_value = "text", value_parser = Format::from_str)]
    format: Format,
}

impl RegistryCommand {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Ls { folder, format } => print(&[Registry::open(&folder.out)?.table()?], format),
            Self::Show { cell, folder, format } => print(&Registry::open(&folder.out)?.show(cell)?, format),
            Self::Describe { recipe: args, format } => {
                print(&describe(&Runner::new(recipe(args)?)?)?, format)
            }
        }
    }
}

fn print(tables: &[Table], format: &FormatArg) -> anyhow::Result<()> {
    for table in tables {
        print_result(table.render(format.format))?;
    }
    Ok(())
}
