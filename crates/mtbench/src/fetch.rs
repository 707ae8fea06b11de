//! Questions and references from the servers of FastChat's authors, or from a folder.

use std::time::Duration;

use crate::answer::Answer;
use crate::bench_dir::BenchDir;
use crate::error::Error;
use crate::question::Question;
use crate::rows::{if_present, parse_lines, read, replace};

/// The benchmark's folder in the space `lmsys/mt-bench`.
pub const SPACE: &str = "https://huggingface.co/spaces/lmsys/mt-bench/resolve/main/data/mt_bench";

const TIMEOUT: Duration = Duration::from_secs(60);

/// The judge whose references are fetched.
const REFERENCES: &str = "gpt-4";

/// Downloads `question.jsonl` and, if the server has it, `reference_answer/gpt-4.jsonl` from below `url` into `bench`,
/// byte for byte. Every line is checked before anything is written.
///
/// # Errors
///
/// [`Error::Fetch`], [`Error::Line`], [`Error::Turns`], and those of writing.
pub fn fetch_bench(url: &str, bench: &BenchDir) -> Result<(), Error> {
    let base = url.trim_end_matches('/');
    let get = |name: &str| {
        let url = format!("{base}/{name}");
        llm_client::download(&url, TIMEOUT)
            .map_err(|source| Error::Fetch { url: llm_client::masked_url(&url), source })
    };
    let questions = get("question.jsonl")?;
    let references = match get("reference_answer/gpt-4.jsonl") {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(%error, "no reference answers; math, reasoning and coding cannot be judged without");
            String::new()
        }
    };
    install(bench, &questions, &references)
}

/// Copies questions and references of the folder `from` into `bench`, byte for byte. Every line is checked before
/// anything is written.
///
/// # Errors
///
/// As [`fetch_bench`].
pub fn copy_bench(from: &BenchDir, bench: &BenchDir) -> Result<(), Error> {
    // Checks what one line alone does not show, such as ids that come twice.
    from.questions()?;
    let references = if_present(read(&from.reference_file(REFERENCES)?))?;
    install(bench, &read(&from.question_file())?, &references)
}

fn install(bench: &BenchDir, questions: &str, references: &str) -> Result<(), Error> {
    let (question_file, reference_file) = (bench.question_file(), bench.reference_file(REFERENCES)?);
    for question in parse_lines::<Question>(&question_file, questions)? {
        question.checked_turns()?;
    }
    let has_references = !parse_lines::<Answer>(&reference_file, references)?.is_empty();
    replace(&question_file, questions)?;
    if has_references { replace(&reference_file, references) } else { Ok(()) }
}
