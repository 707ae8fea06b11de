//! Rows of prompt, chosen and rejected.

use std::collections::BTreeMap;

use super::fields::{Row, context, domain, fault, id, optional, required, text};
use super::{DEFAULT_ANNOTATOR, PairColumns};
use crate::error::{DataError, FieldProblem, Place};
use crate::message::Message;
use crate::record::{Label, PreferenceRecord, Text};
use crate::text::shared_start;

/// Columns of a parquet file.
pub(super) const COLUMNS: [&str; 8] =
    ["id", "prompt", "chosen", "rejected", "domain", "tools", "chat_template_kwargs", "documents"];

/// Gives the fields of a row the names that they have here.
pub(super) fn rename(row: &mut Row, columns: &PairColumns) {
    let names = [("prompt", &columns.prompt), ("chosen", &columns.chosen), ("rejected", &columns.rejected)];
    // All are taken before any is put back: a set may call its chosen responses "rejected".
    let taken = names.map(|(name, theirs)| (name, row.remove(theirs)));
    for (name, value) in taken {
        match value {
            Some(value) => drop(row.insert(name.to_owned(), value)),
            None => drop(row.remove(name)),
        }
    }
}

pub(super) fn record(place: &Place, row: &Row) -> Result<PreferenceRecord, DataError> {
    let chosen = text(place, "chosen", required(place, row, "chosen")?)?;
    let rejected = text(place, "rejected", required(place, row, "rejected")?)?;
    let prompt = optional(row, "prompt").map(|value| text(place, "prompt", value)).transpose()?;
    let (prompt, chosen, rejected) = with_prompt(place, prompt, chosen, rejected)?;
    for (field, response) in [("chosen", &chosen), ("rejected", &rejected)] {
        response.check_answer(field, &prompt).map_err(|(field, problem)| fault(place, field, problem))?;
    }
    Ok(PreferenceRecord {
        id: id(place, row)?,
        prompt,
        responses: vec![chosen, rejected],
        labels: chosen_is_first(),
        domain: domain(place, row)?,
        context: context(row),
    })
}

/// The label of a pair: the only annotator prefers the first response.
pub(super) fn chosen_is_first() -> BTreeMap<String, Label> {
    BTreeMap::from([(DEFAULT_ANNOTATOR.to_owned(), Label::Prefers(0))])
}

/// Prompt and responses, the prompt taken from the responses where they hold it.
fn with_prompt(
    place: &Place,
    prompt: Option<Text>,
    chosen: Text,
    rejected: Text,
) -> Result<(Text, Text, Text), DataError> {
    match (prompt, chosen, rejected) {
        (Some(Text::Chat(prompt)), Text::Chat(chosen), Text::Chat(rejected))
            if !prompt.is_empty() && chosen.starts_with(&prompt) && rejected.starts_with(&prompt) =>
        {
            split_messages(place, prompt.len(), chosen, rejected)
        }
        (Some(Text::Plain(_)) | None, Text::Chat(chosen), Text::Chat(rejected)) => {
            let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            split_messages(place, shared, chosen, rejected)
        }
        (None, Text::Plain(chosen), Text::Plain(rejected)) => {
            let shared = shared_text(&chosen, &rejected).len();
            let rest = |field: &str, text: &str| match &text[shared..] {
                "" => Err(after_prompt(place, field, text.is_empty())),
                rest => Ok(Text::Plain(rest.to_owned())),
            };
            let (better, worse) = (rest("chosen", &chosen)?, rest("rejected", &rejected)?);
            Ok((Text::Plain(chosen[..shared].to_owned()), better, worse))
        }
        (None, chosen, rejected) => Err(fault(
            place,
            "rejected",
            FieldProblem::Mixed { found: rejected.kind(), other: "chosen", other_found: chosen.kind() },
        )),
        (Some(prompt), chosen, rejected) => Ok((prompt, chosen, rejected)),
    }
}

fn split_messages(
    place: &Place,
    shared: usize,
    mut chosen: Vec<Message>,
    mut rejected: Vec<Message>,
) -> Result<(Text, Text, Text), DataError> {
    let (better, worse) = (chosen.split_off(shared), rejected.split_off(shared));
    for (field, rest) in [("chosen", &better), ("rejected", &worse)] {
        if rest.is_empty() {
            return Err(after_prompt(place, field, shared == 0));
        }
    }
    if chosen.is_empty() {
        return Err(fault(place, "prompt", FieldProblem::Missing));
    }
    Ok((Text::Chat(chosen), Text::Chat(better), Text::Chat(worse)))
}

fn after_prompt(place: &Place, field: &str, was_empty: bool) -> DataError {
    let problem = if was_empty { FieldProblem::Empty } else { FieldProblem::EmptyAfterPrompt };
    fault(place, field, problem)
}

/// The longest beginning that both texts share, less one space at its end: as TRL takes it, since a token begins
/// with its space.
fn shared_text<'a>(a: &'a str, b: &str) -> &'a str {
    let shared = shared_start(a, b);
    shared.strip_suffix(' ').unwrap_or(shared)
}
