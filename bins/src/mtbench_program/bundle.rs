//! `mtbench export` and `import`: judgments that travel.

use std::path::PathBuf;

use clap::Args;
use mtbench::{Bundle, Imported, export_bundle, import_bundle};

use super::Data;
use crate::program::print_result;

/// Write a judge's judgments, with questions and answers, into a folder with digests
///
/// The folder has the layout of a benchmark: `mtbench show`, `compare` and `judge` take it as --data.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    data: Data,
    /// The judge
    #[arg(long, value_name = "NAME", default_value = "gpt-4")]
    judge: String,
    /// These models only [default: all in `model_answer/`]
    #[arg(long = "model-id", value_name = "ID")]
    models: Vec<String>,
    /// The new folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Add the judgments of an exported folder to a benchmark's folder, after a comparison with its digests
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The exported folder
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    #[command(flatten)]
    data: Data,
}

pub(super) fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let bench = args.data.bench();
    let models = if args.models.is_empty() { bench.models()? } else { args.models.clone() };
    let bundle = export_bundle(&bench, &args.judge, &models, &args.out)?;
    Ok(print_result(format_args!("{}: {}", args.out.display(), contents(&bundle)))?)
}

pub(super) fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let Imported { bundle, new_models, new_judgments } = import_bundle(&args.bundle, &args.data.bench())?;
    Ok(print_result(format_args!(
        "{}; added {new_models} models and {new_judgments} judgments",
        contents(&bundle)
    ))?)
}

fn contents(bundle: &Bundle) -> String {
    let Bundle { judge, models, questions, judgments, comparisons, .. } = bundle;
    let models = models.len();
    format!(
        "{questions} questions, {models} models, {judgments} judgments and {comparisons} comparisons by {judge}"
    )
}
