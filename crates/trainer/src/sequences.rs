//! The token sequences of examples, for digests.

use pref_data::{TokenCompletion, TokenPair};

/// Returns prompt, chosen and rejected response of each pair.
pub(crate) fn sequences<'a>(
    pairs: impl IntoIterator<Item = &'a TokenPair>,
) -> impl Iterator<Item = &'a [u32]> {
    pairs.into_iter().flat_map(|pair| [&*pair.prompt, &pair.chosen, &pair.rejected])
}

/// Returns prompt and completion of each example. A third sequence is empty for an undesirable completion.
pub(crate) fn sequences_of_completions(completions: &[TokenCompletion]) -> impl Iterator<Item = &[u32]> {
    let label = |one: &TokenCompletion| if one.is_desirable { &[1][..] } else { &[] };
    completions.iter().flat_map(move |one| [&*one.prompt, &one.completion, label(one)])
}
