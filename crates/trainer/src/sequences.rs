//! The token sequences of pairs, for digests.

use pref_data::TokenPair;

/// Returns prompt, chosen and rejected response of each pair.
pub(crate) fn sequences<'a>(
    pairs: impl IntoIterator<Item = &'a TokenPair>,
) -> impl Iterator<Item = &'a [u32]> {
    pairs.into_iter().flat_map(|pair| [&*pair.prompt, &pair.chosen, &pair.rejected])
}
