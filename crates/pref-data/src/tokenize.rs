//! Preferences and dialogues as token ids.

mod dialogue;
mod report;
mod trl_0_7_10;
mod unpaired;

use std::collections::BTreeSet;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::message::{Message, TemplateContext};
use crate::record::{Pair, Text};
use crate::tokenizer::{RenderMode, Tokenizer};

pub use dialogue::{Dialogue, tokenize_dialogue, tokenize_dialogues};
use report::Lengths;
pub use report::{Quantiles, SkippedExample, TokenizeReport};
pub use unpaired::{
    CompletionPreview, TokenCompletion, TruncatedCompletion, preview_completion, tokenize_unpaired,
};

/// A pair as token ids: each response follows the same prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPair {
    /// The pair's identifier.
    pub id: String,
    /// The tokens that both responses follow.
    pub prompt: Vec<u32>,
    /// The tokens of the preferred response, its end token included.
    pub chosen: Vec<u32>,
    /// The tokens of the other response.
    pub rejected: Vec<u32>,
    /// Whether noise swapped the two.
    pub flipped: bool,
}

impl TokenPair {
    /// Tokens of `[prompt | chosen | rejected]`.
    pub fn unique_tokens(&self) -> usize {
        self.prompt.len() + self.chosen.len() + self.rejected.len()
    }

    /// Checks that both responses can be scored.
    pub(crate) fn check(&self) -> Result<(), DataError> {
        let empty = |response| DataError::EmptyResponse { id: self.id.clone(), response };
        if self.chosen.is_empty() {
            Err(empty("chosen"))
        } else if self.rejected.is_empty() {
            Err(empty("rejected"))
        } else if self.prompt.is_empty() {
            Err(DataError::EmptyPrompt { id: self.id.clone() })
        } else {
            Ok(())
        }
    }
}

/// The end of a sequence that is cut off if the sequence is longer than `max_length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// Each sequence keeps its first `max_length` tokens, so that a long response loses its end. A pair whose prompt
    /// alone is that long is dropped. This is what TRL does by default.
    KeepStart,
    /// The prompt loses its beginning, so that the longer of the two responses fits. A pair with a response that
    /// leaves no room for one token of the prompt is dropped.
    KeepEnd,
}

/// How [`tokenize_pairs`] makes token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenizeOptions {
    /// The most tokens of a prompt with one response.
    pub max_length: usize,
    /// The end that is cut off.
    pub truncation: Truncation,
    /// The conventions.
    pub preset: Preset,
    /// The treatment of turns that both responses begin with.
    pub shared_turns: SharedTurns,
    /// The treatment of pairs whose two responses have the same tokens.
    pub identical: Identical,
    /// Maximum number of pairs that are skipped because they cannot be rendered.
    pub skip_bad: usize,
}

impl TokenizeOptions {
    /// Returns the defaults of a recipe: the conventions of TRL 1.16, and responses cut at their ends.
    pub const fn new(max_length: usize) -> Self {
        Self {
            max_length,
            truncation: Truncation::KeepStart,
            preset: Preset::Modern,
            shared_turns: SharedTurns::Prompt,
            identical: Identical::Keep,
            skip_bad: 0,
        }
    }
}

/// The treatment of messages that both responses of a pair begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedTurns {
    /// Part of the prompt: only what differs is scored.
    #[default]
    Prompt,
    /// Part of both responses, and scored in each, as TRL does it.
    Score,
}

/// The treatment of a pair whose two responses have the same tokens. Such a pair carries no preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identical {
    /// It is kept and counted.
    #[default]
    Keep,
    /// It is dropped and counted.
    Drop,
}

/// The conventions of tokenization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Those of TRL 1.16, described at [`tokenize_pairs`].
    Modern,
    /// Those of TRL 0.7.10 and the alignment-handbook of early 2024, of the time of the paper: prompt and responses are
    /// rendered apart, so that the tag that opens the assistant's turn is in the responses; a beginning-of-sequence
    /// token is put before, and an end-of-sequence token behind whatever the template has put there. What is too
    /// long loses in two stages: the prompt all but `max_prompt_length` tokens of the end that [`Truncation`] keeps,
    /// then the responses what `max_length - max_prompt_length` does not hold. No pair is dropped.
    ///
    /// Where the prompt's last token merges with one of the two responses only, that token is scored with both; TRL leaves
    /// it out of one. Such pairs are among the boundary mismatches.
    Trl0710 {
        /// The tokens of a prompt that stay where prompt and response are too long; below `max_length`.
        max_prompt_length: usize,
    },
}

