//! Texts of prompts and responses: words, keys, shingles, edit distance.

use std::borrow::Cow;

use pref_data::Text;

/// Returns the text of all messages, one after the other.
pub(crate) fn flat(text: &Text) -> Cow<'_, str> {
    match text {
        Text::Plain(text) => Cow::Borrowed(text),
        Text::Chat(messages) => match &messages[..] {
            [one] => one.content(),
            all => Cow::Owned(all.iter().map(|message| message.content()).collect::<Vec<_>>().join("\n")),
        },
    }
}

/// Returns the user's last message of a prompt, without white space at its ends.
pub(crate) fn last_request(prompt: &Text) -> Cow<'_, str> {
    match prompt {
        Text::Chat(messages) => match messages.iter().rev().find(|message| message.role() == "user") {
            Some(message) => Cow::Owned(message.content().trim().to_owned()),
            None => Cow::Borrowed(""),
        },
        Text::Plain(text) => {
            let turn = text.rsplit_once("\n\nHuman:").map_or(&**text, |(_, turn)| turn);
            Cow::Borrowed(turn.strip_suffix("\n\nAssistant:").unwrap_or(turn).trim())
        }
    }
}

/// Returns the number of turns of a prompt.
pub(crate) fn turns(prompt: &Text) -> usize {
    match prompt {
        Text::Chat(messages) => messages.iter().filter(|message| message.role() == "user").count(),
        Text::Plain(text) => text.matches("\n\nHuman:").count(),
    }
    .max(1)
}

/// Returns a key of a text: equal for texts that differ in white space only.
pub(crate) fn key(text: &Text) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        for word in text.split_whitespace() {
            hasher.update(word.as_bytes()).update(b" ");
        }
    };
    match text {
        Text::Plain(text) => add(text),
        Text::Chat(messages) => {
            for message in messages {
                match message.plain_content() {
                    Some(content) => add(&format!("\u{1}{} {content}", message.role())),
                    None => add(&serde_json::Value::Object(message.fields()).to_string()),
                }
            }
        }
    }
    first_bytes(&hasher)
}

/// Returns one key of several.
pub(crate) fn joint_key(keys: &[u64]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for key in keys {
        hasher.update(&key.to_le_bytes());
    }
    first_bytes(&hasher)
}

fn first_bytes(hasher: &blake3::Hasher) -> u64 {
    let hash = hasher.finalize();
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// Mixes the bits of a number: the finalizer of `SplitMix64`.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Returns the hashes of the words in lower case. A word is a run of letters and digits; an ideograph is a word of its own.
pub(crate) fn words(text: &str) -> Vec<u64> {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    let mut words = Vec::with_capacity(text.len() / 5);
    let mut word = START;
    let mut take = |word: &mut u64| {
        if *word != START {
            words.push(mix(*word));
            *word = START;
        }
    };
    let add = |word: u64, c: char| (word ^ u64::from(c)).wrapping_mul(0x0000_0100_0000_01b3);
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            word = add(word, c.to_ascii_lowercase());
        } else if c.is_ascii() || !c.is_alphanumeric() {
            take(&mut word);
        } else if is_ideograph(c) {
            take(&mut word);
            word = add(word, c);
            take(&mut word);
        } else {
            word = c.to_lowercase().fold(word, add);
        }
    }
    take(&mut word);
    words
}

fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c), 0x3040..=0x30ff | 0x3400..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

/// Returns the hashes of all runs of `n` words; none of a shorter text.
pub(crate) fn grams(words: &[u64], n: usize) -> impl Iterator<Item = u64> + '_ {
    words.windows(n).map(|window| window.iter().fold(0, |hash, word| mix(hash ^ word).wrapping_add(1)))
}

