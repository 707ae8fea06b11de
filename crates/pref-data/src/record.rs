//! Preference records: one prompt, several responses, the labels of many annotators.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::FieldProblem;
use crate::message::{Message, TemplateContext};

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

/// What one annotator said of a record's responses.
///
/// In JSON the preferred response's index, or `"tie"`: `{"human": 0, "gpt-4-turbo": "tie"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// The response at this index is the better one.
    Prefers(usize),
    /// No difference.
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

/// One prompt with two or more responses and what each annotator said of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What the chat template sees beside the messages.
    #[serde(flatten)]
    pub context: TemplateContext,
}

impl PreferenceRecord {
    /// Whether the record can be used: two or more responses, none empty, and labels that name one of them. If not,
    /// which field is at fault and why.
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

impl Text {
    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Plain(_) => "text",
            Self::Chat(_) => "a list of messages",
        }
    }

    /// Whether it can be a response to `prompt`: of the same form, not empty, messages ending with the assistant's.
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
    /// What the chat template sees beside the messages.
    #[serde(flatten)]
    pub context: TemplateContext,
    /// Whose label it is.
    #[serde(default)]
    pub annotator: String,
    /// How many of the record's annotators prefer which of the two.
    #[serde(default)]
    pub votes: Votes,
    /// Whether noise swapped the two: the annotator's own label says the opposite.
    #[serde(default)]
    pub flipped: bool,
}

impl Pair {
    /// Swaps chosen and rejected, and remembers it.
    pub(crate) fn flip(&mut self) {
        std::mem::swap(&mut self.chosen, &mut self.rejected);
        std::mem::swap(&mut self.votes.chosen, &mut self.votes.rejected);
        self.flipped = !self.flipped;
    }
}

/// How many of a record's annotators prefer each response of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Votes {
    /// The chosen one.
    pub chosen: u32,
    /// The rejected one.
    pub rejected: u32,
}

impl Votes {
    /// How divided the annotators are: a million times the minority's share of their votes, 0 where all agree or none
    /// voted.
    pub(crate) fn division(self) -> u64 {
        let all = u64::from(self.chosen) + u64::from(self.rejected);
        (u64::from(self.chosen.min(self.rejected)) * 1_000_000).checked_div(all).unwrap_or(0)
    }
}