/// Returns the pairs as token ids, in their order, and a report.
///
/// Messages are rendered with the chat template: the prompt with the generation prompt, then the prompt with each
/// response as complete messages. The template sees every key of a message, and the pair's tools, documents and
/// variables. Plain text is tokenized as it is, prompt alone and prompt with each response, with the special tokens that
/// the tokenizer's post-processor adds; a response that does not end with the end-of-sequence token gets it. A completion
/// is what follows the prompt's ids in the full ids. Where the full ids do not begin with the prompt's, because tokens
/// merge across the boundary or the template renders an open prompt differently, prompt and completions part where the
/// ids do, so that no token of a response is lost; such pairs are counted.
///
/// # Errors
///
/// [`DataError::MaxLength`], [`DataError::MaxPromptLength`], [`DataError::EmptyPrompt`],
/// [`DataError::EmptyResponse`], [`DataError::MixedForms`], [`DataError::NoTemplate`], [`DataError::NoEosToken`];
/// [`DataError::Example`] with what template and tokenizer report. Of several bad pairs the first is reported.
pub fn tokenize_pairs(
    pairs: &[Pair],
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<(Vec<TokenPair>, TokenizeReport), DataError> {
    check(options)?;
    let tokenized = pairs.par_iter().map(|pair| tokenize_pair(pair, tokenizer, options)).collect();
    gather(tokenized, tokenizer, options)
}

/// The tokens of one example, before and after truncation.
trait Tokens {
    /// Whether the examples are single responses.
    const ARE_UNPAIRED: bool;

    fn id(&self) -> &str;

    fn cut(&mut self, options: &TokenizeOptions) -> Cut;

    /// Whether the example has two responses of the same tokens.
    fn is_identical(&self) -> bool;

    fn add_to(&self, lengths: &mut Lengths);
}

impl Tokens for TokenPair {
    const ARE_UNPAIRED: bool = false;

    fn id(&self) -> &str {
        &self.id
    }

    fn cut(&mut self, options: &TokenizeOptions) -> Cut {
        match options.preset {
            Preset::Modern => truncate(&mut self.prompt, [&mut self.chosen, &mut self.rejected], options),
            Preset::Trl0710 { max_prompt_length } => trl_0_7_10::truncate(self, max_prompt_length, options),
        }
    }

    fn is_identical(&self) -> bool {
        self.chosen == self.rejected
    }

    fn add_to(&self, lengths: &mut Lengths) {
        lengths.prompt.push(self.prompt.len());
        lengths.chosen.push(self.chosen.len());
        lengths.rejected.push(self.rejected.len());
    }
}

/// Truncates examples, leaves out those that cannot be used, and reports both.
fn gather<T: Tokens>(
    tokenized: Vec<Result<Tokenized<T>, DataError>>,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<(Vec<T>, TokenizeReport), DataError> {
    let mut report = TokenizeReport::new(tokenized.len(), options.max_length, T::ARE_UNPAIRED);
    let (mut lengths, mut looks) = (Lengths::default(), Looks::default());
    let mut kept = Vec::with_capacity(tokenized.len());
    for result in tokenized {
        let Tokenized { mut tokens, boundary, notes } = match result {
            Ok(tokenized) => tokenized,
            Err(error) if report.skipped.len() < options.skip_bad => {
                let Some(id) = error.id_of_one() else { return Err(error) };
                report.skipped.push(SkippedExample { id: id.to_owned(), problem: error.with_causes() });
                continue;
            }
            Err(error) => return Err(error),
        };
        report.boundary_mismatches += usize::from(boundary == Boundary::Mismatch);
        report.shared_turn_tokens += notes.shared_turn_tokens;
        report.control_tokens += notes.control_tokens;
        report.doubled_bos += usize::from(notes.doubled_bos);
        looks.add(notes.looks);
        if tokens.is_identical() {
            report.identical += 1;
            if options.identical == Identical::Drop {
                continue;
            }
        }
        match tokens.cut(options) {
            Cut::Dropped => {
                report.dropped.push(tokens.id().to_owned());
                continue;
            }
            Cut::Prompt => report.truncated_prompts += 1,
            Cut::Responses(count) => report.truncated_responses += count,
            Cut::Both(count) => {
                report.truncated_prompts += 1;
                report.truncated_responses += count;
            }
            Cut::Nothing => {}
        }
        tokens.add_to(&mut lengths);
        kept.push(tokens);
    }
    report.unseen = looks.unseen();
    report.sanitized = tokenizer.sanitizes();
    report.finish(kept.len(), lengths);
    Ok((kept, report))
}

/// One pair as it is trained: text and tokens, before and after truncation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairPreview {
    /// The text that the prompt's tokens come from.
    pub prompt: String,
    /// The text of the chosen response's tokens, with what ends it.
    pub chosen: String,
    /// The text of the rejected response's tokens.
    pub rejected: String,
    /// The tokens after truncation; `None` where the pair is left out.
    pub tokens: Option<TokenPair>,
    /// The tokens that truncation removed.
    pub truncated: Truncated,
}

/// Numbers of tokens that truncation removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Truncated {
    /// Of the prompt.
    pub prompt: usize,
    /// Of the chosen response.
    pub chosen: usize,
    /// Of the rejected response.
    pub rejected: usize,
}

