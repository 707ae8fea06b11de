//! `study ls`, `study show`, `study verify`, `study describe`: the cells and files of a study's folder, and its datasets.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use experiment::{Runner, describe};
use report::table::{Format, Table};
use study::questions::ALL;
use study::registry;

use crate::compare_program::CompareArgs;
use crate::program::print_result;
use crate::recipe_args::{RecipeArgs, recipe};

/// A command on a study that does not run it.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Compare arms by scores from anywhere: differences, intervals, corrected tests, required samples
    Compare(CompareArgs),
    /// List the cells of a study's folder with their questions, states and scores
    Ls {
        #[command(flatten)]
        folder: Folder,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show one cell: training, scores with intervals, sample answers, recipe
    Show {
        /// The cell's name in `study ls`, or a unique prefix
        #[arg(value_name = "CELL")]
        cell: String,
        #[command(flatten)]
        folder: Folder,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Compare the files of a folder, such as a study's or a run's, with their checksums
    Verify {
        /// The folder
        #[arg(value_name = "DIR")]
        dir: PathBuf,
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
    /// Format of the tables: text, md, csv, tex or json
    #[arg(long, default_value = "text", value_parser = Format::from_str)]
    format: Format,
}

impl RegistryCommand {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Compare(args) => args.run(),
            Self::Ls { folder, format } => print(&[registry(&folder.out, ALL)?.table()?], format),
            Self::Show { cell, folder, format } => print(&registry(&folder.out, ALL)?.show(cell)?, format),
            Self::Verify { dir } => verify(dir),
            Self::Describe { recipe: args, format } => {
                print(&describe(&Runner::new(recipe(args)?.setup())?)?, format)
            }
        }
    }
}

fn verify(dir: &Path) -> anyhow::Result<()> {
    let found = files::verify(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for damage in &found.damaged {
        print_result(format!("damaged: {damage}"))?;
    }
    let unchecked = found.unchecked.len();
    print_result(format!("{} files match their checksums, {unchecked} have none", found.intact))?;
    let (damaged, all) = (found.damaged.len(), found.damaged.len() + found.intact);
    ensure!(damaged == 0, "{damaged} of {all} files with checksums in {} are damaged", dir.display());
    ensure!(all > 0, "nothing is checked in {}: it is no folder of a run or a study", dir.display());
    Ok(())
}

fn print(tables: &[Table], format: &FormatArg) -> anyhow::Result<()> {
    for table in tables {
        print_result(table.render(format.format))?;
    }
    Ok(())
}
