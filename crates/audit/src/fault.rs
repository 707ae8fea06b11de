//! Faults of pairs: their names, what to do about them, and the pairs that have them.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use stats::Interval;

use crate::dataset::Dataset;
use crate::interval;

/// A fault of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A prompt of white space.
    EmptyPrompt,
    /// A response of white space.
    EmptyResponse,
    /// Two responses that differ in white space at most.
    Identical,
    /// Two responses with an edit distance of at most 5% of the longer one.
    NearIdentical,
    /// The chosen response refuses, and the rejected one does not.
    RefusalChosen,
    /// Both responses refuse.
    RefusalBoth,
    /// A response ends within a sentence.
    Truncated,
    /// A response contains tokens of a chat template or HTML.
    Markup,
    /// A response contains further turns of the dialogue.
    NextTurn,
    /// A response contains the user's request.
    PromptInResponse,
    /// Messages with roles in an order that no chat has.
    Roles,
    /// The pair is in the file before, with the same label.
    Duplicate,
    /// The pair is in the file with the opposite label.
    Contradiction,
    /// The pair is an edge of a cycle of preferences.
    Cycle,
    /// The prompt is a near-duplicate of an earlier one.
    NearDuplicate,
    /// The pair contains a question of a benchmark.
    Leak,
    /// The prompt is in the held-out set.
    HeldOut,
    /// Other annotators outvote the label.
    Outvoted,
}

/// Each fault with its name, its title, and what to do about it.
const TABLE: [(Fault, &str, &str, &str); 18] = [
    (
        Fault::EmptyPrompt,
        "empty-prompt",
        "empty prompt",
        "Fill or remove it: the policy learns to answer nothing.",
    ),
    (
        Fault::EmptyResponse,
        "empty-response",
        "empty response",
        "`audit clean` removes it: its gradient is zero or meaningless.",
    ),
    (
        Fault::Identical,
        "identical",
        "identical responses",
        "`audit clean` removes it: its gradient is zero or meaningless.",
    ),
    (
        Fault::NearIdentical,
        "near-identical",
        "nearly identical responses",
        "Keep it if the difference is the answer, such as a number; else remove it.",
    ),
    (
        Fault::RefusalChosen,
        "refusal-chosen",
        "only the chosen response refuses",
        "Keep it if the request should be refused; else relabel it.",
    ),
    (
        Fault::RefusalBoth,
        "refusal-both",
        "both responses refuse",
        "Remove it unless the manner of refusing is what the pair teaches.",
    ),
    (
        Fault::Truncated,
        "truncated",
        "response ends within a sentence",
        "Generate with a larger token limit, or remove it with `--remove truncated`.",
    ),
    (Fault::Markup, "markup", "markup left over", "Strip the markup where the responses were generated."),
    (
        Fault::NextTurn,
        "next-turn",
        "further turns in a response",
        "Cut the response before the next turn, and stop generation there.",
    ),
    (
        Fault::PromptInResponse,
        "prompt-in-response",
        "request repeated in a response",
        "Cut the echo, unless the request asks for it, as a translation does.",
    ),
    (
        Fault::Roles,
        "roles",
        "wrong order of roles",
        "Correct the roles: chat templates refuse or garble such messages.",
    ),
    (
        Fault::Duplicate,
        "duplicate",
        "exact duplicate",
        "`audit clean` keeps the first copy: copies weigh a pair twice.",
    ),
    (
        Fault::Contradiction,
        "contradiction",
        "contradicted pair",
        "`audit clean` removes both; `--relabel contradiction` takes the majority label.",
    ),
    (
        Fault::Cycle,
        "cycle",
        "pair in a cycle a > b > c > a",
        "Label these pairs again: no ranking satisfies them.",
    ),
    (
        Fault::NearDuplicate,
        "near-duplicate",
        "near-duplicate prompt",
        "Split train and held-out data by group of near-duplicates, not by row.",
    ),
    (
        Fault::Leak,
        "leak",
        "overlap with a benchmark",
        "`audit clean` removes it: scores on that benchmark would be inflated.",
    ),
    (
        Fault::HeldOut,
        "held-out",
        "prompt in the held-out set",
        "`audit clean` removes it: held-out accuracy would be inflated.",
    ),
    (
        Fault::Outvoted,
        "outvoted",
        "label outvoted",
        "`--relabel outvoted` swaps it, `--remove outvoted` removes it.",
    ),
];

