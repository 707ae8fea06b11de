//! The question to the model.

use std::path::Path;

use llm_client::ChatMessage;
use pref_data::{Message, PreferenceRecord, TemplateContext, Text};
use serde_json::Value;

use crate::AnnotateError;

/// A question about two responses: a text in which `{prompt}`, `{response_a}` and `{response_b}` are replaced in one pass,
/// so that the same words in a response are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTemplate(String);

const PLACES: [&str; 3] = ["{prompt}", "{response_a}", "{response_b}"];

const DEFAULT: &str = "\
Two assistants answered the same request. Decide which answer serves the person who asked better. Weigh whether it does \
what was asked, whether it is correct, and whether it is clear. Neither the order of the answers nor their length is a \
merit in itself.

=== Request ===
{prompt}

=== Answer A ===
{response_a}

=== Answer B ===
{response_b}

=== End ===

Give your reasons in a few sentences. Then end with a line that holds your decision and nothing else: [[A]] if answer A is \
better, [[B]] if answer B is better, [[C]] if they are equally good.";

impl Default for PromptTemplate {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl PromptTemplate {
    /// Creates a template.
    ///
    /// # Errors
    ///
    /// [`AnnotateError::Template`] where one of the three placeholders, `[[A]]` or `[[B]]` is missing.
    pub fn new(text: impl Into<String>) -> Result<Self, AnnotateError> {
        let text = text.into();
        match PLACES.into_iter().chain(["[[A]]", "[[B]]"]).find(|needed| !text.contains(needed)) {
            Some(missing) => Err(AnnotateError::Template { missing }),
            None => Ok(Self(text)),
        }
    }

    /// Reads a template from a file.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and [`AnnotateError::Io`].
    pub fn from_file(path: &Path) -> Result<Self, AnnotateError> {
        let text = std::fs::read_to_string(path);
        Self::new(text.map_err(|source| AnnotateError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?)
    }

    /// Returns the conversation that asks about `a`, shown first, and `b`.
    /// `prompt` is as [`shown_prompt`] returns it.
    pub(crate) fn messages(&self, prompt: &str, a: &Text, b: &Text) -> Vec<ChatMessage> {
        let values = [prompt.to_owned(), shown(a), shown(b)];
        let mut out = String::new();
        let mut rest = self.0.as_str();
        while let Some((at, index)) = next_place(rest) {
            out.push_str(&rest[..at]);
            out.push_str(&values[index]);
            rest = &rest[at + PLACES[index].len()..];
        }
        out.push_str(rest);
        vec![ChatMessage::user(out)]
    }
}

fn next_place(text: &str) -> Option<(usize, usize)> {
    let places = PLACES.iter().enumerate();
    places.filter_map(|(index, place)| Some((text.find(place)?, index))).min()
}

/// Returns the prompt of a record for readers, after the tools and documents that its responses may use.
pub(crate) fn shown_prompt(record: &PreferenceRecord) -> String {
    let TemplateContext { tools, documents, .. } = &record.context;
    let given = [("Tools", tools), ("Documents", documents)];
    let given =
        given.into_iter().filter_map(|(name, value)| Some(format!("{name}: {}\n\n", value.as_ref()?)));
    given.chain([shown(&record.prompt)]).collect()
}

/// Returns a text for readers: the turns of a conversation with their roles, a single turn without.
pub(crate) fn shown(text: &Text) -> String {
    match text {
        Text::Plain(text) => text.clone(),
        Text::Chat(messages) => match &messages[..] {
            [only] => turn(only),
            messages => {
                let turns = messages
                    .iter()
                    .map(|message| format!("{}: {}", capitalized(message.role()), turn(message)));
                turns.collect::<Vec<_>>().join("\n\n")
            }
        },
    }
}

/// Returns the text of a message, then everything else that it has, such as calls of tools, as JSON.
fn turn(message: &Message) -> String {
    if let Some(text) = message.plain_content() {
        return text.to_owned();
    }
    let mut parts = vec![message.content().into_owned()];
    for (key, value) in message.fields() {
        let is_shown = match (key.as_str(), &value) {
            ("role", _) | (_, Value::Null) | ("content", Value::String(_)) => true,
            ("content", Value::Array(parts)) => {
                parts.iter().all(|part| part.is_string() || part["text"].is_string())
            }
            _ => false,
        };
        if !is_shown {
            parts.push(format!("{key}: {value}"));
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn capitalized(role: &str) -> String {
    let mut letters = role.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn placeholders_are_replaced_in_one_pass() {
        let template = PromptTemplate::new("{response_b}|{prompt}|{response_a} [[A]] [[B]]").expect("whole");
        let text = |text: &str| Text::Plain(text.to_owned());
        let messages = template.messages("{response_a}", &text("x {prompt}"), &text("{response_b}"));
        assert_eq!(messages, [ChatMessage::user("{response_b}|{response_a}|x {prompt} [[A]] [[B]]")]);
    }

    #[test]
    fn an_incomplete_template_is_refused() {
        assert_eq!(PromptTemplate::new(DEFAULT).expect("the default"), PromptTemplate::default());
        for bad in ["{prompt} {response_a} [[A]] [[B]]", "{prompt} {response_a} {response_b} [[A]]"] {
            assert!(matches!(PromptTemplate::new(bad), Err(AnnotateError::Template { .. })), "{bad}");
        }
    }

    #[test]
    fn turns_of_a_conversation_have_their_roles() {
        let one = Text::Chat(vec![pref_data::Message::assistant("4")]);
        assert_eq!(shown(&one), "4");
        let two = Text::Chat(vec![pref_data::Message::user("2 + 2?"), pref_data::Message::assistant("4")]);
        assert_eq!(shown(&two), "User: 2 + 2?\n\nAssistant: 4");
    }

    #[test]
    fn calls_of_tools_are_shown() {
        let message = |json: Value| serde_json::from_value::<Message>(json).expect("a message");
        let call = json!([{"function": {"name": "add"}}]);
        let called = message(json!({"role": "assistant", "content": null, "tool_calls": call}));
        assert_eq!(turn(&called), r#"tool_calls: [{"function":{"name":"add"}}]"#);
        let said = message(
            json!({"role": "assistant", "content": [{"type": "text", "text": "4"}], "tool_calls": call}),
        );
        assert_eq!(turn(&said), "4\ntool_calls: [{\"function\":{\"name\":\"add\"}}]");
        let image = message(json!({"role": "user", "content": [{"type": "image", "url": "x"}]}));
        assert_eq!(turn(&image), r#"content: [{"type":"image","url":"x"}]"#);

        let record = PreferenceRecord {
            id: "1".to_owned(),
            prompt: Text::Plain("2 + 2?".to_owned()),
            responses: Vec::new(),
            labels: Default::default(),
            domain: None,
            context: TemplateContext { tools: Some(json!(["add"])), ..TemplateContext::default() },
        };
        assert_eq!(shown_prompt(&record), "Tools: [\"add\"]\n\n2 + 2?");
    }
}