/// Returns one pair as [`tokenize_pairs`] tokenizes it, with the texts that are tokenized.
///
/// # Errors
///
/// Those of [`tokenize_pairs`].
pub fn preview_pair(
    pair: &Pair,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<PairPreview, DataError> {
    check(options)?;
    let Tokenized { tokens: whole, .. } = tokenize_pair(pair, tokenizer, options)?;
    let mut tokens = whole.clone();
    let is_kept = tokens.cut(options) != Cut::Dropped;
    let taken =
        |before: &[u32], after: &[u32]| if is_kept { before.len() - after.len() } else { before.len() };
    let truncated = Truncated {
        prompt: taken(&whole.prompt, &tokens.prompt),
        chosen: taken(&whole.chosen, &tokens.chosen),
        rejected: taken(&whole.rejected, &tokens.rejected),
    };
    let text = |ids: &[u32]| tokenizer.decode_with_special(ids);
    Ok(PairPreview {
        prompt: text(&whole.prompt)?,
        chosen: text(&whole.chosen)?,
        rejected: text(&whole.rejected)?,
        tokens: is_kept.then_some(tokens),
        truncated,
    })
}

fn check(options: &TokenizeOptions) -> Result<(), DataError> {
    check_max_length(options.max_length)?;
    match options.preset {
        Preset::Trl0710 { max_prompt_length }
            if max_prompt_length == 0 || max_prompt_length >= options.max_length =>
        {
            Err(DataError::MaxPromptLength { max_prompt_length, max_length: options.max_length })
        }
        _ => Ok(()),
    }
}

/// An example's tokens before they are cut.
struct Tokenized<T> {
    tokens: T,
    boundary: Boundary,
    notes: Notes,
}

/// Counts of an example.
#[derive(Default)]
struct Notes {
    shared_turn_tokens: usize,
    control_tokens: usize,
    doubled_bos: bool,
    looks: Looks,
}

/// The names that records give to the chat template, and those that it reads.
#[derive(Default)]
struct Looks {
    given: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl Looks {
    fn add(&mut self, other: Self) {
        self.given.extend(other.given);
        self.seen.extend(other.seen);
    }

    fn unseen(self) -> Vec<String> {
        self.given.into_iter().filter(|name| !self.seen.contains(name)).collect()
    }
}

/// The relation of the ids of prompt and response to those of the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boundary {
    Match,
    Mismatch,
}

/// The effect of truncation on a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Nothing,
    Prompt,
    Responses(usize),
    Both(usize),
    Dropped,
}

fn check_max_length(max_length: usize) -> Result<(), DataError> {
    if max_length < 2 {
        return Err(DataError::MaxLength { max_length });
    }
    Ok(())
}

fn tokenize_pair(
    pair: &Pair,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<Tokenized<TokenPair>, DataError> {
    let mut notes = Notes::default();
    let tokenized = match options.preset {
        Preset::Modern => modern(pair, tokenizer, options.shared_turns, &mut notes),
        Preset::Trl0710 { .. } => trl_0_7_10::tokenize_pair(pair, tokenizer, &mut notes.looks),
    };
    let (tokens, boundary) = tokenized.map_err(|error| error.of_record(&pair.id))?;
    notes.look_at([&pair.prompt, &pair.chosen, &pair.rejected], &pair.context, tokenizer);
    Ok(Tokenized { tokens, boundary, notes })
}

impl Notes {
    /// Counts the control tokens in the texts of an example, the prompt first.
    fn look_at<const N: usize>(
        &mut self,
        texts: [&Text; N],
        context: &TemplateContext,
        tokenizer: &Tokenizer,
    ) {
        if let Text::Plain(prompt) = texts[0] {
            self.doubled_bos = tokenizer.doubles_bos(prompt);
        }
        for text in texts {
            if let Text::Chat(messages) = text {
                self.control_tokens += tokenizer.control_tokens_in(messages, &TemplateContext::default());
            }
        }
        self.control_tokens += tokenizer.control_tokens_in(&[], context);
    }
}

/// Tokenizes a pair by the conventions of TRL 1.16.
fn modern(
    pair: &Pair,
    tokenizer: &Tokenizer,
    shared_turns: SharedTurns,
    notes: &mut Notes,
) -> Result<(TokenPair, Boundary), DataError> {
    let [prompt, chosen, rejected] = match (&pair.prompt, &pair.chosen, &pair.rejected) {
        (Text::Plain(prompt), Text::Plain(chosen), Text::Plain(rejected)) => [
            tokenizer.encode_document(prompt)?,
            plain_ids(prompt, chosen, tokenizer)?,
            plain_ids(prompt, rejected, tokenizer)?,
        ],
        (Text::Chat(prompt), Text::Chat(chosen), Text::Chat(rejected)) => {
            chat_ids(pair, [prompt, chosen, rejected], tokenizer, shared_turns, notes)?
        }
        _ => return Err(DataError::MixedForms { id: pair.id.clone() }),
    };
    let shared = common_prefix(&prompt, &chosen).min(common_prefix(&prompt, &rejected));
    let boundary = if shared == prompt.len() { Boundary::Match } else { Boundary::Mismatch };
    let tokens = TokenPair {
        id: pair.id.clone(),
        prompt: prompt[..shared].to_vec(),
        chosen: chosen[shared..].to_vec(),
        rejected: rejected[shared..].to_vec(),
        flipped: pair.flipped,
    };
    tokens.check()?;
    Ok((tokens, boundary))
}

/// Encodes the conversations of one example.
struct Conversation<'a> {
    tokenizer: &'a Tokenizer,
    context: &'a TemplateContext,
    /// The pieces that are encoded already.
    known: Vec<(String, Vec<u32>)>,
    notes: &'a mut Notes,
}

