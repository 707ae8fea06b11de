//! The mechanical part of *Words* in CONTRIBUTING.md: phrases that have a standard form, one sentence a line in Markdown,
//! and the average length of its sentences.

use super::ending;
use crate::tracked::{Files, Violations};

/// Phrases that are always wrong, each with a standard form. In lower case; they match whole words.
const PHRASES: [(&str, &str); 28] = [
    ("whoever", "the noun: the caller, the rank, the reader"),
    ("who hears", "that receives"),
    ("hears of", "is called after"),
    ("hears", "receives"),
    ("is told", "is set to, receives"),
    ("are told", "receive"),
    ("told apart", "distinguished"),
    ("tells apart", "distinguishes"),
    ("what becomes of", "the result of"),
    ("what became of", "the result of"),
    ("what comes of", "the result of"),
    ("what came of", "the result of"),
    ("comes back once", "blocks until"),
    ("have come here", "reach the barrier"),
    ("stands in the", "is in the"),
    ("stands beside", "is next to"),
    ("stand beside", "are next to"),
    ("stands for itself", "is literal"),
    ("lies beside", "is next to"),
    ("lie beside", "are next to"),
    ("beside each other", "in parallel, side by side"),
    ("nobody watches", "no-op"),
    ("by heart", "overfits"),
    ("the way back", "the backward pass"),
    ("last words", "final messages"),
    ("goes on from", "resumes from"),
    ("with a taste", "biased"),
    ("false alarm", "false positive"),
];

/// The largest average number of words of a Markdown file's sentences.
const MOST_WORDS: usize = 30;

/// Abbreviations whose dot ends no sentence.
const ABBREVIATIONS: [&str; 9] = ["e.g.", "i.e.", "cf.", "vs.", "etc.", "approx.", "fig.", "eq.", "no."];

pub(super) fn plain_words(files: &Files) -> Violations {
    let texts = ending(files, &[".rs", ".md", ".cpp", ".h"]).filter(|(path, _)| !RULES.contains(path));
    let phrases = texts.flat_map(|(path, text)| phrases(path, text));
    let sentences = ending(files, &[".md"]).flat_map(|(path, text)| sentences(path, text));
    phrases.chain(sentences).collect()
}

/// The files that quote the phrases.
const RULES: [&str; 2] = ["CONTRIBUTING.md", "xtask/src/tidy/words.rs"];

fn phrases(path: &str, text: &str) -> Violations {
    super::lines(path, text, |line| {
        let line = line.to_lowercase();
        let (phrase, standard) = PHRASES.iter().find(|(phrase, _)| has_words(&line, phrase))?;
        Some(format!("`{phrase}`: write \"{standard}\" or rephrase"))
    })
}

fn has_words(line: &str, phrase: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(phrase)
        .any(|(at, _)| !line[..at].ends_with(joins) && !line[at + phrase.len()..].starts_with(joins))
}

fn sentences(path: &str, text: &str) -> Violations {
    let mut broken = Violations::new();
    let (mut words, mut count) = (0, 0);
    let mut open: Option<usize> = None;
    for (number, line) in prose(text) {
        let Some(line) = line else {
            open = None;
            continue;
        };
        let inner = ends_within(line);
        if inner > 0 {
            broken.push(format!("{path}:{number}: several sentences in a line"));
        }
        let item = list_item(line);
        let continues_list = line.starts_with("  ");
        if let Some(previous) = open.filter(|_| item.is_none() && !continues_list) {
            broken.push(format!("{path}:{previous}: a sentence goes on in the next line"));
        }
        let text = item.unwrap_or(line).trim();
        words += text.split_whitespace().count();
        count += inner + 1;
        open = (!ends(text) && item.is_none() && !continues_list).then_some(number);
    }
    if words > MOST_WORDS * count {
        let average = words / count.max(1);
        broken.push(format!("{path}: sentences have {average} words on average, {MOST_WORDS} at most"));
    }
    broken
}

/// Numbered lines of prose; `None` where a blank line, a heading, a table, HTML or code separates paragraphs.
fn prose(text: &str) -> impl Iterator<Item = (usize, Option<&str>)> {
    let mut fence: Option<&str> = None;
    text.lines().zip(1..).map(move |(line, number)| {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) if !trimmed.is_empty() && !trimmed.starts_with(['#', '|', '<', '!', '>', '[']) => {
                return (number, Some(line));
            }
            _ => {}
        }
        (number, None)
    })
}

/// The text of a list item without its mark.
fn list_item(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.strip_prefix("- ")
        .or_else(|| line.strip_prefix("* "))
        .or_else(|| digits.strip_prefix(". ").filter(|_| digits.len() < line.len()))
}

/// The number of sentences that end before the end of a line.
fn ends_within(line: &str) -> usize {
    let mut count = 0;
    let text = list_item(line).unwrap_or(line).trim();
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut in_code = false;
    for pair in words.windows(2) {
        in_code ^= pair[0].matches('`').count() % 2 == 1;
        let next = pair[1].trim_start_matches(['*', '_', '`', '"', '(', '[', '“']);
        let begins =
            next.starts_with(char::is_uppercase) || pair[1].starts_with('`') || pair[1].starts_with('[');
        if !in_code && ends(pair[0]) && !bare(pair[0]).ends_with(':') && begins {
            count += 1;
        }
    }
    count
}

/// Text without closing marks.
fn bare(text: &str) -> &str {
    text.trim_end_matches(['*', '_', '`', '"', ')', ']', '”'])
}

/// Whether `text` ends like a sentence.
fn ends(text: &str) -> bool {
    let bare = bare(text);
    let last = bare.split_whitespace().next_back().unwrap_or_default().trim_start_matches(['(', '*']);
    let is_abbreviation = ABBREVIATIONS.contains(&last.to_lowercase().as_str());
    bare.ends_with(['.', '!', '?', ':']) && !is_abbreviation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, text: &str) -> Vec<String> {
        plain_words(&Files::from([(path.to_owned(), text.to_owned())]))
    }

    #[test]
    fn a_home_made_phrase_is_named_with_its_standard_form() {
        assert_eq!(
            of("a.rs", "x\n// Whoever calls it"),
            ["a.rs:2: `whoever`: write \"the noun: the caller, the rank, the reader\" or rephrase"]
        );
        assert_eq!(of("a.rs", "let is_sorted = 1; // the policy lies inside"), Vec::<String>::new());
        assert_eq!(of("a.toml", "whoever"), Vec::<String>::new());
    }

    #[test]
    fn markdown_has_one_sentence_a_line() {
        let good = "# A. B\n\nOne sentence, e.g. this.\nAnother: it ends.\n\n- an item\n  that goes on\n- `x`: y. z\n\n*Check:* `x`.\n\n| a. B | c |\n\n```text\nA. B\nc\n```\n";
        assert_eq!(of("a.md", good), Vec::<String>::new());
        assert_eq!(of("a.md", "One. Two.\n"), ["a.md:1: several sentences in a line"]);
        assert_eq!(of("a.md", "- One. `Two` it is.\n"), ["a.md:1: several sentences in a line"]);
        assert_eq!(
            of("a.md", "One sentence that\ngoes on.\n"),
            ["a.md:1: a sentence goes on in the next line"]
        );
    }

    #[test]
    fn long_sentences_are_measured_by_file() {
        let long = format!("{}end.\n", "word ".repeat(40));
        assert_eq!(of("a.md", &long), ["a.md: sentences have 41 words on average, 30 at most"]);
        assert_eq!(of("a.md", &format!("{long}Short.\n")), Vec::<String>::new());
    }
}
