//! Dialogues as token ids, for supervised training.

use rayon::prelude::*;

use super::{check_max_length, common_prefix};
use crate::error::DataError;
use crate::message::Message;
use crate::text::shared_start;
use crate::tokenizer::{RenderMode, Tokenizer};

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

/// Returns whether the whole dialogue contains an answer as a dialogue that ends with it does. Text that the template puts
/// only after a last message may be missing.
fn shows_answer(whole: &str, open: &str, done: &str, answer: &str) -> bool {
    let shared = shared_start(whole, done).len();
    let before = shared_start(whole, open).len();
    shared == done.len() || (before < shared && whole[before..shared].contains(answer.trim()))
}
