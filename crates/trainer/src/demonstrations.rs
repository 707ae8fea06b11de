//! The examples of supervised training: demonstrations, and the conversations of chosen responses.

use std::collections::BTreeMap;

use pref_data::{
    Dialogue, Message, Pair, TemplateContext, Text, TokenCompletion, TokenPair, Tokenizer, UnpairedRecord,
    tokenize_dialogues,
};

use crate::error::TrainError;
use crate::recipe::{Complaint, DataSection, Origin, TrainOn};

/// An example as text and as tokens.
pub(crate) struct Demonstration<'a> {
    id: &'a str,
    prompt: &'a Text,
    response: &'a Text,
    context: &'a TemplateContext,
    prompt_ids: &'a [u32],
    response_ids: &'a [u32],
}

impl<'a> Demonstration<'a> {
    /// Returns the prompts and chosen responses of the pairs that have tokens.
    pub(crate) fn of_pairs(pairs: &'a [Pair], tokens: &'a [TokenPair]) -> Vec<Self> {
        let texts: BTreeMap<&str, &Pair> = pairs.iter().map(|pair| (&*pair.id, pair)).collect();
        let of_tokens = |tokens: &'a TokenPair| {
            let Pair { id, prompt, chosen: response, context, .. } = texts.get(&*tokens.id)?;
            let (prompt_ids, response_ids) = (&*tokens.prompt, &*tokens.chosen);
            Some(Self { id, prompt, response, context, prompt_ids, response_ids })
        };
        tokens.iter().filter_map(of_tokens).collect()
    }

    /// Returns the records that have tokens.
    pub(crate) fn of_completions(records: &'a [UnpairedRecord], tokens: &'a [TokenCompletion]) -> Vec<Self> {
        let texts: BTreeMap<&str, &UnpairedRecord> =
            records.iter().map(|record| (&*record.id, record)).collect();
        let of_tokens = |tokens: &'a TokenCompletion| {
            let UnpairedRecord { id, prompt, completion: response, context, .. } = texts.get(&*tokens.id)?;
            let (prompt_ids, response_ids) = (&*tokens.prompt, &*tokens.completion);
            Some(Self { id, prompt, response, context, prompt_ids, response_ids })
        };
        tokens.iter().filter_map(of_tokens).collect()
    }

    /// Returns the messages of prompt and response.
    fn conversation(&self) -> Result<Vec<Message>, TrainError> {
        let refused = |what: &str| {
            let id = self.id;
            let reason =
                format!("is \"assistant\", but the record {id} {what}; choose \"response\" or \"all\"");
            Complaint::invalid("train_on", reason).within("data").at(Origin::Code).into()
        };
        match (self.prompt, self.response) {
            _ if !self.context.is_empty() => {
                Err(refused("has tools, documents or template variables of its own"))
            }
            (Text::Chat(prompt), Text::Chat(response)) => Ok([&**prompt, response].concat()),
            _ => Err(refused("is text without turns")),
        }
    }
}

/// Returns the examples with the tokens that `data.train_on` chooses.
///
/// # Errors
///
/// [`TrainError::Recipe`] for an example without turns; [`TrainError::NoExamples`] if no token is trained on.
pub(crate) fn dialogues_of(
    section: &DataSection,
    examples: &[Demonstration<'_>],
    tokenizer: &Tokenizer,
) -> Result<Vec<Dialogue>, TrainError> {
    let completions =
        |of: fn(&Demonstration<'_>) -> Option<Dialogue>| examples.iter().filter_map(of).collect();
    Ok(match section.train_on {
        TrainOn::Response => completions(|one| Dialogue::completion(one.prompt_ids, one.response_ids)),
        TrainOn::All => completions(|one| {
            let ids = [one.prompt_ids, one.response_ids].concat();
            let (first, rest) = ids.split_first()?;
            Dialogue::completion(&[*first], rest)
        }),
        TrainOn::Assistant => {
            let conversations =
                examples.iter().map(Demonstration::conversation).collect::<Result<Vec<_>, _>>()?;
            let (dialogues, dropped) = tokenize_dialogues(&conversations, tokenizer, section.max_length)?;
            if !dropped.is_empty() {
                tracing::warn!(
                    "{} of {} conversations have no assistant turn within data.max_length = {} and are dropped",
                    dropped.len(),
                    examples.len(),
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
