//! The report of tokenization.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::counted;

/// The counts of [`tokenize_pairs`](crate::tokenize_pairs) and [`tokenize_unpaired`](crate::tokenize_unpaired). For the
/// latter, a pair is a single completion; `chosen` means desirable and `rejected` undesirable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizeReport {
    /// Whether the examples are single completions.
    #[serde(default)]
    pub unpaired: bool,
    /// Pairs before tokenization.
    pub pairs_in: usize,
    /// Pairs after tokenization.
    pub pairs_out: usize,
    /// The limit on a prompt with one response, in tokens.
    pub max_length: usize,
    /// Pairs whose full ids do not begin with the ids of the prompt alone.
    pub boundary_mismatches: usize,
    /// Pairs whose prompt lost its beginning.
    pub truncated_prompts: usize,
    /// Responses that lost their end, of two a pair.
    pub truncated_responses: usize,
    /// Ids of the pairs left out because their prompt or response left no room for the other.
    pub dropped: Vec<String>,
    /// Pairs left out because they cannot be rendered.
    #[serde(default)]
    pub skipped: Vec<SkippedExample>,
    /// Pairs whose two responses have the same tokens.
    #[serde(default)]
    pub identical: usize,
    /// Tokens of turns that both responses begin with, which count as prompt.
    #[serde(default)]
    pub shared_turn_tokens: usize,
    /// Control tokens in the texts of messages.
    #[serde(default)]
    pub control_tokens: usize,
    /// Whether these are encoded as text.
    #[serde(default)]
    pub sanitized: bool,
    /// Plain prompts that begin with the beginning-of-sequence token, which the tokenizer puts before them again.
    #[serde(default)]
    pub doubled_bos: usize,
    /// Keys of messages and names of variables that the chat template never reads.
    #[serde(default)]
    pub unseen: Vec<String>,
    /// Lengths of the prompts.
    pub prompt_tokens: Quantiles,
    /// Lengths of the chosen responses.
    pub chosen_tokens: Quantiles,
    /// Lengths of the rejected responses.
    pub rejected_tokens: Quantiles,
}

/// An example that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedExample {
    /// The example's identifier.
    pub id: String,
    /// The error, with its causes.
    pub problem: String,
}

/// Order statistics of lengths in tokens, each the smallest length that the share of all does not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// The shortest.
    pub min: usize,
    /// Half are no longer.
    pub median: usize,
    /// Nine tenths are no longer.
    pub p90: usize,
    /// The longest.
    pub max: usize,
}

/// The lengths behind the quantiles.
#[derive(Default)]
pub(super) struct Lengths {
    pub(super) prompt: Vec<usize>,
    pub(super) chosen: Vec<usize>,
    pub(super) rejected: Vec<usize>,
}

impl TokenizeReport {
    pub(super) fn new(pairs_in: usize, max_length: usize, unpaired: bool) -> Self {
        Self {
            unpaired,
            pairs_in,
            pairs_out: 0,
            max_length,
            boundary_mismatches: 0,
            truncated_prompts: 0,
            truncated_responses: 0,
            dropped: Vec::new(),
            skipped: Vec::new(),
            identical: 0,
            shared_turn_tokens: 0,
            control_tokens: 0,
            sanitized: false,
            doubled_bos: 0,
            unseen: Vec::new(),
            prompt_tokens: Quantiles::default(),
            chosen_tokens: Quantiles::default(),
            rejected_tokens: Quantiles::default(),
        }
    }

    pub(super) fn finish(&mut self, pairs_out: usize, lengths: Lengths) {
        self.pairs_out = pairs_out;
        self.prompt_tokens = Quantiles::of(lengths.prompt);
        self.chosen_tokens = Quantiles::of(lengths.chosen);
        self.rejected_tokens = Quantiles::of(lengths.rejected);
    }
}

impl TokenizeReport {
    /// Adds the counts of other examples. [`with_lengths`](Self::with_lengths) sets the quantiles of all of them.
    pub fn add(&mut self, other: Self) {
        self.pairs_in += other.pairs_in;
        self.pairs_out += other.pairs_out;
        self.boundary_mismatches += other.boundary_mismatches;
        self.truncated_prompts += other.truncated_prompts;
        self.truncated_responses += other.truncated_responses;
        self.dropped.extend(other.dropped);
        self.skipped.extend(other.skipped);
        self.identical += other.identical;
        self.shared_turn_tokens += other.shared_turn_tokens;
        self.control_tokens += other.control_tokens;
        self.doubled_bos += other.doubled_bos;
        // What one set of examples shows to the template, another may leave out.
        self.unseen.extend(other.unseen);
        self.unseen.sort_unstable();
        self.unseen.dedup();
    }

