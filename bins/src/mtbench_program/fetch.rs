//! `mtbench fetch`.

use std::path::PathBuf;

use clap::Args;
use mtbench::{Answer, BenchDir, Question, copy_bench, fetch_bench};

use super::Data;
use crate::program::print_result;

/// Copy or download the questions and reference answers into the benchmark's folder, and check them
#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    #[command(flatten)]
    data: Data,
    /// A folder with `question.jsonl` and `reference_answer/`, such as FastChat's `data/mt_bench`
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    from: Option<PathBuf>,
    /// The address of such a folder on a server
    #[arg(long, value_name = "URL", default_value = mtbench::SPACE)]
    url: String,
}

pub(super) fn fetch(args: &FetchArgs) -> anyhow::Result<()> {
    let bench = args.data.bench();
    match &args.from {
        Some(folder) => copy_bench(&BenchDir::new(folder), &bench)?,
        None => fetch_bench(&args.url, &bench)?,
    }
    let (questions, references): (Vec<Question>, Vec<Answer>) =
        (bench.questions()?, bench.references_on_file("gpt-4")?);
    let root = bench.root().display();
    Ok(print_result(format_args!("{root}: {} questions, {} references", questions.len(), references.len()))?)
}
