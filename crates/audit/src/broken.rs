//! Faults of single pairs.

use std::borrow::Cow;

use pref_data::Text;
use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::fault::{Fault, Faults, Hits};
use crate::text;

/// Responses are nearly identical up to this share of the longer one's bytes.
const NEAR: f64 = 0.05;
/// Only the beginning of a response is searched for a refusal.
const REFUSAL_BYTES: usize = 160;
/// Shorter responses may be phrases without punctuation.
const SENTENCE_WORDS: usize = 20;
/// Shorter requests occur in answers by chance.
const REQUEST_BYTES: usize = 40;

/// Beginnings of sentences that refuse, in lower case and with a straight apostrophe.
const REFUSALS: [&str; 20] = [
    "i'm sorry, but i can",
    "i am sorry, but i can",
    "i'm sorry, i can",
    "sorry, but i can",
    "sorry, i can",
    "i apologize, but i can",
    "i cannot help",
    "i can't help",
    "i cannot assist",
    "i can't assist",
    "i cannot provide",
    "i can't provide",
    "i'm not able to",
    "i am not able to",
    "i'm unable to",
    "i am unable to",
    "i won't help",
    "i won't provide",
    "i will not help",
    "as an ai",
];

/// Tokens of chat templates, and entities and line breaks of HTML.
const MARKUP: [&str; 24] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|assistant|>",
    "<|user|>",
    "<|system|>",
    "<|end|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "</s>",
    "### Response:",
    "### Instruction:",
    "&lt;",
    "&gt;",
    "&amp;",
    "&quot;",
    "<br",
];

/// Marks of further turns in plain text.
const TURNS: [&str; 7] =
    ["\nHuman:", "  Human:", "\nAssistant:", "\nUser:", "\nUSER:", "\n### Human:", "\n### Assistant:"];

/// Finds the faults of all pairs.
pub(crate) fn find(data: &Dataset, hits: &mut Hits<'_>) {
    let found: Vec<Faults> = (0..data.pairs.len()).into_par_iter().map(|pair| faults(data, pair)).collect();
    for (pair, faults) in found.into_iter().enumerate() {
        for fault in Fault::ALL.into_iter().filter(|fault| faults.has(*fault)) {
            hits.add(fault, pair, || example(data, pair, fault));
        }
    }
}

fn faults(data: &Dataset, pair: usize) -> Faults {
    let (prompt, [chosen, rejected]) = (data.prompt(pair), data.responses(pair));
    let both = [&*chosen, &*rejected];
    let mut faults = Faults::default();
    let mut check = |fault: Fault, is_there: bool| {
        if is_there {
            faults.insert(fault);
        }
    };
    check(Fault::EmptyPrompt, text::flat(prompt).trim().is_empty());
    check(Fault::EmptyResponse, is_empty(data.chosen(pair)) || is_empty(data.rejected(pair)));
    let is_identical = chosen.split_whitespace().eq(rejected.split_whitespace())
        && text::key(data.chosen(pair)) == text::key(data.rejected(pair));
    check(Fault::Identical, is_identical);
    check(Fault::NearIdentical, !is_identical && is_near(&chosen, &rejected));
    let refusals = both.map(refuses);
    check(Fault::RefusalChosen, refusals == [true, false]);
    check(Fault::RefusalBoth, refusals == [true, true]);
    check(Fault::Truncated, both.into_iter().any(is_truncated));
    check(Fault::Markup, both.into_iter().any(has_markup));
    check(Fault::NextTurn, both.into_iter().any(has_next_turn));
    let request = text::last_request(prompt);
    let echoes = |response: &str| request.len() >= REQUEST_BYTES && response.contains(&*request);
    check(Fault::PromptInResponse, both.into_iter().any(echoes));
    check(Fault::Roles, has_wrong_roles(data, pair));
    faults
}

fn is_empty(response: &Text) -> bool {
    match response {
        Text::Plain(text) => text.trim().is_empty(),
        Text::Chat(messages) => messages.iter().all(|message| {
            message.plain_content().map_or_else(|| message.is_empty(), |content| content.trim().is_empty())
        }),
    }
}

fn is_near(chosen: &str, rejected: &str) -> bool {
    let limit = (NEAR * chosen.len().max(rejected.len()) as f64) as usize;
    text::edit_distance_within(chosen, rejected, limit).is_some()
}

pub(crate) fn refuses(response: &str) -> bool {
    let start: String = response.trim_start().chars().take(REFUSAL_BYTES).collect();
    let start = start.to_lowercase().replace('\u{2019}', "'");
    REFUSALS.iter().any(|refusal| start.contains(refusal))
}

/// Whether a long response ends without punctuation, and its last line is prose.
fn is_truncated(response: &str) -> bool {
    let text = response.trim_end();
    let last = text.lines().last().unwrap_or_default().trim_start();
    let is_prose = last.starts_with(char::is_alphabetic) && last.split_whitespace().count() >= 5;
    let is_open =
        text.ends_with(|c: char| c.is_alphanumeric() && c.is_ascii() || matches!(c, ',' | ';' | '-'));
    let in_code = text.matches("```").count() % 2 == 1;
    let is_long = || text.split_whitespace().nth(SENTENCE_WORDS - 1).is_some();
    (in_code || is_prose && is_open) && is_long()
}

