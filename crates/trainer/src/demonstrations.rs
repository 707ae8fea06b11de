//! The examples of supervised training: the conversations of chosen responses.

use pref_data::{Dialogue, Message, Pair, Text, TokenPair, Tokenizer, tokenize_dialogues};

use crate::error::TrainError;
use crate::recipe::{Complaint, DataSection, Origin, TrainOn};

/// Returns the conversations of `pairs`, which have these tokens, with the tokens that `data.train_on` chooses.
///
/// # Errors
///
/// [`TrainError::Recipe`] for a pair without turns; [`TrainError::NoExamples`] if no token is trained on.
pub(crate) fn demonstrations(
    section: &DataSection,
    pairs: &[Pair],
    tokens: &[TokenPair],
    tokenizer: &Tokenizer,
) -> Result<Vec<Dialogue>, TrainError> {
    let of_tokens = |of: fn(&TokenPair) -> Option<Dialogue>| tokens.iter().filter_map(of).collect();
    Ok(match section.train_on {
        TrainOn::Response => of_tokens(|pair| Dialogue::completion(&pair.prompt, &pair.chosen)),
        TrainOn::All => of_tokens(|pair| {
            let ids = [&*pair.prompt, &pair.chosen].concat();
            let (first, rest) = ids.split_first()?;
            Dialogue::completion(&[*first], rest)
        }),
        TrainOn::Assistant => {
            let conversations = pairs.iter().map(conversation).collect::<Result<Vec<_>, _>>()?;
            let (dialogues, dropped) = tokenize_dialogues(&conversations, tokenizer, section.max_length)?;
            if !dropped.is_empty() {
                tracing::warn!(
                    "{} of {} conversations have no assistant turn within data.max_length = {} and are dropped",
                    dropped.len(),
                    pairs.len(),
                    section.max_length
                );
            }
            if dialogues.is_empty() {
                return Err(TrainError::NoExamples("no conversation has an assistant turn in reach".into()));
            }
            dialogues
        }
    })
}

/// Returns the messages of a pair's prompt and chosen response.
fn conversation(pair: &Pair) -> Result<Vec<Message>, TrainError> {
    let refused = |what: &str| {
        let reason =
            format!("is \"assistant\", but the record {} {what}; choose \"response\" or \"all\"", pair.id);
        Complaint::invalid("train_on", reason).within("data").at(Origin::Code).into()
    };
    match (&pair.prompt, &pair.chosen) {
        _ if !pair.context.is_empty() => {
            Err(refused("has tools, documents or template variables of its own"))
        }
        (Text::Chat(prompt), Text::Chat(chosen)) => Ok([&**prompt, chosen].concat()),
        _ => Err(refused("is text without turns")),
    }
}
