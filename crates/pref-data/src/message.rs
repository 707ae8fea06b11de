//! Messages of a conversation, with every key that they came with.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::problem::FieldProblem;

/// One message of a conversation: a JSON object with a role, in the order of its keys.
///
/// Chat templates read any key: `tool_calls`, `name`, `reasoning_content`, lists of parts as `content`. So a message
/// keeps all of them as given.
///
/// ```
/// use pref_data::Message;
///
/// let call = r#"{"role": "assistant", "content": null, "tool_calls": [{"name": "now", "arguments": {}}]}"#;
/// let message: Message = serde_json::from_str(call)?;
/// assert_eq!((message.role(), &*message.content(), message.is_empty()), ("assistant", "", false));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Eq)]
pub struct Message(Form);

/// Most messages have a role and a text; they take a tenth of an object's memory.
#[derive(Clone, PartialEq, Eq)]
enum Form {
    /// `{"role": …, "content": "…"}`, in this order.
    Plain { role: Cow<'static, str>, content: String },
    /// Anything else.
    Object(Box<Map<String, Value>>),
}

impl Message {
    /// Returns a message of `role` with the text `content`.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        let known = ["user", "assistant", "system", "tool"].into_iter().find(|known| *known == role);
        let role = known.map_or_else(|| Cow::Owned(role.to_owned()), Cow::Borrowed);
        Self(Form::Plain { role, content: content.into() })
    }

    /// Returns a message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// Returns a message of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// Returns instructions that precede the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// Returns the message with these keys and values.
    ///
    /// # Errors
    ///
    /// The key at fault and its problem: `role` must be text, and there must be another key.
    pub fn from_fields(mut fields: Map<String, Value>) -> Result<Self, (&'static str, FieldProblem)> {
        match fields.get("role") {
            Some(Value::String(role)) if role.is_empty() => return Err(("role", FieldProblem::Empty)),
            Some(Value::String(_)) => {}
            None | Some(Value::Null) => return Err(("role", FieldProblem::Missing)),
            Some(other) => {
                let found = crate::text::json_kind(other);
                return Err(("role", FieldProblem::WrongType { expected: "text", found }));
            }
        }
        if fields.len() == 1 {
            return Err(("content", FieldProblem::Missing));
        }
        if fields.len() == 2
            && fields.keys().next().is_some_and(|key| key == "role")
            && let Some(Value::String(content)) = fields.get_mut("content")
        {
            let content = std::mem::take(content);
            return Ok(Self::new(fields["role"].as_str().unwrap_or_default(), content));
        }
        Ok(Self(Form::Object(Box::new(fields))))
    }

    /// Returns the role: `system`, `user`, `assistant`, `tool`, or another one that the template knows.
    pub fn role(&self) -> &str {
        match &self.0 {
            Form::Plain { role, .. } => role,
            Form::Object(fields) => fields.get("role").and_then(Value::as_str).unwrap_or_default(),
        }
    }

    /// Returns the content as text, untrimmed: of a list of parts the texts, one after the other, and nothing where it
    /// is missing or `null`.
    pub fn content(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Plain { content, .. } => Cow::Borrowed(content),
            Form::Object(fields) => match fields.get("content") {
                Some(Value::String(content)) => Cow::Borrowed(content),
                Some(Value::Array(parts)) => Cow::Owned(parts.iter().filter_map(part_text).collect()),
                _ => Cow::Borrowed(""),
            },
        }
    }

    /// Returns whether the message says nothing: an empty content, and no other key with a value.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Form::Plain { content, .. } => content.is_empty(),
            Form::Object(fields) => fields.iter().all(|(key, value)| match value {
                Value::Null => true,
                Value::String(text) => key == "role" || text.is_empty(),
                Value::Array(items) => items.is_empty(),
                _ => false,
            }),
        }
    }

    /// Returns the message as a JSON object, with all keys in their order.
    pub fn fields(&self) -> Map<String, Value> {
        match &self.0 {
            Form::Plain { role, content } => {
                let pairs = [("role", role.as_ref()), ("content", content)];
                pairs.into_iter().map(|(key, text)| (key.to_owned(), Value::from(text))).collect()
            }
            Form::Object(fields) => (**fields).clone(),
        }
    }

    /// Returns the text of a message that has a role and a text and no other key.
    pub fn plain_content(&self) -> Option<&str> {
        match &self.0 {
            Form::Plain { content, .. } => Some(content),
            Form::Object(_) => None,
        }
    }
}

/// The text of `{"type": "text", "text": …}`, or of a part that is a string.
fn part_text(part: &Value) -> Option<&str> {
    part.as_str().or_else(|| part.get("text")?.as_str())
}

/// Messages with the same keys and values are equal, in whatever order the keys are.
impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Object(_), Form::Plain { .. }) | (Form::Plain { .. }, Form::Object(_)) => {
                self.fields() == other.fields()
            }
            (form, other) => form == other,
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Plain { role, content } => f.debug_tuple("Message").field(role).field(content).finish(),
            Form::Object(fields) => f.debug_tuple("Message").field(fields).finish(),
        }
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Form::Plain { role, content } => {
                serializer.collect_map([("role", role.as_ref()), ("content", content.as_str())])
            }
            Form::Object(fields) => fields.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        Self::from_fields(fields)
            .map_err(|(key, problem)| D::Error::custom(format_args!("field `{key}` {problem}")))
    }
}

/// What a chat template sees of a record beside the messages, as JSON. Templates that do not look at them ignore them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateContext {
    /// The functions that the model may call: a list of JSON schemas, or its JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
    /// Further variables, by name: `{"enable_thinking": false}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_kwargs: Option<Value>,
    /// Documents for retrieval-augmented generation: a list of objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<Value>,
}

impl TemplateContext {
    /// Returns whether nothing is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_keep_every_key_in_its_order() {
        for text in [
            r#"{"role":"user","content":"hi"}"#,
            r#"{"content":"hi","role":"user"}"#,
            r#"{"role":"developer","content":"be kind"}"#,
            r#"{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{"b":1,"a":[2.0]}}}]}"#,
            r#"{"role":"user","content":[{"type":"text","text":"hi"}],"name":"ann"}"#,
        ] {
            let message: Message = serde_json::from_str(text).expect("a message");
            assert_eq!(serde_json::to_string(&message).expect("JSON"), text);
            assert_eq!(Value::Object(message.fields()), serde_json::from_str::<Value>(text).expect("JSON"));
        }
    }

    #[test]
    fn content_is_the_text_of_all_parts() {
        let message = |value: Value| serde_json::from_value::<Message>(value).expect("a message");
        let parts = message(
            json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, "b"]}),
        );
        assert_eq!(parts.content(), "ab");
        assert!(!parts.is_empty());
        assert!(message(json!({"role": "assistant", "content": "", "tool_calls": null})).is_empty());
        assert!(!message(json!({"role": "assistant", "tool_calls": [{"name": "f"}]})).is_empty());
    }

    #[test]
    fn messages_without_a_role_are_refused() {
        for (text, expected) in [
            (r#"{"content": "hi"}"#, "field `role` is missing"),
            (r#"{"role": 1, "content": "hi"}"#, "field `role` is a number; it must be text"),
            (r#"{"role": "", "content": "hi"}"#, "field `role` is empty"),
            (r#"{"role": "user"}"#, "field `content` is missing"),
        ] {
            let error = serde_json::from_str::<Message>(text).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