/// Returns the sorted set of word pairs of a text; of a single word the word.
pub(crate) fn shingles(text: &str) -> Vec<u64> {
    let words = words(text);
    let mut shingles: Vec<u64> = if words.len() < 2 { words } else { grams(&words, 2).collect() };
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// Returns the Jaccard similarity of two sorted sets; 0 if both are empty.
pub(crate) fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0_usize);
    while i < a.len() && j < b.len() {
        let (x, y) = (a[i], b[j]);
        common += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

/// Returns the edit distance of two texts in bytes if it is at most `limit` (Ukkonen's band).
pub(crate) fn edit_distance_within(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let start = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    (a, b) = (&a[start..], &b[start..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    (a, b) = (&a[..a.len() - end], &b[..b.len() - end]);
    if bytes_apart(a, b) > limit {
        return None;
    }
    let (columns, beyond) = (b.len(), limit + 1);
    let mut row: Vec<usize> = (0..=columns).map(|at| at.min(beyond)).collect();
    for i in 1..=a.len() {
        let (from, to) = (i.saturating_sub(limit).max(1), (i + limit).min(columns));
        let mut diagonal = row[from - 1];
        row[from - 1] = if from == 1 { i.min(beyond) } else { beyond };
        let mut least = row[from - 1];
        for j in from..=to {
            // Cells right of the band hold values of earlier rows; none of these is in the band.
            let above = if j == i + limit { beyond } else { row[j] };
            let changed = diagonal + usize::from(a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = changed.min(above + 1).min(row[j - 1] + 1).min(beyond);
            least = least.min(row[j]);
        }
        if least > limit {
            return None;
        }
    }
    Some(row[columns]).filter(|distance| *distance <= limit)
}

/// Returns a lower bound of the edit distance: how many bytes of either text the other has not, in any order.
fn bytes_apart(a: &[u8], b: &[u8]) -> usize {
    let mut counts = [0_i64; 256];
    a.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    b.iter().for_each(|byte| counts[usize::from(*byte)] -= 1);
    let sum = |sign: i64| counts.iter().map(|count| (sign * count).max(0)).sum::<i64>();
    usize::try_from(sum(1).max(sum(-1))).unwrap_or(usize::MAX)
}

/// Returns the beginning of a text in one line.
pub(crate) fn excerpt(text: &str) -> String {
    const MOST: usize = 90;
    // Only the beginning is looked at: texts may be megabytes long.
    let start: String = text.chars().take(8 * MOST).collect();
    let line = start.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST {
        return line;
    }
    line.chars().take(MOST).collect::<String>() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_ignore_case_and_punctuation() {
        assert_eq!(words("Don't PANIC!"), words("don t, panic"));
        assert_eq!(words("ÄRGER"), words("ärger"));
        assert_eq!(words("日本 go").len(), 3);
        assert!(words(" ?! ").is_empty());
        assert_ne!(words("ab"), words("ba"));
    }

    #[test]
    fn keys_ignore_white_space_and_nothing_else() {
        let key = |text: &str| key(&Text::Plain(text.to_owned()));
        assert_eq!(key("a  b\n"), key(" a b"));
        assert_ne!(key("a b"), key("ab"));
        assert_ne!(key("a b"), key("A b"));
    }

    #[test]
    fn edit_distances_equal_those_of_the_full_table() {
        let texts =
            ["", "a", "kitten", "sitting", "kitchen", "the cat sat", "a cat sat on", "tac eht", "abcabcabc"];
        for a in texts {
            for b in texts {
                let full = full_distance(a.as_bytes(), b.as_bytes());
                for limit in 0..14 {
                    let expected = (full <= limit).then_some(full);
                    assert_eq!(edit_distance_within(a, b, limit), expected, "{a:?} {b:?} {limit}");
                }
            }
        }
    }

    fn full_distance(a: &[u8], b: &[u8]) -> usize {
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, y) in b.iter().enumerate() {
                let changed = diagonal + usize::from(x != y);
                diagonal = row[j + 1];
                row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
            }
        }
        row[b.len()]
    }

    #[test]
    fn similarity_counts_shared_word_pairs() {
        let similarity = |a, b| jaccard(&shingles(a), &shingles(b));
        assert!((similarity("a b c", "a b d") - 1.0 / 3.0).abs() < 1e-12);
        assert!((similarity("Why is it so?", "why is it so") - 1.0).abs() < 1e-12);
        assert!(similarity("", "").abs() < 1e-12);
    }
}
