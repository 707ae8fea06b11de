//! Verdicts in a model's answers.

use llm_client::TokenLogprob;
use serde::{Deserialize, Serialize};

/// The verdict of one answer on the two responses as they were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The response shown first is better.
    First,
    /// The response shown second is better.
    Second,
    /// Neither is better.
    Tie,
}

/// The marks of the verdicts in answers.
const MARKS: [(&str, Verdict); 3] =
    [("[[A]]", Verdict::First), ("[[B]]", Verdict::Second), ("[[C]]", Verdict::Tie)];

/// The letters of the verdicts, in the order of [`MARKS`].
const LETTERS: [char; 3] = ['A', 'B', 'C'];

impl Verdict {
    /// Returns the last mark in an answer, since models reason before they decide. `None` is a refusal or an answer that
    /// was cut off.
    ///
    /// ```
    /// use annotate::Verdict;
    ///
    /// assert_eq!(Verdict::read("At first [[A]] seems right, but no: [[B]]"), Some(Verdict::Second));
    /// assert_eq!(Verdict::read("I cannot compare these."), None);
    /// ```
    pub fn read(answer: &str) -> Option<Self> {
        last_mark(answer).map(|(_, verdict)| verdict)
    }

    /// Returns the verdict on the responses in the other order.
    pub(crate) fn swapped(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Tie => Self::Tie,
        }
    }
}

/// The last mark and its place.
fn last_mark(answer: &str) -> Option<(usize, Verdict)> {
    let last = MARKS.into_iter().filter_map(|(mark, verdict)| Some((answer.rfind(mark)?, verdict)));
    last.max_by_key(|(at, _)| *at)
}

/// Computes the probability that the response shown first is better, from the alternatives of the token with the verdict's
/// letter. A tie counts half. `None` if there is no verdict, or no alternative is a letter.
pub(crate) fn first_is_better(tokens: &[TokenLogprob]) -> Option<f64> {
    let text: String = tokens.iter().map(|token| token.token.as_str()).collect();
    let letter = last_mark(&text)?.0 + "[[".len();
    let mut start = 0;
    let token = tokens.iter().find(|token| {
        let is_there = (start..start + token.token.len()).contains(&letter);
        start += if is_there { 0 } else { token.token.len() };
        is_there
    })?;
    // The token may begin before the letter, as in `[[A`.
    let before = &token.token[..letter - start];
    let mut mass = [0.0; 3];
    let mut add = |text: &str, logprob: f64| {
        let letter = text.strip_prefix(before).and_then(|rest| rest.chars().next());
        if let Some(at) = letter.and_then(|letter| LETTERS.iter().position(|known| *known == letter)) {
            mass[at] += logprob.exp();
        }
    };
    for alternative in &token.top {
        add(&alternative.token, alternative.logprob);
    }
    if token.top.iter().all(|alternative| alternative.token != token.token) {
        add(&token.token, token.logprob);
    }
    let [first, second, tie] = mass;
    let probability = (first + tie / 2.0) / (first + second + tie);
    probability.is_finite().then_some(probability)
}

#[cfg(test)]
mod tests {
    use llm_client::Alternative;

    use super::*;

    fn token(text: &str, top: &[(&str, f64)]) -> TokenLogprob {
        let alternative =
            |(token, p): &(&str, f64)| Alternative { token: (*token).to_owned(), logprob: p.ln() };
        let own = top.iter().find(|(token, _)| *token == text).map_or(1.0, |(_, p)| *p);
        TokenLogprob { token: text.to_owned(), logprob: own.ln(), top: top.iter().map(alternative).collect() }
    }

    #[test]
    fn the_letter_of_the_last_verdict_has_the_probability() {
        let early = [("A", 0.9), ("B", 0.1)];
        let late = [("B", 0.5), ("A", 0.125), ("C", 0.25), ("the", 0.125)];
        let tokens = [
            token("[[", &[]),
            token("A", &early),
            token("]] – no: [[", &[]),
            token("B", &late),
            token("]]", &[]),
        ];
        let probability = first_is_better(&tokens).expect("a verdict");
        assert!((probability - (0.125 + 0.125) / 0.875).abs() < 1e-12, "{probability}");
        assert_eq!(first_is_better(&tokens[..2]), None, "the first verdict has no end");
        assert_eq!(first_is_better(&tokens[..3]), Some(0.9));
        assert_eq!(first_is_better(&[]), None);
    }

    #[test]
    fn tokens_may_join_the_letter_with_its_brackets() {
        let top = [("[[A", 0.25), ("[[B", 0.5), ("[[", 0.25)];
        let joined = first_is_better(&[token("So: ", &[]), token("[[B", &top), token("]]", &[])]);
        assert!((joined.expect("a verdict") - 1.0 / 3.0).abs() < 1e-12);
        let closed = [("A]]", 0.2), ("A", 0.2), ("B]]", 0.6)];
        let joined = first_is_better(&[token("[[", &[]), token("B]]", &closed)]);
        assert!((joined.expect("a verdict") - 0.4).abs() < 1e-12);
        // Without alternatives the chosen token is all there is.
        let alone = first_is_better(&[token("[[A]]", &[])]);
        assert_eq!(alone, Some(1.0));
    }
}
