//! Unpaired preferences as token ids.

use rayon::prelude::*;
use serde::Serialize;

use super::report::{Lengths, TokenizeReport};
use super::{
    Boundary, Conversation, Cut, Notes, TokenizeOptions, Tokenized, Tokens, check_max_length, common_prefix,
    gather, plain_ids, truncate,
};
use crate::error::DataError;
use crate::record::{Text, UnpairedRecord};
use crate::tokenizer::{RenderMode, Tokenizer};

/// An unpaired preference as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenCompletion {
    /// The record's identifier.
    pub id: String,
    /// The tokens that the completion follows.
    pub prompt: Vec<u32>,
    /// The tokens of the completion, its end token included.
    pub completion: Vec<u32>,
    /// The end of the completion that truncation removed. After a shorter prompt, as in KTO's baseline, it may fit.
    pub removed: Vec<u32>,
    /// Whether the completion is desirable.
    pub is_desirable: bool,
}

impl Tokens for TokenCompletion {
    const ARE_UNPAIRED: bool = true;

    fn id(&self) -> &str {
        &self.id
    }

    fn cut(&mut self, options: &TokenizeOptions) -> Cut {
        let whole = self.completion.clone();
        let cut = truncate(&mut self.prompt, [&mut self.completion], options);
        self.removed = whole.strip_prefix(&*self.completion).unwrap_or_default().to_vec();
        cut
    }

    fn is_identical(&self) -> bool {
        false
    }

    fn add_to(&self, lengths: &mut Lengths) {
        lengths.prompt.push(self.prompt.len());
        let completions = if self.is_desirable { &mut lengths.chosen } else { &mut lengths.rejected };
        completions.push(self.completion.len());
    }
}

/// Returns unpaired preferences as token ids, in their order, and a report.
///
/// Prompt and completion are rendered, tokenized and truncated as those of [`tokenize_pairs`](crate::tokenize_pairs) by
/// the conventions of TRL 1.16; the preset of `options` is not used.
///
/// # Errors
///
/// Those of [`tokenize_pairs`](crate::tokenize_pairs).
pub fn tokenize_unpaired(
    records: &[UnpairedRecord],
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<(Vec<TokenCompletion>, TokenizeReport), DataError> {
    check_max_length(options.max_length)?;
    let tokenized = records.par_iter().map(|record| tokenize(record, tokenizer)).collect();
    gather(tokenized, tokenizer, options)
}

/// One unpaired preference as it is trained: text and tokens, before and after truncation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletionPreview {
    /// The text that the prompt's tokens come from.
    pub prompt: String,
    /// The text of the completion's tokens, with what ends it.
    pub completion: String,
    /// The tokens after truncation; `None` where the record is left out.
    pub tokens: Option<TokenCompletion>,
    /// The tokens that truncation removed.
    pub truncated: TruncatedCompletion,
}

/// Numbers of tokens that truncation removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TruncatedCompletion {
    /// Of the prompt.
    pub prompt: usize,
    /// Of the completion.
    pub completion: usize,
}

/// Returns one record as [`tokenize_unpaired`] tokenizes it, with the texts that are tokenized.
///
/// # Errors
///
/// Those of [`tokenize_unpaired`].
pub fn preview_completion(
    record: &UnpairedRecord,
    tokenizer: &Tokenizer,
    options: &TokenizeOptions,
) -> Result<CompletionPreview, DataError> {
    check_max_length(options.max_length)?;
    let Tokenized { tokens: whole, .. } = tokenize(record, tokenizer)?;
    let mut tokens = whole.clone();
    let is_kept = tokens.cut(options) != Cut::Dropped;
    let taken =
        |before: &[u32], after: &[u32]| if is_kept { before.len() - after.len() } else { before.len() };
    Ok(CompletionPreview {
        prompt: tokenizer.decode_with_special(&whole.prompt)?,
        completion: tokenizer.decode_with_special(&whole.completion)?,
        truncated: TruncatedCompletion {
            prompt: taken(&whole.prompt, &tokens.prompt),
            completion: taken(&whole.completion, &tokens.completion),
        },
        tokens: is_kept.then_some(tokens),
    })
}

fn tokenize(record: &UnpairedRecord, tokenizer: &Tokenizer) -> Result<Tokenized<TokenCompletion>, DataError> {
    let mut notes = Notes::default();
    let ids = ids(record, tokenizer, &mut notes).map_err(|error| error.of_record(&record.id))?;
    let [open, full] = ids;
    let shared = common_prefix(&open, &full);
    let boundary = if shared == open.len() { Boundary::Match } else { Boundary::Mismatch };
    if shared == full.len() {
        return Err(DataError::EmptyResponse { id: record.id.clone(), response: "only" });
    }
    if shared == 0 {
        return Err(DataError::EmptyPrompt { id: record.id.clone() });
    }
    notes.look_at([&record.prompt, &record.completion], &record.context, tokenizer);
    let tokens = TokenCompletion {
        id: record.id.clone(),
        prompt: full[..shared].to_vec(),
        completion: full[shared..].to_vec(),
        removed: Vec::new(),
        is_desirable: record.is_desirable,
    };
    Ok(Tokenized { tokens, boundary, notes })
}

/// Returns the ids of the open prompt and of the prompt with the completion.
fn ids(
    record: &UnpairedRecord,
    tokenizer: &Tokenizer,
    notes: &mut Notes,
) -> Result<[Vec<u32>; 2], DataError> {
    match (&record.prompt, &record.completion) {
        (Text::Plain(prompt), Text::Plain(completion)) => {
            Ok([tokenizer.encode_document(prompt)?, plain_ids(prompt, completion, tokenizer)?])
        }
        (Text::Chat(prompt), Text::Chat(completion)) => {
            let mut conversation =
                Conversation { tokenizer, context: &record.context, known: Vec::new(), notes };
            Ok([
                conversation.ids(&[prompt], RenderMode::AwaitAnswer)?,
                conversation.ids(&[prompt, completion], RenderMode::Complete)?,
            ])
        }
        _ => Err(DataError::MixedForms { id: record.id.clone() }),
    }
}