    /// Replaces the quantiles by those of these lengths: of prompts, chosen and rejected responses.
    #[must_use]
    pub fn with_lengths(self, [prompt, chosen, rejected]: [Vec<usize>; 3]) -> Self {
        Self {
            prompt_tokens: Quantiles::of(prompt),
            chosen_tokens: Quantiles::of(chosen),
            rejected_tokens: Quantiles::of(rejected),
            ..self
        }
    }

    /// Returns warnings for the user.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.dropped.len() * 10 >= self.pairs_in && !self.dropped.is_empty() {
            warnings.push(format!(
                "{} of {} leave no room for a response within max_length {}; raise data.max_length",
                self.dropped.len(),
                counted(self.pairs_in, self.noun()),
                self.max_length
            ));
        }
        if self.identical > 0 {
            warnings.push(format!(
                "in {} both responses have the same tokens, so they teach nothing; data.identical = \"drop\" leaves \
                 them out",
                counted(self.identical, "pair")
            ));
        }
        if self.shared_turn_tokens > 0 {
            warnings.push(format!(
                "turns that both responses begin with count as prompt: {}; data.shared_turns = \"score\" scores them as \
                 TRL does",
                counted(self.shared_turn_tokens, "token")
            ));
        }
        if self.control_tokens > 0 {
            let (become_what, switch) = if self.sanitized {
                ("are encoded as text", "false")
            } else {
                ("become control tokens", "true")
            };
            warnings.push(format!(
                "{} in the text of messages {become_what}; data.sanitize_control_tokens = {switch} changes that",
                counted(self.control_tokens, "control token")
            ));
        }
        if self.doubled_bos > 0 {
            warnings.push(format!(
                "the beginning-of-sequence token is doubled: {} already in {}; remove it from the text",
                if self.doubled_bos == 1 { "it is" } else { "it is each time" },
                counted(self.doubled_bos, "plain prompt")
            ));
        }
        if !self.unseen.is_empty() {
            warnings.push(format!(
                "the chat template never looks at `{}`, so it changes no token",
                self.unseen.join("`, `")
            ));
        }
        warnings
    }

    /// Returns the name of an example.
    fn noun(&self) -> &'static str {
        if self.unpaired { "completion" } else { "pair" }
    }
}

impl Quantiles {
    fn of(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let at = |share: f64| {
            let rank = (share * lengths.len() as f64).ceil() as usize;
            lengths.get(rank.max(1) - 1).copied().unwrap_or(0)
        };
        Self { min: at(0.0), median: at(0.5), p90: at(0.9), max: at(1.0) }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} (median {}, 90% at most {})", self.min, self.max, self.median, self.p90)
    }
}

impl fmt::Display for TokenizeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED: usize = 5;
        let noun = self.noun();
        let [better, worse] =
            if self.unpaired { ["desirable", "undesirable"] } else { ["chosen", "rejected"] };
        write!(f, "{} of {} tokenized. ", self.pairs_out, counted(self.pairs_in, noun))?;
        if !self.skipped.is_empty() {
            write!(f, "{} skipped that cannot be rendered. ", counted(self.skipped.len(), noun))?;
        }
        write!(
            f,
            "Tokens: prompt {}, {better} {}, {worse} {}. ",
            self.prompt_tokens, self.chosen_tokens, self.rejected_tokens
        )?;
        write!(
            f,
            "To max_length {}, {} and {} were cut and {} dropped",
            self.max_length,
            counted(self.truncated_prompts, "prompt"),
            counted(self.truncated_responses, "response"),
            counted(self.dropped.len(), noun)
        )?;
        if !self.dropped.is_empty() {
            let named = &self.dropped[..self.dropped.len().min(NAMED)];
            let more = if self.dropped.len() > NAMED { ", …" } else { "" };
            write!(f, " ({}{more})", named.join(", "))?;
        }
        let mismatches = counted(self.boundary_mismatches, noun);
        write!(f, ". In {mismatches} the end of the prompt has other tokens once a response follows.")
    }
}
