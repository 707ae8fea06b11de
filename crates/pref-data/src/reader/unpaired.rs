//! Rows of single responses: unpaired preferences, whose label says whether the response is desirable, and demonstrations.

use serde_json::Value;

use super::column_roles::{CONVERSATIONS, ColumnRole, is_empty};
use super::fields::{context, fault, wrong_type};
use super::pairs::{PairRow, answer, with_system};
use crate::error::DataError;
use crate::message::Message;
use crate::problem::FieldProblem;
use crate::record::{Text, UnpairedRecord};

/// Reads an unpaired preference.
pub(super) fn record(mut row: PairRow<'_>) -> Result<UnpairedRecord, DataError> {
    let is_desirable = label(&mut row)?;
    response(row, is_desirable)
}

/// Returns the error for a row that has only a conversation without an answer at its end.
pub(super) fn unanswered(row: &PairRow<'_>) -> Option<DataError> {
    let found = row.find(ColumnRole::Prompt).filter(|found| CONVERSATIONS.contains(&found.column))?;
    row.layout().is_none().then(|| fault(row.place, found.column, FieldProblem::NotAnAnswer))
}

/// Reads a demonstration, which is desirable.
pub(super) fn demonstration(row: PairRow<'_>) -> Result<UnpairedRecord, DataError> {
    row.notes.are_demonstrations = true;
    response(row, true)
}

fn response(mut row: PairRow<'_>, is_desirable: bool) -> Result<UnpairedRecord, DataError> {
    row.check_media()?;
    let (prompt, system, completion) = parts(&mut row)?;
    let (prompt, completion) = match (prompt, system, completion) {
        (prompt @ Text::Plain(_), None, completion @ Text::Plain(_)) => (prompt, completion),
        (prompt, system, completion) => {
            let is_mixed = matches!(prompt, Text::Plain(_)) != matches!(completion, Text::Plain(_));
            row.notes.text_as_message += usize::from(is_mixed);
            let prompt = match prompt {
                Text::Plain(text) => vec![Message::user(text)],
                Text::Chat(messages) => messages,
            };
            let mut completion = answer(completion);
            // The completion may be the whole conversation.
            if completion.starts_with(&prompt) {
                completion.drain(..prompt.len());
            }
            (Text::Chat(with_system(prompt, system)), Text::Chat(completion))
        }
    };
    row.check_answer(ColumnRole::Completion, &completion, &prompt)?;
    Ok(UnpairedRecord {
        id: row.id(),
        prompt,
        completion,
        is_desirable,
        domain: row.label(ColumnRole::Domain),
        context: context(row.row),
    })
}

/// Reads prompt, system message and completion. A conversation that ends with the answer holds both.
fn parts(row: &mut PairRow<'_>) -> Result<(Text, Option<String>, Text), DataError> {
    if row.find(ColumnRole::Completion).is_none()
        && let Some(mut conversation) = row.answered()?
    {
        let completion = conversation.split_off(conversation.len().saturating_sub(1));
        if conversation.is_empty() {
            return Err(row.missing(ColumnRole::Prompt));
        }
        let (prompt, system) = row.prompt()?;
        if let Some(Text::Plain(text)) = prompt {
            let says = |message: &Message| message.content().contains(text.trim());
            row.notes.prompt_left += usize::from(!conversation.iter().any(says));
        }
        return Ok((Text::Chat(conversation), system, Text::Chat(completion)));
    }
    check_only(row)?;
    let completion = row.required(ColumnRole::Completion)?;
    let (prompt, system) = row.prompt()?;
    let prompt = prompt.ok_or_else(|| row.missing(ColumnRole::Prompt))?;
    Ok((prompt, system, completion))
}

/// Checks that no other column may be the response, unless one has its usual name.
fn check_only(row: &PairRow<'_>) -> Result<(), DataError> {
    let Some(found) = row.find(ColumnRole::Completion) else { return Ok(()) };
    if found.column == ColumnRole::Completion.name() {
        return Ok(());
    }
    let holds_other =
        |column: &&str| row.row.get(*column).is_some_and(|value| !is_empty(value) && value != found.value);
    match row.named.candidates(ColumnRole::Completion).find(holds_other) {
        Some(other) => {
            Err(fault(row.place, other, FieldProblem::SecondResponse { used: found.column.to_owned() }))
        }
        None => Ok(()),
    }
}

/// Reads the label: a boolean, 0 or 1, or the text of one of these.
fn label(row: &mut PairRow<'_>) -> Result<bool, DataError> {
    const EXPECTED: &str = "true or false";
    let found = row.find(ColumnRole::Label).ok_or_else(|| row.missing(ColumnRole::Label))?;
    row.notes.read_as(ColumnRole::Label, found.column);
    match found.value {
        Value::Bool(label) => return Ok(*label),
        Value::Number(number) if number.as_f64() == Some(1.0) => return Ok(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => return Ok(false),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => return Ok(true),
            "false" | "0" => return Ok(false),
            _ => {}
        },
        Value::Number(_) => {}
        other => return Err(wrong_type(row.place, found.column, EXPECTED, other)),
    }
    let text = found.value.as_str().map_or_else(|| found.value.to_string(), str::to_owned);
    let problem = FieldProblem::UnknownLabel { found: text, expected: EXPECTED };
    Err(fault(row.place, found.column, problem))
}
