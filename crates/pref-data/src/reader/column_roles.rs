//! Which column of a set of pairs plays which role.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::Row;

/// The role of a column in a set of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ColumnRole {
    /// The prompt: text, or messages.
    Prompt,
    /// Text that follows an instruction in the prompt.
    Input,
    /// The system message.
    System,
    /// The preferred response.
    Chosen,
    /// The other response.
    Rejected,
    /// The only response of an unpaired preference or of a demonstration.
    Completion,
    /// Whether a completion is desirable.
    Label,
    /// The record's identifier.
    Id,
    /// The record's subject.
    Domain,
}

/// The columns or fields of a set of pairs, where they have other names than those that are recognized.
///
/// A role without a name here is looked for under the recognized names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairColumns {
    /// The prompt: text, or messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Text that follows the prompt, on a line of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// The system message. Prompt and responses become messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The preferred response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<String>,
    /// The other response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
    /// The only response of an unpaired preference or of a demonstration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<String>,
    /// Whether a completion is desirable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The record's identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The record's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// Names of prompts that are conversations. One that ends with the model's answer is not a prompt.
pub(super) const CONVERSATIONS: [&str; 3] = ["conversations", "conversation", "messages"];

impl ColumnRole {
    pub(super) const ALL: [Self; 9] = [
        Self::Prompt,
        Self::Input,
        Self::System,
        Self::Chosen,
        Self::Rejected,
        Self::Completion,
        Self::Label,
        Self::Id,
        Self::Domain,
    ];

    /// Returns the names that are recognized, the usual one first.
    pub(super) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Prompt => &[
                "prompt",
                "question",
                "instruction",
                "query",
                "input",
                CONVERSATIONS[0],
                CONVERSATIONS[1],
                CONVERSATIONS[2],
            ],
            Self::Input => &["input"],
            Self::System => &["system", "system_prompt"],
            Self::Chosen => &["chosen", "chosen_response", "response_j"],
            Self::Rejected => &["rejected", "rejected_response", "response_k"],
            Self::Completion => &["completion", "response", "output"],
            Self::Label => &["label", "kto_tag"],
            Self::Id => &["id"],
            Self::Domain => &["domain"],
        }
    }

    /// Returns the usual name.
    pub(super) fn name(self) -> &'static str {
        self.names()[0]
    }
}

impl fmt::Display for ColumnRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prompt => "the prompt",
            Self::Input => "the end of the prompt",
            Self::System => "the system message",
            Self::Chosen => "the chosen response",
            Self::Rejected => "the rejected response",
            Self::Completion => "the response",
            Self::Label => "the label",
            Self::Id => "the id",
            Self::Domain => "the domain",
        })
    }
}

/// A cell, and the column that it was found in.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) column: &'a str,
    pub(super) value: &'a Value,
}

impl PairColumns {
    fn named(&self, role: ColumnRole) -> Option<&str> {
        let name = match role {
            ColumnRole::Prompt => &self.prompt,
            ColumnRole::Input => &self.input,
            ColumnRole::System => &self.system,
            ColumnRole::Chosen => &self.chosen,
            ColumnRole::Rejected => &self.rejected,
            ColumnRole::Completion => &self.completion,
            ColumnRole::Label => &self.label,
            ColumnRole::Id => &self.id,
            ColumnRole::Domain => &self.domain,
        };
        name.as_deref()
    }

    /// Returns the names that a user chose.
    pub(super) fn chosen_names(&self) -> impl Iterator<Item = &str> {
        ColumnRole::ALL.into_iter().filter_map(|role| self.named(role))
    }

    /// Returns the names under which a role is looked for.
    pub(super) fn candidates(&self, role: ColumnRole) -> impl Iterator<Item = &str> {
        let named = self.named(role);
        let recognized = if named.is_some() { &[] } else { role.names() };
        named.into_iter().chain(recognized.iter().copied())
    }

    /// Returns the first cell of the row for a role that holds something.
    pub(super) fn find<'a>(&'a self, row: &'a Row, role: ColumnRole) -> Option<Found<'a>> {
        let is_recognized = self.named(role).is_none();
        self.candidates(role).find_map(|column| {
            let value = row.get(column).filter(|value| !is_empty(value))?;
            let is_answered = is_recognized && CONVERSATIONS.contains(&column) && ends_with_answer(value);
            (!is_answered).then_some(Found { column, value })
        })
    }

    /// Returns a conversation that ends with the model's answer.
    pub(super) fn find_answered<'a>(&'a self, row: &'a Row) -> Option<Found<'a>> {
        CONVERSATIONS.into_iter().find_map(|column| {
            let value = row.get(column).filter(|value| ends_with_answer(value))?;
            Some(Found { column, value })
        })
    }

    /// Returns a column for a role that is there and holds an empty text or list.
    pub(super) fn find_empty<'a>(&'a self, row: &Row, role: ColumnRole) -> Option<&'a str> {
        self.candidates(role)
            .find(|column| row.get(*column).is_some_and(|value| !value.is_null() && is_empty(value)))
    }
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn ends_with_answer(value: &Value) -> bool {
    let last = value.as_array().and_then(|messages| messages.last());
    let role = last.and_then(|last| last.get("role").or(last.get("from"))).and_then(Value::as_str);
    role.is_some_and(|role| role == "assistant" || role == "gpt")
}