fn has_markup(response: &str) -> bool {
    MARKUP.iter().any(|mark| response.contains(mark))
}

fn has_next_turn(response: &str) -> bool {
    response.trim_start().starts_with("Human:") || TURNS.iter().any(|mark| response.contains(mark))
}

/// Whether a prompt does not end with a request, a response begins with another role than the assistant's, or two
/// messages of the user follow each other.
fn has_wrong_roles(data: &Dataset, pair: usize) -> bool {
    let Text::Chat(prompt) = data.prompt(pair) else { return false };
    let ends_wrong = prompt.last().is_none_or(|last| matches!(last.role(), "system" | "assistant"));
    let repeats = prompt.windows(2).any(|two| two[0].role() == two[1].role() && two[0].role() == "user");
    let late_system = prompt.iter().skip(1).any(|message| message.role() == "system");
    let begins_wrong = |response: &Text| match response {
        Text::Chat(messages) => messages.first().is_none_or(|first| first.role() != "assistant"),
        Text::Plain(_) => false,
    };
    ends_wrong
        || repeats
        || late_system
        || begins_wrong(data.chosen(pair))
        || begins_wrong(data.rejected(pair))
}

/// Returns the text that shows a fault.
fn example(data: &Dataset, pair: usize, fault: Fault) -> String {
    let [chosen, rejected] = data.responses(pair);
    let first =
        |has: fn(&str) -> bool| if has(&chosen) { ("chosen", &chosen) } else { ("rejected", &rejected) };
    match fault {
        Fault::Roles => {
            let roles = |text: &Text| match text {
                Text::Chat(messages) => messages.iter().map(|message| message.role().to_owned()).collect(),
                Text::Plain(_) => Vec::new(),
            };
            let all: Vec<String> = [roles(data.prompt(pair)), roles(data.chosen(pair))].concat();
            format!("roles: {}", all.join(", "))
        }
        Fault::Truncated => {
            let (name, response) = first(is_truncated);
            format!("{name}: …{}", ending(response))
        }
        Fault::Markup => around(first(has_markup), &MARKUP),
        Fault::NextTurn => around(first(has_next_turn), &TURNS),
        Fault::EmptyPrompt => text::excerpt(&chosen),
        Fault::EmptyResponse => {
            let name = if is_empty(data.chosen(pair)) { "chosen" } else { "rejected" };
            format!("{name}, to: {}", text::excerpt(&text::last_request(data.prompt(pair))))
        }
        Fault::PromptInResponse => {
            let request = text::last_request(data.prompt(pair));
            let is_chosen = chosen.contains(&*request);
            around(if is_chosen { ("chosen", &chosen) } else { ("rejected", &rejected) }, &[&request])
        }
        Fault::NearIdentical => {
            let start = chosen.bytes().zip(rejected.bytes()).take_while(|(a, b)| a == b).count();
            let from = |text: &Cow<'_, str>| {
                text::excerpt(text.get(floor(text, start.saturating_sub(12))..).unwrap_or(text))
            };
            format!("{:?} / {:?}", short(&from(&chosen)), short(&from(&rejected)))
        }
        _ => text::excerpt(&chosen),
    }
}

fn short(text: &str) -> String {
    text.chars().take(36).collect()
}

/// Returns the nearest boundary of a character at or before a byte.
fn floor(text: &str, byte: usize) -> usize {
    let byte = byte.min(text.len());
    (0..=byte).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn ending(text: &str) -> String {
    let text = text.trim_end();
    text::excerpt(&text[floor(text, text.len().saturating_sub(70))..])
}

fn around((name, text): (&str, &Cow<'_, str>), marks: &[&str]) -> String {
    let at = marks.iter().filter_map(|mark| text.find(mark)).min().unwrap_or(0);
    let (from, to) = (floor(text, at.saturating_sub(20)), floor(text, at + 50));
    format!("{name}: …{}", text::excerpt(&text[from..to]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_begin_early() {
        assert!(refuses("I\u{2019}m sorry, but I can\u{2019}t do that."));
        assert!(refuses("As an AI, I have no opinion."));
        assert!(!refuses("Sure. Here is how."));
        assert!(!refuses(&format!("{} I can't help.", "Long words of an answer. ".repeat(10))));
    }

    #[test]
    fn only_open_prose_is_truncated() {
        let prose = "The reason for this is that light of a short wave is scattered more than light of a long wave by \
                     the molecules of the";
        assert!(is_truncated(prose));
        assert!(!is_truncated(&format!("{prose} air.")));
        assert!(!is_truncated("Paris"));
        assert!(!is_truncated(&format!("{prose} air:\n\n- blue\n- red")));
        assert!(is_truncated(&format!("{prose} air:\n```python\nprint(1)")));
    }
}
