//! Limits of a `tokenizer.json`, which comes from elsewhere: the library that runs it has none.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;
use serde_json::Value;

use crate::error::BoxedError;

/// The largest factor by which a normalizer or decoder may lengthen a text. Published ones stay below 20.
const MAX_GROWTH: usize = 1024;

/// The parts of a `tokenizer.json` that are checked.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

/// Why a `tokenizer.json` is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("`{part}` makes a text more than {MAX_GROWTH} times longer")]
    Growth { part: &'static str },
    #[error("`{part}` replaces an empty pattern")]
    EmptyPattern { part: &'static str },
    #[error("`precompiled_charsmap` is no table of characters")]
    Charsmap,
    #[error("`pre_tokenizer` has FixedLength with `length` 0")]
    NoLength,
    #[error("the tokenizer library fails on it: {0}")]
    Panicked(String),
}

/// Checks what would crash the library, or exhaust memory.
pub(super) fn check(json: &[u8]) -> Result<(), BoxedError> {
    let parts: Parts = serde_json::from_slice(json)?;
    for (part, value) in [("normalizer", &parts.normalizer), ("decoder", &parts.decoder)] {
        if growth(part, value)? > MAX_GROWTH {
            return Err(Refused::Growth { part }.into());
        }
    }
    if has_no_length(&parts.pre_tokenizer) { Err(Refused::NoLength.into()) } else { Ok(()) }
}

/// Runs `work` of the library. A panic, such as that of a regular expression that backtracks too often, is an error.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, BoxedError>) -> Result<T, BoxedError> {
    // The library's caches are behind locks, and an entry is complete before it is visible.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Refused::Panicked(text.to_owned()).into())
    })
}

/// Returns the largest factor by which a normalizer or a decoder lengthens a text.
fn growth(part: &'static str, value: &Value) -> Result<usize, Refused> {
    let text = |value: &Value| value.as_str().map_or(0, str::len);
    match value["type"].as_str().unwrap_or_default() {
        "Sequence" => {
            let list = |name| value[name].as_array().into_iter().flatten();
            list("normalizers")
                .chain(list("decoders"))
                .try_fold(1, |product: usize, inner| Ok(product.saturating_mul(growth(part, inner)?)))
        }
        "Replace" => {
            let content = text(&value["content"]);
            match value["pattern"]["String"].as_str() {
                Some("") => Err(Refused::EmptyPattern { part }),
                Some(pattern) => Ok(content.div_ceil(pattern.len()).max(1)),
                // A match may be empty.
                None => Ok(content + 1),
            }
        }
        "Precompiled" => {
            let longest = longest_replacement(text_of(&value["precompiled_charsmap"]));
            longest.ok_or(Refused::Charsmap)
        }
        _ => Ok(1),
    }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns the length of the longest text in a table of sentencepiece: the length of a trie, the trie, and texts with a
/// zero byte after each. `None` if it has another form.
fn longest_replacement(base64: &str) -> Option<usize> {
    let bytes = decoded(base64)?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let texts = rest.get(length..).filter(|_| length.is_multiple_of(4) && length > 0)?;
    texts.split(|byte| *byte == 0).map(|text| text.len().max(1)).max()
}

/// Decodes Base64 with padding.
fn decoded(base64: &str) -> Option<Vec<u8>> {
    let digits = base64.trim_end_matches('=').bytes().map(|byte| {
        Some(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    });
    let digits: Vec<u8> = digits.collect::<Option<_>>()?;
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = (0..4).fold(0_u32, |bits, at| bits << 6 | u32::from(four.get(at).copied().unwrap_or(0)));
        let [_, bytes @ ..] = bits.to_be_bytes();
        bytes.into_iter().take(four.len() * 6 / 8)
    });
    Some(bytes.collect())
}

fn has_no_length(value: &Value) -> bool {
    match value["type"].as_str().unwrap_or_default() {
        "Sequence" => value["pretokenizers"].as_array().into_iter().flatten().any(has_no_length),
        "FixedLength" => value["length"] == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(tokenizer: &Value) -> String {
        check(tokenizer.to_string().as_bytes()).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn growth_without_a_bound_is_refused() {
        let replace = |pattern: &str, content: &str| json!({"type": "Replace", "pattern": {"String": pattern}, "content": content});
        let normalizers = |list: Vec<Value>| json!({"normalizer": {"type": "Sequence", "normalizers": list}});
        assert_eq!(refused(&normalizers(vec![replace(" ", "▁"), replace("\n", "▁▁")])), "");
        assert!(refused(&normalizers(vec![replace("a", "aaaa"); 24])).contains("1024 times longer"));
        assert!(refused(&json!({"decoder": replace("a", &"b".repeat(2000))})).contains("`decoder`"));
        assert!(refused(&normalizers(vec![replace("", "a")])).contains("empty pattern"));
    }

    #[test]
    fn what_crashes_the_library_is_refused() {
        let fixed = |length: usize| json!({"type": "FixedLength", "length": length});
        let nested =
            |length| json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [fixed(length)]}});
        assert_eq!(refused(&nested(5)), "");
        assert!(refused(&nested(0)).contains("FixedLength"));
        let table =
            |base64: &str| json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64}});
        // A trie of four bytes and the text "ab".
        assert_eq!(refused(&table("BAAAAAAAAABhYgA=")), "");
        for bad in ["", "AAAA", "//////////8=", "not base64", "CAAAAP///////w=="] {
            assert!(refused(&table(bad)).contains("precompiled_charsmap"), "{bad}");
        }
    }

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [("", ""), ("YQ==", "a"), ("YWI=", "ab"), ("YWJj", "abc"), ("YWJjZA==", "abcd")]
        {
            assert_eq!(decoded(text).unwrap(), bytes.as_bytes());
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        let error = caught::<()>(|| panic!("chunk size must be {}", "non-zero")).unwrap_err();
        assert!(error.to_string().contains("chunk size must be non-zero"), "{error}");
    }
}
