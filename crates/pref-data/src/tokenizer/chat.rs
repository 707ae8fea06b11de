//! Rendering with a folder's chat templates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chat_template::{Date, Inputs, Template};
use serde_json::{Map, Value};

use super::RenderMode;
use crate::error::DataError;
use crate::message::{Message, TemplateContext};

/// Settings of chat templates, for all conversations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatSettings {
    /// The template to use instead of the folder's: a file, or the name of one of the folder's templates.
    pub template: Option<String>,
    /// The date that templates print.
    pub date: Date,
    /// Further variables of the template, such as `enable_thinking`. Those of a record overrule them.
    pub variables: Map<String, Value>,
    /// Encodes control tokens within the text of messages as text.
    pub sanitize_control_tokens: bool,
}

/// Arguments of `apply_chat_template` that are not variables of a template.
const ARGUMENTS: [&str; 14] = [
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "max_length",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "sanitize_control_tokens",
    "tokenize",
    "tokenizer_kwargs",
    "truncation",
    "messages",
];

/// Names of a message's reasoning. transformers passes it under the first two.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The templates of a folder and the values that they are rendered with.
#[derive(Clone, Debug)]
pub(super) struct ChatTemplates {
    /// The sources, by name; the one that is used without tools is `default`.
    sources: BTreeMap<String, String>,
    parsed: BTreeMap<String, Template>,
    /// Special tokens, by their names.
    special: Map<String, Value>,
    settings: ChatSettings,
}

/// A rendered conversation, with the names that were given and those that the template read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rendering {
    /// The text; with [markers](super::control) around control tokens of messages where these are encoded as text.
    pub(crate) text: String,
    pub(crate) given: BTreeSet<String>,
    pub(crate) seen: BTreeSet<String>,
}

