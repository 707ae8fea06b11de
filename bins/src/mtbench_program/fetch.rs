//! `mtbench fetch`.

use std::path::PathBuf;

use clap::Args;
use mtbench::{Answer, BenchDir, Question, fetch_bench};

use super::Data;
use crate::program::print_result;

/// Bring the questions and reference answers into the benchmark's folder, and check them
#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    #[command(flatten)]
    data: Data,
    /// A folder that holds `question.jsonl` and `reference_answer/`, such as FastChat's `data/mt_bench`
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    from: Option<PathBuf>,
    /// Where such a folder is served over HTTP
    #[arg(long, value_name = "URL", default_value = mtbench::SPACE)]
    url: String,
}

pub(super) fn fetch(args: &FetchArgs) -> anyhow::Result<()> {
    let bench = args.data.bench();
    match &args.from {
        Some(folder) => copy(&BenchDir::new(folder), &bench)?,
        None => fetch_bench(&args.url, &bench)?,
    }
    let (questions, references): (Vec<Question>, Vec<Answer>) =
        (bench.questions()?, bench.references_on_file("gpt-4")?);
    let root = bench.root().display();
    Ok(print_result(format_args!("{root}: {} questions, {} references", questions.len(), references.len()))?)
}

/// Reading and writing checks each line on the way, and changes no byte of it.
fn copy(from: &BenchDir, to: &BenchDir) -> Result<(), mtbench::Error> {
    to.write_questions(&from.questions()?)?;
    let references = from.references_on_file("gpt-4")?;
    if references.is_empty() { Ok(()) } else { to.write_references("gpt-4", &references) }
}