impl Fault {
    /// All faults, in the order of a report.
    pub const ALL: [Self; TABLE.len()] = {
        let mut all = [Self::EmptyPrompt; TABLE.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = TABLE[at].0;
            at += 1;
        }
        all
    };

    /// The faults of pairs that training cannot use, or that spoil its evaluation. [`clean`](crate::clean) removes them
    /// by default, and [`Audit::usable_pairs`](crate::Audit::usable_pairs) counts the others.
    pub const UNUSABLE: [Self; 6] = [
        Self::EmptyResponse,
        Self::Identical,
        Self::Duplicate,
        Self::Contradiction,
        Self::Leak,
        Self::HeldOut,
    ];

    /// Returns the name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Returns the fault in words.
    pub fn title(self) -> &'static str {
        TABLE[self as usize].2
    }

    /// Returns what to do about it.
    pub fn advice(self) -> &'static str {
        TABLE[self as usize].3
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|fault| fault.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("`{text}` is no fault; the faults are {}", names.join(", "))
        })
    }
}

/// A set of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// Adds a fault.
    pub fn insert(&mut self, fault: Fault) {
        self.0 |= fault.bit();
    }

    /// Returns whether the set has a fault.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & fault.bit() != 0
    }

    /// Returns the first fault that is also in `others`.
    pub fn first_of(self, others: &[Fault]) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| self.has(*fault) && others.contains(fault))
    }
}

/// A pair that shows a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The line or row, with the file's name where there are several files.
    pub place: String,
    /// The text, or the other pair.
    pub text: String,
}

/// A fault, with its share of the pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The fault.
    pub fault: Fault,
    /// The pairs that have it.
    pub count: usize,
    /// All pairs.
    pub of: usize,
    /// The lower end of the 95% interval of the share (Wilson).
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Up to five of the pairs.
    pub examples: Vec<Example>,
}

/// The faults of all pairs.
#[derive(Debug)]
pub(crate) struct Hits<'a> {
    data: &'a Dataset,
    pub(crate) of_pairs: Vec<Faults>,
    examples: Vec<Vec<Example>>,
    counts: [usize; Fault::ALL.len()],
}

const EXAMPLES: usize = 5;

impl<'a> Hits<'a> {
    pub(crate) fn new(data: &'a Dataset) -> Self {
        let of_pairs = vec![Faults::default(); data.pairs.len()];
        Self { data, of_pairs, examples: vec![Vec::new(); Fault::ALL.len()], counts: [0; Fault::ALL.len()] }
    }

    /// Records that a pair has a fault.
    pub(crate) fn add(&mut self, fault: Fault, pair: usize, text: impl FnOnce() -> String) {
        if self.of_pairs[pair].has(fault) {
            return;
        }
        self.of_pairs[pair].insert(fault);
        self.counts[fault as usize] += 1;
        let examples = &mut self.examples[fault as usize];
        if examples.len() < EXAMPLES {
            examples.push(Example { place: self.data.place(pair), text: text() });
        }
    }

    pub(crate) fn count(&self, fault: Fault) -> usize {
        self.counts[fault as usize]
    }

    /// Returns the faults that occur, in the order of [`Fault::ALL`].
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let of = self.of_pairs.len();
        let found = Fault::ALL.into_iter().filter(|fault| self.count(*fault) > 0);
        found
            .map(|fault| {
                let count = self.count(fault);
                let Interval { low, high, .. } = interval::of_share(count, of);
                Finding { fault, count, of, low, high, examples: self.examples[fault as usize].clone() }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_faults() {
        for (at, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, at);
            assert_eq!(fault.name().parse(), Ok(fault));
            assert_eq!(serde_json::to_value(fault).expect("a name"), fault.name());
        }
        assert!("typo".parse::<Fault>().is_err());
    }
}
