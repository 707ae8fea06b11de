//! Preference records: one prompt, several responses, the labels of many annotators.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Who speaks in a chat message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that stand before the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The output of a tool.
    Tool,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, as it is: nothing is trimmed.
    pub content: String,
}

impl Message {
    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self {
            role: Role::User,
            content: content.into(),
        }
    }

    /// A message of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self {
            role: Role::Assistant,
            content: content.into(),
        }
    }

    /// Instructions that stand before the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self {
            role: Role::System,
            content: content.into(),
        }
    }
}

/// A prompt or a response: plain text, tokenised as it is, or messages, rendered with the model's chat template.
///
/// In JSON a string or a list of `{role, content}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Text that is tokenised as it is.
    Plain(String),
    /// Messages that the model's chat template renders.
    Chat(Vec<Message>),
}

/// What one annotator said of a record's responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// The response at this index is the better one.
    Prefers(usize),
    /// No difference.
    Tie,
}

/// One prompt with two or more responses and what each annotator said of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreferenceRecord {
    /// Identifies the record within its set.
    pub id: String,
    /// What was asked.
    pub prompt: Text,
    /// Two or more answers.
    pub responses: Vec<Text>,
    /// The label of each annotator, by the annotator's name.
    pub labels: BTreeMap<String, Label>,
    /// The subject, where the set names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// One record as one annotator sees it: the better response and the worse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The record's identifier.
    pub id: String,
    /// What was asked.
    pub prompt: Text,
    /// The response that the label prefers.
    pub chosen: Text,
    /// The other response.
    pub rejected: Text,
    /// The subject, where the set names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Whether noise swapped the two: the annotator's own label says the opposite.
    #[serde(default)]
    pub flipped: bool,
}