impl ChatTemplates {
    pub(super) fn new(
        folder: &Path,
        mut sources: BTreeMap<String, String>,
        special: &BTreeMap<&'static str, String>,
        settings: &ChatSettings,
    ) -> Result<Self, DataError> {
        if let Some(named) = &settings.template {
            let source = match sources.get(named) {
                Some(source) => source.clone(),
                None => {
                    let path = Path::new(named);
                    let bytes = super::config::read(path)?;
                    super::config::utf8(path, bytes)?
                }
            };
            sources = BTreeMap::from([(DEFAULT.to_owned(), source)]);
        }
        let parse = |(name, source): (&String, &String)| match Template::parse(source) {
            Ok(template) => Ok((name.clone(), template)),
            Err(source) => Err(DataError::template(folder, source)),
        };
        let parsed = sources.iter().map(parse).collect::<Result<_, _>>()?;
        let special = special.iter().map(|(name, token)| ((*name).to_owned(), Value::from(token.as_str())));
        Ok(Self { sources, parsed, special: special.collect(), settings: settings.clone() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parsed.is_empty()
    }

    /// Returns the template for conversations without tools.
    pub(super) fn default_source(&self) -> &str {
        self.sources.get(DEFAULT).map_or("", String::as_str)
    }

    /// Returns the template that replaces the folder's and that a training run saves with its model.
    pub(super) fn replacement(&self) -> Option<&str> {
        self.settings.template.as_ref().map(|_| self.default_source())
    }

    pub(super) fn settings(&self) -> &ChatSettings {
        &self.settings
    }

    pub(super) fn default_template(&self) -> Option<&Template> {
        self.parsed.get(DEFAULT)
    }

    /// Hashes everything that determines the text of a conversation.
    pub(super) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        let ChatSettings { date, variables, sanitize_control_tokens, .. } = &self.settings;
        let variables = serde_json::to_string(variables).expect("JSON can be written");
        let text = format!("{:?} {date:?} {variables} {sanitize_control_tokens}", self.sources);
        hasher.update(text.as_bytes());
    }

    /// Renders messages; `mark` changes every text of the conversation first.
    pub(super) fn render(
        &self,
        folder: &Path,
        messages: &[&[Message]],
        context: &TemplateContext,
        mode: RenderMode,
        mark: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Rendering, DataError> {
        let invalid = |field: &'static str, problem: String| DataError::TemplateInput { field, problem };
        let mut variables = self.special.clone();
        let mut given = BTreeSet::new();
        let of_record = match &context.chat_template_kwargs {
            None | Some(Value::Null) => None,
            Some(Value::Object(of_record)) => Some(of_record),
            Some(_) => {
                return Err(invalid(
                    "chat_template_kwargs",
                    "must be an object of names and values".to_owned(),
                ));
            }
        };
        let mut tools = list("tools", context.tools.as_ref())?;
        let mut documents = list("documents", context.documents.as_ref())?;
        for (name, value) in self.settings.variables.iter().chain(of_record.into_iter().flatten()) {
            match name.as_str() {
                "tools" => tools = list("tools", Some(value))?,
                "documents" => documents = list("documents", Some(value))?,
                name if ARGUMENTS.contains(&name) => {
                    let problem = format!("holds `{name}`, which is no variable of a template; remove it");
                    return Err(invalid("chat_template_kwargs", problem));
                }
                _ => {
                    given.insert(name.clone());
                    variables.insert(name.clone(), value.clone());
                }
            }
        }
        given.extend(tools.iter().map(|_| "tools".to_owned()));
        given.extend(documents.iter().map(|_| "documents".to_owned()));
        let template = self.choose(folder, tools.is_some())?;
        let joins_parts = !template.reads_parts();
        let messages = messages.iter().flat_map(|part| part.iter());
        let messages = messages
            .map(|message| fields(message, joins_parts, &mut given))
            .collect::<Result<Vec<_>, _>>()?;
        if messages.is_empty() {
            return Err(invalid("messages", "are empty; a chat template needs at least one".to_owned()));
        }
        let mut inputs = Inputs {
            messages,
            tools,
            documents,
            add_generation_prompt: mode == RenderMode::AwaitAnswer,
            variables,
        };
        mark_inputs(&mut inputs, self.special.len(), mark);
        let rendered = template.render(&inputs, self.settings.date);
        let rendered = rendered.map_err(|source| DataError::template(folder, source))?;
        let mut seen = rendered.seen;
        if REASONING.iter().any(|name| seen.contains(*name)) {
            seen.extend(REASONING.map(str::to_owned));
        }
        Ok(Rendering { text: rendered.text, given, seen })
    }

    fn choose(&self, folder: &Path, has_tools: bool) -> Result<&Template, DataError> {
        let with_tools = self.parsed.get("tool_use").filter(|_| has_tools);
        let template = with_tools.or_else(|| self.parsed.get(DEFAULT));
        template.ok_or_else(|| DataError::NoTemplate { folder: folder.to_owned() })
    }
}

const DEFAULT: &str = "default";

/// Returns a message as templates read it: without keys that are `null`, and with its reasoning under each name that
/// templates use.
fn fields(
    message: &Message,
    joins_parts: bool,
    given: &mut BTreeSet<String>,
) -> Result<Map<String, Value>, DataError> {
    let mut fields = message.fields();
    if message.plain_content().is_some() {
        return Ok(fields);
    }
    fields.retain(|_, value| !value.is_null());
    given.extend(fields.keys().filter(|key| !matches!(key.as_str(), "role" | "content")).cloned());
    if let Some(Value::Array(parts)) = fields.get("content") {
        let kind = |part: &Value| part.get("type").and_then(Value::as_str).unwrap_or("text").to_owned();
        if let Some(kind) = parts.iter().map(kind).find(|kind| kind != "text") {
            let problem = format!("hold a part of type {kind:?}; only text is supported");
            return Err(DataError::TemplateInput { field: "messages", problem });
        }
        if joins_parts {
            fields.insert("content".to_owned(), Value::from(message.content().into_owned()));
        }
    }
    let reasoning = REASONING.iter().find_map(|name| fields.get(*name)).cloned();
    if let Some(reasoning) = reasoning {
        if !fields.contains_key("thinking") {
            fields.shift_insert(0, "thinking".to_owned(), reasoning.clone());
        }
        fields.insert("reasoning_content".to_owned(), reasoning);
    }
    Ok(fields)
}

/// Returns tools or documents from a list of objects or its JSON text.
fn list(field: &'static str, value: Option<&Value>) -> Result<Option<Vec<Value>>, DataError> {
    let parsed = match value {
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        other => other.cloned(),
    };
    match parsed {
        None if value.is_none() => Ok(None),
        Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) if items.iter().all(Value::is_object) => Ok(Some(items)),
        _ => Err(DataError::TemplateInput { field, problem: "must be a list of objects".to_owned() }),
    }
}

fn mark_inputs(inputs: &mut Inputs, special: usize, mark: &dyn Fn(&str) -> Option<String>) {
    let messages = inputs.messages.iter_mut().flat_map(|message| message.values_mut());
    let lists = inputs.tools.iter_mut().chain(&mut inputs.documents).flatten();
    // Special tokens come first among the variables.
    let variables = inputs.variables.values_mut().skip(special);
    messages.chain(lists).chain(variables).for_each(|value| mark_value(value, mark));
}

fn mark_value(value: &mut Value, mark: &dyn Fn(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(marked) = mark(text) {
                *text = marked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mark_value(item, mark)),
        Value::Object(fields) => fields.values_mut().for_each(|field| mark_value(field, mark)),
        _ => {}
    }
}

/// Calls `look` with every text within a value, but for the keys of objects.
pub(super) fn texts(value: &Value, look: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => look(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, look)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, look)),
        _ => {}
    }
}
