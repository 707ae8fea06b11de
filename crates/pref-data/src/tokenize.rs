//! Pairs and dialogues as token ids.

mod report;
mod trl_0_7_10;

use std::collections::BTreeSet;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::message::{Message, TemplateContext};
use crate::record::{Pair, Text};
use crate::text::shared_start;
use crate::tokenizer::{RenderMode, Tokenizer};

use report::Lengths;
pub use report::{Quantiles, TokenizeReport};

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
    /// rendered apart, so that the tag that opens the assistant's turn stands in the responses; a beginning-of-sequence
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
/// [`DataError::Pair`] with what template and tokenizer report. Of several bad pairs the first is reported.
pub fn tokenize_pairs(
    pairs: &[Pair],
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<(Vec<TokenPair>, TokenizeReport), DataError> {
    check(options)?;
    let tokenized: Vec<Result<Tokenized, DataError>> =
        pairs.par_iter().map(|pair| tokenize_pair(pair, tokenizer, options)).collect();
    let mut report = TokenizeReport::new(pairs.len(), options.max_length);
    let (mut lengths, mut looks) = (Lengths::default(), Looks::default());
    let mut kept = Vec::with_capacity(pairs.len());
    for result in tokenized {
        let Tokenized { mut pair, boundary, notes } = match result {
            Ok(tokenized) => tokenized,
            Err(error) if error.is_of_one_pair() && report.skipped.len() < options.skip_bad => {
                report.skipped.push(error.with_causes());
                continue;
            }
            Err(error) => return Err(error),
        };
        report.boundary_mismatches += usize::from(boundary == Boundary::Mismatch);
        report.shared_turn_tokens += notes.shared_turn_tokens;
        report.control_tokens += notes.control_tokens;
        report.doubled_bos += usize::from(notes.doubled_bos);
        looks.add(notes.looks);
        if pair.chosen == pair.rejected {
            report.identical += 1;
            if options.identical == Identical::Drop {
                continue;
            }
        }
        match cut(&mut pair, options) {
            Cut::Dropped => {
                report.dropped.push(pair.id);
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
        lengths.add(&pair);
        kept.push(pair);
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
    let Tokenized { pair: whole, .. } = tokenize_pair(pair, tokenizer, options)?;
    let mut tokens = whole.clone();
    let is_kept = cut(&mut tokens, options) != Cut::Dropped;
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

fn cut(pair: &mut TokenPair, options: &TokenizeOptions) -> Cut {
    match options.preset {
        Preset::Modern => truncate(pair, options),
        Preset::Trl0710 { max_prompt_length } => trl_0_7_10::truncate(pair, max_prompt_length, options),
    }
}

/// A pair's tokens before they are cut.
struct Tokenized {
    pair: TokenPair,
    boundary: Boundary,
    notes: Notes,
}

/// Counts of a pair.
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

/// A sequence of tokens some of which a model learns to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue {
    ids: Vec<u32>,
    scored: Vec<bool>,
}

impl Dialogue {
    /// Creates a dialogue from ids and a flag for each that is scored. Returns `None` if the lengths differ, no id is scored,
    /// or the first one is, which nothing predicts.
    pub fn new(ids: Vec<u32>, scored: Vec<bool>) -> Option<Self> {
        let well_formed = ids.len() == scored.len() && scored.contains(&true) && !scored[0];
        well_formed.then_some(Self { ids, scored })
    }

    /// Creates a dialogue from a prompt and a completion that is scored. Returns `None` if either is empty.
    pub fn completion(prompt: &[u32], completion: &[u32]) -> Option<Self> {
        let mut scored = vec![false; prompt.len()];
        scored.resize(prompt.len() + completion.len(), true);
        Self::new([prompt, completion].concat(), scored)
    }

    /// Returns the token ids.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Returns for each token whether it is scored. The first never is.
    pub fn scored(&self) -> &[bool] {
        &self.scored
    }
}

/// Tokenizes a dialogue and scores every assistant message with the end that the template gives it.
///
/// The tokens are those of the whole dialogue as the template renders it, cut to the first `max_length`. Where an
/// assistant message begins and ends is found by rendering the dialogue up to it, open for an answer, and with it.
///
/// # Errors
///
/// [`DataError::NothingScored`] without an assistant message in reach, [`DataError::UnstableTemplate`] where the
/// template changes an answer once more follows, [`DataError::MaxLength`], and what template and tokenizer report.
pub fn tokenize_dialogue(
    messages: &[Message],
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<Dialogue, DataError> {
    check_max_length(max_length)?;
    let whole = tokenizer.render_chat(messages, RenderMode::Complete)?;
    let mut ids = tokenizer.encode(&whole)?;
    let mut scored = vec![false; ids.len()];
    for (index, message) in messages.iter().enumerate() {
        if message.role() != "assistant" {
            continue;
        }
        let open = tokenizer.render_chat(&messages[..index], RenderMode::AwaitAnswer)?;
        let done = tokenizer.render_chat(&messages[..=index], RenderMode::Complete)?;
        let start = common_prefix(&tokenizer.encode(&open)?, &ids);
        let end = common_prefix(&tokenizer.encode(&done)?, &ids);
        if end <= start || !shows_answer(&whole, &open, &done, &message.content()) {
            return Err(DataError::UnstableTemplate {
                folder: tokenizer.folder().to_owned(),
                message: index,
            });
        }
        // The first token has no state that predicts it.
        scored[start.max(1)..end].fill(true);
    }
    ids.truncate(max_length);
    scored.truncate(max_length);
    Dialogue::new(ids, scored).ok_or(DataError::NothingScored { max_length })
}

/// Tokenizes dialogues as [`tokenize_dialogue`] does. Returns them in their order, and the indices of those that are
/// dropped because no token is scored.
///
/// # Errors
///
/// Those of [`tokenize_dialogue`] but [`DataError::NothingScored`].
pub fn tokenize_dialogues<D: AsRef<[Message]> + Sync>(
    dialogues: &[D],
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<(Vec<Dialogue>, Vec<usize>), DataError> {
    let tokenized: Vec<Result<Dialogue, DataError>> = dialogues
        .par_iter()
        .map(|messages| tokenize_dialogue(messages.as_ref(), tokenizer, max_length))
        .collect();
    let (mut kept, mut dropped) = (Vec::with_capacity(dialogues.len()), Vec::new());
    for (index, dialogue) in tokenized.into_iter().enumerate() {
        match dialogue {
            Ok(dialogue) => kept.push(dialogue),
            Err(DataError::NothingScored { .. }) => dropped.push(index),
            Err(error) => return Err(error),
        }
    }
    Ok((kept, dropped))
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
) -> Result<Tokenized, DataError> {
    let mut notes = Notes::default();
    let tokenized = match options.preset {
        Preset::Modern => modern(pair, tokenizer, options.shared_turns, &mut notes),
        Preset::Trl0710 { .. } => trl_0_7_10::tokenize_pair(pair, tokenizer, &mut notes.looks),
    };
    let (tokens, boundary) = tokenized.map_err(|error| error.of_pair(&pair.id))?;
    if let Text::Plain(prompt) = &pair.prompt {
        notes.doubled_bos = tokenizer.doubles_bos(prompt);
    }
    for text in [&pair.prompt, &pair.chosen, &pair.rejected] {
        if let Text::Chat(messages) = text {
            notes.control_tokens += tokenizer.control_tokens_in(messages, &TemplateContext::default());
        }
    }
    notes.control_tokens += tokenizer.control_tokens_in(&[], &pair.context);
    Ok(Tokenized { pair: tokens, boundary, notes })
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

/// Returns the ids of the open prompt and of the prompt with each response.
fn chat_ids(
    pair: &Pair,
    [prompt, chosen, rejected]: [&[Message]; 3],
    tokenizer: &Tokenizer,
    shared_turns: SharedTurns,
    notes: &mut Notes,
) -> Result<[Vec<u32>; 3], DataError> {
    let mut known = Vec::new();
    let mut ids = |parts: &[&[Message]], mode| {
        let rendering = tokenizer.render(parts, &pair.context, mode)?;
        notes.looks.add(Looks { given: rendering.given, seen: rendering.seen });
        tokenizer.encode_rendered(&rendering.text, &mut known)
    };
    // At least the last message of a response is its own.
    let most = chosen.len().min(rejected.len()).saturating_sub(1);
    let same = chosen.iter().zip(rejected).take(most).take_while(|(a, b)| a == b).count();
    let same = if shared_turns == SharedTurns::Prompt { same } else { 0 };
    let (turns, chosen) = chosen.split_at(same);
    let rejected = &rejected[same..];
    let open = ids(&[prompt, turns], RenderMode::AwaitAnswer)?;
    let full = [chosen, rejected].map(|response| ids(&[prompt, turns, response], RenderMode::Complete));
    if same > 0 {
        let before = ids(&[prompt], RenderMode::AwaitAnswer)?;
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

/// Returns whether the whole dialogue contains an answer as a dialogue that ends with it does. Text that the template puts
/// only after a last message may be missing.
fn shows_answer(whole: &str, open: &str, done: &str, answer: &str) -> bool {
    let shared = shared_start(whole, done).len();
    let before = shared_start(whole, open).len();
    shared == done.len() || (before < shared && whole[before..shared].contains(answer.trim()))
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

fn truncate(pair: &mut TokenPair, options: &TokenizeOptions) -> Cut {
    let max = options.max_length;
    match options.truncation {
        Truncation::KeepStart => {
            let Some(room) = max.checked_sub(pair.prompt.len()).filter(|&room| room > 0) else {
                return Cut::Dropped;
            };
            let cut = [&mut pair.chosen, &mut pair.rejected]
                .into_iter()
                .filter(|response| response.len() > room)
                .map(|response| response.truncate(room))
                .count();
            if cut == 0 { Cut::Nothing } else { Cut::Responses(cut) }
        }
        Truncation::KeepEnd => {
            let longer = pair.chosen.len().max(pair.rejected.len());
            let Some(room) = max.checked_sub(longer).filter(|&room| room > 0) else {
                return Cut::Dropped;
            };
            let excess = pair.prompt.len().saturating_sub(room);
            pair.prompt.drain(..excess);
            if excess == 0 { Cut::Nothing } else { Cut::Prompt }
        }
    }
}
