//! Previews of training examples as text.

use std::fmt::Write as _;

use trainer::{Preview, PreviewedCompletion, PreviewedPair};

/// Returns each example with its parts: text, token ids, and the number of tokens that truncation removed.
pub(crate) fn preview_text(preview: &Preview) -> String {
    let mut text = String::new();
    match preview {
        Preview::Pairs(pairs) => pairs.iter().for_each(|pair| write_pair(&mut text, pair)),
        Preview::Completions(completions) => {
            completions.iter().for_each(|one| write_completion(&mut text, one))
        }
    }
    text.trim_end().to_owned()
}

fn write_pair(text: &mut String, pair: &PreviewedPair) {
    let PreviewedPair { id, prompt, chosen, rejected, truncated, .. } = pair;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "pair {id}");
    write_part(text, ("prompt", "not scored"), prompt, &pair.prompt_ids, truncated.prompt);
    write_part(text, ("chosen", "scored"), chosen, &pair.chosen_ids, truncated.chosen);
    write_part(text, ("rejected", "scored"), rejected, &pair.rejected_ids, truncated.rejected);
}

fn write_completion(text: &mut String, one: &PreviewedCompletion) {
    let PreviewedCompletion { id, label, prompt, completion, truncated, .. } = one;
    let _ = writeln!(text, "completion {id}, {}", if *label { "desirable" } else { "undesirable" });
    write_part(text, ("prompt", "not scored"), prompt, &one.prompt_ids, truncated.prompt);
    write_part(text, ("completion", "scored"), completion, &one.completion_ids, truncated.completion);
}

/// Writes one part of an example.
pub(crate) fn write_part(
    text: &mut String,
    (name, scored): (&str, &str),
    part: &str,
    ids: &[u32],
    taken: usize,
) {
    let _ = writeln!(text, "{name}, {} tokens, {scored}, {taken} cut: {part:?}\n  {ids:?}", ids.len());
}
