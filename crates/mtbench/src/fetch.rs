//! Questions and references from where FastChat's authors keep them.

use std::time::Duration;

use crate::files::parse_lines;
use crate::{Answer, BenchDir, Error, Question};

/// The benchmark's folder in the space `lmsys/mt-bench`.
pub const SPACE: &str = "https://huggingface.co/spaces/lmsys/mt-bench/resolve/main/data/mt_bench";

const TIMEOUT: Duration = Duration::from_secs(60);

/// Downloads `question.jsonl` and, where the server has it, `reference_answer/gpt-4.jsonl` from below `url` into `bench`. Every
/// line is read before anything is written.
///
/// # Errors
///
/// [`Error::Fetch`], [`Error::Line`], [`Error::Turns`], and those of writing.
pub fn fetch_bench(url: &str, bench: &BenchDir) -> Result<(), Error> {
    let base = url.trim_end_matches('/');
    let get = |name: &str| {
        let url = format!("{base}/{name}");
        llm_client::download(&url, TIMEOUT).map_err(|source| Error::Fetch { url, source })
    };
    let text = get("question.jsonl")?;
    let questions: Vec<Question> = parse_lines(&bench.question_file(), &text)?;
    for question in &questions {
        question.checked_turns()?;
    }
    let references = match get("reference_answer/gpt-4.jsonl") {
        Ok(text) => parse_lines::<Answer>(&bench.reference_file("gpt-4")?, &text)?,
        Err(error) => {
            tracing::warn!(%error, "no reference answers; math, reasoning and coding cannot be judged without");
            Vec::new()
        }
    };
    bench.write_questions(&questions)?;
    if references.is_empty() { Ok(()) } else { bench.write_references("gpt-4", &references) }
}