impl Conversation<'_> {
    /// Returns the ids of all parts in their order.
    fn ids(&mut self, parts: &[&[Message]], mode: RenderMode) -> Result<Vec<u32>, DataError> {
        let rendering = self.tokenizer.render(parts, self.context, mode)?;
        self.notes.looks.add(Looks { given: rendering.given, seen: rendering.seen });
        self.tokenizer.encode_rendered(&rendering.text, &mut self.known)
    }
}

/// Returns the ids of the open prompt and of the prompt with each response.
fn chat_ids(
    pair: &Pair,
    [prompt, chosen, rejected]: [&[Message]; 3],
    tokenizer: &Tokenizer,
    shared_turns: SharedTurns,
    notes: &mut Notes,
) -> Result<[Vec<u32>; 3], DataError> {
    let mut conversation = Conversation { tokenizer, context: &pair.context, known: Vec::new(), notes };
    // At least the last message of a response is its own.
    let most = chosen.len().min(rejected.len()).saturating_sub(1);
    let same = chosen.iter().zip(rejected).take(most).take_while(|(a, b)| a == b).count();
    let same = if shared_turns == SharedTurns::Prompt { same } else { 0 };
    let (turns, chosen) = chosen.split_at(same);
    let rejected = &rejected[same..];
    let open = conversation.ids(&[prompt, turns], RenderMode::AwaitAnswer)?;
    let full =
        [chosen, rejected].map(|response| conversation.ids(&[prompt, turns, response], RenderMode::Complete));
    if same > 0 {
        let before = conversation.ids(&[prompt], RenderMode::AwaitAnswer)?;
        notes.shared_turn_tokens = open.len().saturating_sub(before.len());
    }
    let [chosen, rejected] = full;
    Ok([open, chosen?, rejected?])
}

fn plain_ids(prompt: &str, response: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, DataError> {
    let eos = tokenizer
        .eos_token()
        .ok_or_else(|| DataError::NoEosToken { folder: tokenizer.folder().to_owned() })?;
    let end = if response.ends_with(eos) { "" } else { eos };
    tokenizer.encode_document(&[prompt, response, end].concat())
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

fn truncate<const N: usize>(
    prompt: &mut Vec<u32>,
    responses: [&mut Vec<u32>; N],
    options: &TokenizeOptions,
) -> Cut {
    let max = options.max_length;
    match options.truncation {
        Truncation::KeepStart => {
            let Some(room) = max.checked_sub(prompt.len()).filter(|&room| room > 0) else {
                return Cut::Dropped;
            };
            let cut = responses
                .into_iter()
                .filter(|response| response.len() > room)
                .map(|response| response.truncate(room))
                .count();
            if cut == 0 { Cut::Nothing } else { Cut::Responses(cut) }
        }
        Truncation::KeepEnd => {
            let longest = responses.iter().map(|response| response.len()).max().unwrap_or(0);
            let Some(room) = max.checked_sub(longest).filter(|&room| room > 0) else {
                return Cut::Dropped;
            };
            let excess = prompt.len().saturating_sub(room);
            prompt.drain(..excess);
            if excess == 0 { Cut::Nothing } else { Cut::Prompt }
        }
    }
}
