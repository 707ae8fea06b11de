//! Preference records: one prompt, several responses, the labels of any number of annotators.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message::{Message, TemplateContext};
use crate::problem::FieldProblem;

/// The annotator of a file of chosen and rejected responses.
pub const DEFAULT_ANNOTATOR: &str = "human";

/// A prompt or a response: plain text, tokenized as it is, or messages, rendered with the model's chat template.
///
/// In JSON a string or a list of [messages](Message).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Text that is tokenized as it is.
    Plain(String),
    /// Messages that the model's chat template renders.
    Chat(Vec<Message>),
}

/// One annotator's label of a record.
///
/// In JSON the preferred response's index, or `"tie"`: `{"human": 0, "gpt-4-turbo": "tie"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// The response at this index is better than the others.
    Prefers(usize),
    /// No response is better.
    Tie,
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Prefers(index) => serializer.serialize_u64(index as u64),
            Self::Tie => serializer.serialize_str("tie"),
        }
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelVisitor;

        impl Visitor<'_> for LabelVisitor {
            type Value = Label;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the index of the preferred response, or \"tie\"")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Label, E> {
                usize::try_from(value)
                    .map(Label::Prefers)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Label, E> {
                match value {
                    "tie" => Ok(Label::Tie),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(LabelVisitor)
    }
}

/// One prompt with two or more responses and the labels of annotators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreferenceRecord {
    /// Identifies the record within its set.
    pub id: String,
    /// The prompt.
    pub prompt: Text,
    /// Two or more responses.
    pub responses: Vec<Text>,
    /// The label of each annotator, by the annotator's name.
    pub labels: BTreeMap<String, Label>,
    /// The subject, where the set names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// What the chat template sees besides the messages.
    #[serde(flatten)]
    pub context: TemplateContext,
}

impl PreferenceRecord {
    /// Checks that there are two or more responses, none empty, and that labels name one of them. The error is the bad
    /// field and its problem.
    pub(crate) fn check(&self) -> Result<(), (String, FieldProblem)> {
        if self.id.is_empty() {
            return Err(("id".to_owned(), FieldProblem::Empty));
        }
        let found = self.responses.len();
        if found < 2 {
            return Err(("responses".to_owned(), FieldProblem::TooFewResponses { found }));
        }
        for (index, response) in self.responses.iter().enumerate() {
            response.check_answer(&format!("responses[{index}]"), &self.prompt)?;
        }
        for (annotator, label) in &self.labels {
            if let &Label::Prefers(index) = label
                && index >= found
            {
                let problem = FieldProblem::LabelOutOfRange { index, responses: found };
                return Err((format!("labels.{annotator}"), problem));
            }
        }
        Ok(())
    }
}

/// One prompt with one response and whether that is desirable. KTO trains on such records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpairedRecord {
    /// Identifies the record within its set.
    pub id: String,
    /// The prompt.
    pub prompt: Text,
    /// The response.
    pub completion: Text,
    /// Whether the response is desirable.
    #[serde(rename = "label")]
    pub is_desirable: bool,
    /// The subject, where the set names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// What the chat template sees besides the messages.
    #[serde(flatten)]
    pub context: TemplateContext,
}

impl Text {
    /// Returns the form in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Plain(_) => "text",
            Self::Chat(_) => "a list of messages",
        }
    }

    /// Checks that the text can be a response to `prompt`: the same form, not empty, a last message of the assistant.
    pub(crate) fn check_answer(&self, field: &str, prompt: &Self) -> Result<(), (String, FieldProblem)> {
        match (self, prompt) {
            (Self::Plain(text), Self::Plain(_)) if text.is_empty() => {
                Err((field.to_owned(), FieldProblem::Empty))
            }
            (Self::Plain(_), Self::Plain(_)) => Ok(()),
            (Self::Chat(messages), Self::Chat(_)) => match messages.last() {
                None => Err((field.to_owned(), FieldProblem::Empty)),
                Some(last) if last.role() != "assistant" => {
                    Err((field.to_owned(), FieldProblem::NotAnAnswer))
                }
                Some(last) if last.is_empty() => {
                    Err((format!("{field}[{}].content", messages.len() - 1), FieldProblem::Empty))
                }
                Some(_) => Ok(()),
            },
            (_, prompt) => Err((
                field.to_owned(),
                FieldProblem::Mixed { found: self.kind(), other: "prompt", other_found: prompt.kind() },
            )),
        }
    }
}

/// One preference of one annotator: a chosen and a rejected response.
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
    /// What the chat template sees besides the messages.
    #[serde(flatten)]
    pub context: TemplateContext,
    /// The annotator of the label.
    #[serde(default)]
    pub annotator: String,
    /// The numbers of annotators that prefer each response.
    #[serde(default)]
    pub votes: Votes,
    /// Whether noise swapped the responses. The annotator's own label is then the opposite.
    #[serde(default)]
    pub flipped: bool,
}

impl Pair {
    /// Swaps chosen and rejected, and toggles `flipped`.
    pub(crate) fn flip(&mut self) {
        std::mem::swap(&mut self.chosen, &mut self.rejected);
        std::mem::swap(&mut self.votes.chosen, &mut self.votes.rejected);
        self.flipped = !self.flipped;
    }
}

/// The numbers of a record's annotators that prefer each response of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Votes {
    /// The chosen response.
    pub chosen: u32,
    /// The rejected response.
    pub rejected: u32,
}

impl Votes {
    /// Returns the disagreement of the annotators: a million times the minority's share of the votes, 0 without votes.
    pub(crate) fn division(self) -> u64 {
        let all = u64::from(self.chosen) + u64::from(self.rejected);
        (u64::from(self.chosen.min(self.rejected)) * 1_000_000).checked_div(all).unwrap_or(0)
    }
}
