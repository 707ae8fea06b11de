//! Dialogues of Anthropic's hh-rlhf.

use super::fields::{Row, fault, id, label, required, string};
use super::pairs::chosen_is_first;
use crate::error::DataError;
use crate::message::TemplateContext;
use crate::place::Place;
use crate::problem::FieldProblem;
use crate::record::{PreferenceRecord, Text};
use crate::text::shared_start;

/// The beginning of each turn of the assistant.
const ASSISTANT: &str = "\n\nAssistant:";

/// Whether two dialogues are equal up to their last answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefixes {
    Same,
    Differ,
}

pub(super) fn record(place: &Place, row: &Row) -> Result<(PreferenceRecord, Prefixes), DataError> {
    let dialogue = |field| {
        let text = string(place, field, required(place, row, field)?)?;
        match last_answer(&text) {
            Some(at) => Ok((text, at)),
            None => Err(fault(place, field, FieldProblem::NoAssistantTurn)),
        }
    };
    let (chosen, chosen_at) = dialogue("chosen")?;
    let (rejected, rejected_at) = dialogue("rejected")?;
    let (prompt, prefixes) = if chosen[..chosen_at] == rejected[..rejected_at] {
        (chosen_at, Prefixes::Same)
    } else {
        (shared_turns(place, &chosen, &rejected)?, Prefixes::Differ)
    };
    let response = |field, text: &str| match &text[prompt..] {
        "" => Err(fault(place, field, FieldProblem::Empty)),
        rest => Ok(Text::Plain(rest.to_owned())),
    };
    let record = PreferenceRecord {
        id: id(place, row),
        prompt: Text::Plain(chosen[..prompt].to_owned()),
        responses: vec![response("chosen", &chosen)?, response("rejected", &rejected)?],
        labels: chosen_is_first(),
        domain: label(row, "domain"),
        context: TemplateContext::default(),
    };
    Ok((record, prefixes))
}

/// Returns the end of the last `\n\nAssistant:`.
fn last_answer(text: &str) -> Option<usize> {
    text.rfind(ASSISTANT).map(|at| at + ASSISTANT.len())
}

/// Returns the end of the last `\n\nAssistant:` that both dialogues share.
fn shared_turns(place: &Place, chosen: &str, rejected: &str) -> Result<usize, DataError> {
    last_answer(shared_start(chosen, rejected))
        .ok_or_else(|| fault(place, "rejected", FieldProblem::NoSharedTurn))
}
