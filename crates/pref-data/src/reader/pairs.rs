//! Rows of pairs: prompt, chosen and rejected, as text or messages in any mix.

use std::collections::BTreeMap;

use serde_json::Value;

use super::column_roles::{CONVERSATIONS, ColumnRole, Found, PairColumns, is_empty};
use super::fields::{self, Row, context, fault, label_of, message};
use super::notes::Notes;
use crate::error::DataError;
use crate::message::Message;
use crate::place::Place;
use crate::problem::FieldProblem;
use crate::record::{DEFAULT_ANNOTATOR, Label, PreferenceRecord, Text};
use crate::text::shared_start;

/// Columns that are read whatever the roles.
const OTHERS: [&str; 3] = ["tools", "chat_template_kwargs", "documents"];

/// Columns that belong to the prompt in some sets, and are read in none.
const PROMPT_PARTS: [&str; 5] = ["history", "context", "system_message", "passage", "background"];

/// Columns of what is not text. They refuse a record unless they are empty.
pub(super) const MEDIA: [&str; 6] = ["images", "image", "videos", "video", "audios", "audio"];

/// Returns the columns that mean something here.
pub(super) fn columns(named: &PairColumns) -> Vec<&str> {
    let roles = ColumnRole::ALL.into_iter().flat_map(|role| named.candidates(role));
    roles.chain(OTHERS).chain(MEDIA).collect()
}

/// One row of a file of pairs.
pub(super) struct PairRow<'a> {
    pub(super) place: &'a Place,
    pub(super) row: &'a Row,
    pub(super) named: &'a PairColumns,
    /// The columns of the whole table; those of the row where it is empty.
    pub(super) header: &'a [String],
    pub(super) notes: &'a mut Notes,
}

/// The layout of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowLayout {
    Paired,
    /// One response with a label.
    Unpaired,
    /// One response without a label.
    Demonstration,
}

/// The parts of a pair before they have one form.
struct Parts {
    prompt: Option<Text>,
    system: Option<String>,
    chosen: Text,
    rejected: Text,
}

/// Prompt, chosen and rejected in one form.
type Pair = (Text, Text, Text);

/// Prompt, chosen and rejected as messages.
type Conversation = (Vec<Message>, Vec<Message>, Vec<Message>);

/// Reads a pair.
pub(super) fn record(mut row: PairRow<'_>) -> Result<PreferenceRecord, DataError> {
    row.check_media()?;
    if row.layout() == Some(RowLayout::Unpaired) {
        return Err(fault(row.place, "completion", FieldProblem::Unpaired));
    }
    let chosen = row.required(ColumnRole::Chosen)?;
    let rejected = row.required(ColumnRole::Rejected)?;
    let (prompt, system) = row.prompt()?;
    row.note_left();
    let (prompt, chosen, rejected) = row.pair(Parts { prompt, system, chosen, rejected })?;
    for (role, response) in [(ColumnRole::Chosen, &chosen), (ColumnRole::Rejected, &rejected)] {
        row.check_answer(role, response, &prompt)?;
    }
    Ok(PreferenceRecord {
        id: row.id(),
        prompt,
        responses: vec![chosen, rejected],
        labels: chosen_is_first(),
        domain: row.label(ColumnRole::Domain),
        context: context(row.row),
    })
}

/// Returns the label of a pair: the only annotator prefers the first response.
pub(super) fn chosen_is_first() -> BTreeMap<String, Label> {
    BTreeMap::from([(DEFAULT_ANNOTATOR.to_owned(), Label::Prefers(0))])
}

impl<'a> PairRow<'a> {
    pub(super) fn find(&self, role: ColumnRole) -> Option<Found<'a>> {
        self.named.find(self.row, role)
    }

    /// Returns the layout that the columns of the row show, if any.
    pub(super) fn layout(&self) -> Option<RowLayout> {
        if self.find(ColumnRole::Chosen).is_some() || self.find(ColumnRole::Rejected).is_some() {
            return Some(RowLayout::Paired);
        }
        let has_label = self.find(ColumnRole::Label).is_some();
        let has_answer =
            self.find(ColumnRole::Completion).is_some() || self.named.find_answered(self.row).is_some();
        has_answer.then_some(if has_label { RowLayout::Unpaired } else { RowLayout::Demonstration })
    }

    /// Reads a conversation that ends with the model's answer.
    pub(super) fn answered(&mut self) -> Result<Option<Vec<Message>>, DataError> {
        let Some(found) = self.named.find_answered(self.row) else { return Ok(None) };
        self.notes.read_as(ColumnRole::Prompt, found.column);
        Ok(Some(answer(fields::text(self.place, found.column, found.value)?)))
    }

    pub(super) fn id(&self) -> String {
        self.label(ColumnRole::Id).unwrap_or_else(|| self.place.number.to_string())
    }

    pub(super) fn label(&self, role: ColumnRole) -> Option<String> {
        self.find(role).map(|found| label_of(found.value))
    }

    pub(super) fn check_media(&self) -> Result<(), DataError> {
        let is_there = |name: &&&str| match self.row.get(**name) {
            None | Some(Value::Null) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        match MEDIA.iter().find(is_there) {
            Some(name) => Err(fault(self.place, *name, FieldProblem::Media)),
            None => Ok(()),
        }
    }

    /// Reads the text or messages of a role that must be there.
    pub(super) fn required(&mut self, role: ColumnRole) -> Result<Text, DataError> {
        match self.find(role) {
            Some(found) => self.text(role, found),
            None => Err(self.missing(role)),
        }
    }

    fn text(&mut self, role: ColumnRole, found: Found<'_>) -> Result<Text, DataError> {
        self.notes.read_as(role, found.column);
        let (place, field) = (self.place, found.column);
        match found.value {
            Value::String(text) if is_python(text) => Err(fault(place, field, FieldProblem::PythonText)),
            Value::String(text) => match messages_in(text) {
                Some(value) => {
                    self.notes.json_texts += 1;
                    fields::text(place, field, &value)
                }
                None => Ok(Text::Plain(text.clone())),
            },
            // LLaMA-Factory writes a response as one message.
            Value::Object(fields) if fields.contains_key("role") || fields.contains_key("from") => {
                Ok(Text::Chat(vec![message(place, field, found.value)?]))
            }
            value => fields::text(place, field, value),
        }
    }

    /// Returns the error for a role that no cell of the row plays.
    pub(super) fn missing(&self, role: ColumnRole) -> DataError {
        if let Some(column) = self.named.find_empty(self.row, role) {
            return fault(self.place, column, FieldProblem::Empty);
        }
        let name = self.named.candidates(role).next().unwrap_or(role.name());
        let columns = self.columns();
        let problem = if columns.iter().any(|column| column == name) {
            FieldProblem::Missing
        } else if self.named.chosen_names().any(|named| named == name) {
            FieldProblem::NotAColumn { columns }
        } else {
            FieldProblem::NoColumn { format: format_of(&columns), columns }
        };
        fault(self.place, name, problem)
    }

    fn columns(&self) -> Vec<String> {
        if self.header.is_empty() { self.row.keys().cloned().collect() } else { self.header.to_vec() }
    }

    /// Reads the prompt and the system message.
    pub(super) fn prompt(&mut self) -> Result<(Option<Text>, Option<String>), DataError> {
        let found = self.find(ColumnRole::Prompt);
        let mut prompt = found.map(|found| self.text(ColumnRole::Prompt, found)).transpose()?;
        let takes_input =
            self.named.input.is_some() || found.is_some_and(|found| found.column == "instruction");
        if let (true, Some(Text::Plain(prompt)), Some(input)) =
            (takes_input, &mut prompt, self.find(ColumnRole::Input))
        {
            self.notes.read_as(ColumnRole::Input, input.column);
            let text = fields::string(self.place, input.column, input.value)?;
            prompt.push('\n');
            prompt.push_str(&text);
        }
        if prompt.is_none()
            && let Some(column) = self.named.find_empty(self.row, ColumnRole::Prompt)
            && matches!(self.row[column], Value::String(_))
        {
            return Err(fault(self.place, column, FieldProblem::Empty));
        }
        if let Some(Text::Chat(messages)) = &prompt
            && messages.iter().all(Message::is_empty)
        {
            let field = found.map_or("prompt", |found| found.column);
            return Err(fault(self.place, field, FieldProblem::Empty));
        }
        let system = match self.find(ColumnRole::System) {
            Some(found) => {
                self.notes.read_as(ColumnRole::System, found.column);
                Some(fields::string(self.place, found.column, found.value)?)
            }
            None => None,
        };
        Ok((prompt, system))
    }

    /// Notes columns that look like a part of the prompt, and are not read.
    fn note_left(&mut self) {
        let Some(prompt) = self.find(ColumnRole::Prompt) else { return };
        let system = self.find(ColumnRole::System).map(|found| found.column);
        let input = if prompt.column == "instruction" { Some("input") } else { self.named.input.as_deref() };
        let names = ColumnRole::Prompt.names().iter().chain(ColumnRole::System.names());
        for &column in names.filter(|name| !CONVERSATIONS.contains(name)) {
            let is_read = column == prompt.column || Some(column) == system || Some(column) == input;
            let holds_other = |value: &&Value| !is_empty(value) && **value != *prompt.value;
            if !is_read && self.row.get(column).filter(holds_other).is_some() {
                self.notes.left.insert(column);
            }
        }
        // The cells of these are not parsed.
        let is_chosen = |column: &str| self.named.chosen_names().any(|name| name == column);
        let is_there =
            |column: &str| self.row.contains_key(column) || self.header.iter().any(|name| name == column);
        self.notes
            .left
            .extend(PROMPT_PARTS.into_iter().filter(|column| is_there(column) && !is_chosen(column)));
    }

    /// Brings the parts into one form, and takes the prompt from the responses where they contain it.
    fn pair(&mut self, parts: Parts) -> Result<Pair, DataError> {
        match (parts.prompt, parts.system, parts.chosen, parts.rejected) {
            (Some(Text::Plain(prompt)), None, Text::Plain(chosen), Text::Plain(rejected)) => {
                let repeats = |response: &str| !prompt.trim().is_empty() && response.starts_with(&prompt);
                self.notes.repeated_prompt += usize::from(repeats(&chosen) && repeats(&rejected));
                Ok((Text::Plain(prompt), Text::Plain(chosen), Text::Plain(rejected)))
            }
            (None, None, Text::Plain(chosen), Text::Plain(rejected)) => self.shared_text(&chosen, &rejected),
            (prompt, system, chosen, rejected) => {
                let is_text = |text: &Text| matches!(text, Text::Plain(_));
                let text_responses = [&chosen, &rejected].into_iter().filter(|text| is_text(text)).count();
                let prompt_is_text = prompt.as_ref().map(is_text);
                let (chosen, rejected) = (answer(chosen), answer(rejected));
                let whole = whole(&chosen, &rejected);
                let has_messages = text_responses < 2 || prompt_is_text == Some(false);
                let is_mixed = has_messages && text_responses > 0
                    || text_responses < 2 && prompt_is_text == Some(true) && whole.is_none();
                self.notes.text_as_message += usize::from(is_mixed);
                let (prompt, chosen, rejected) = self.conversation(prompt, chosen, rejected, whole)?;
                let prompt = with_system(prompt, system);
                Ok((Text::Chat(prompt), Text::Chat(chosen), Text::Chat(rejected)))
            }
        }
    }

    fn conversation(
        &mut self,
        prompt: Option<Text>,
        chosen: Vec<Message>,
        rejected: Vec<Message>,
        whole: Option<usize>,
    ) -> Result<Conversation, DataError> {
        let shared = whole.unwrap_or(0);
        match prompt {
            Some(Text::Chat(prompt)) if chosen.starts_with(&prompt) && rejected.starts_with(&prompt) => {
                self.split(prompt.len(), chosen, rejected)
            }
            // Whole conversations may begin with a system message that the prompt does not have.
            Some(Text::Chat(prompt)) if whole.is_some() && chosen[..shared].ends_with(&prompt) => {
                self.split(shared, chosen, rejected)
            }
            Some(Text::Chat(prompt)) => Ok((prompt, chosen, rejected)),
            Some(Text::Plain(text)) if whole.is_some() => {
                let says = |message: &Message| message.content().contains(text.trim());
                self.notes.prompt_left += usize::from(!chosen[..shared].iter().any(says));
                self.split(shared, chosen, rejected)
            }
            Some(Text::Plain(text)) => Ok((vec![Message::user(text)], chosen, rejected)),
            None if whole.is_some() => self.split(shared, chosen, rejected),
            None => Err(self.missing(ColumnRole::Prompt)),
        }
    }

    fn split(
        &self,
        shared: usize,
        mut chosen: Vec<Message>,
        mut rejected: Vec<Message>,
    ) -> Result<Conversation, DataError> {
        let (better, worse) = (chosen.split_off(shared), rejected.split_off(shared));
        for (role, rest) in [(ColumnRole::Chosen, &better), (ColumnRole::Rejected, &worse)] {
            if rest.is_empty() {
                return Err(fault(self.place, self.name(role), FieldProblem::EmptyAfterPrompt));
            }
        }
        Ok((chosen, better, worse))
    }

    /// Takes the prompt from the text that both responses begin with, as TRL does.
    fn shared_text(&mut self, chosen: &str, rejected: &str) -> Result<Pair, DataError> {
        let prompt = shared_text(chosen, rejected);
        if prompt.is_empty() {
            return Err(self.missing(ColumnRole::Prompt));
        }
        let rest = |role: ColumnRole, text: &str| match &text[prompt.len()..] {
            "" => Err(fault(self.place, self.name(role), FieldProblem::EmptyAfterPrompt)),
            rest => Ok(Text::Plain(rest.to_owned())),
        };
        let (better, worse) = (rest(ColumnRole::Chosen, chosen)?, rest(ColumnRole::Rejected, rejected)?);
        let read: Vec<&str> = [ColumnRole::Chosen, ColumnRole::Rejected, ColumnRole::Id, ColumnRole::Domain]
            .into_iter()
            .filter_map(|role| Some(self.find(role)?.column))
            .collect();
        let columns = self.columns();
        self.notes.shared_prompt(prompt, || {
            columns.into_iter().filter(|column| !read.contains(&column.as_str())).collect()
        });
        Ok((Text::Plain(prompt.to_owned()), better, worse))
    }

    pub(super) fn check_answer(
        &self,
        role: ColumnRole,
        response: &Text,
        prompt: &Text,
    ) -> Result<(), DataError> {
        response
            .check_answer(self.name(role), prompt)
            .map_err(|(field, problem)| fault(self.place, field, problem))
    }

    /// Returns the column of a role.
    fn name(&self, role: ColumnRole) -> &'a str {
        self.find(role).map_or(role.name(), |found| found.column)
    }
}

/// Returns how many turns two whole conversations share before their responses; `None` for responses alone.
fn whole(chosen: &[Message], rejected: &[Message]) -> Option<usize> {
    let shared = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
    // Of two equal conversations the last message is the response.
    let is_same = shared == chosen.len() && shared == rejected.len();
    let shared = if is_same { shared.saturating_sub(1) } else { shared };
    // Whole conversations begin with the system or the user.
    (shared > 0 && chosen[0].role() != "assistant").then_some(shared)
}

/// Returns the messages of a response: text is what the model says.
pub(super) fn answer(text: Text) -> Vec<Message> {
    match text {
        Text::Plain(text) => vec![Message::assistant(text)],
        Text::Chat(messages) => messages,
    }
}

/// Puts the system message before a prompt that does not begin with one.
pub(super) fn with_system(mut prompt: Vec<Message>, system: Option<String>) -> Vec<Message> {
    if let Some(system) = system
        && prompt.first().is_none_or(|first| first.role() != "system")
    {
        prompt.insert(0, Message::system(system));
    }
    prompt
}

/// Returns the longest beginning that both texts share, less one space at its end: a token begins with its space.
fn shared_text<'a>(a: &'a str, b: &str) -> &'a str {
    let shared = shared_start(a, b);
    shared.strip_suffix(' ').unwrap_or(shared)
}

/// Whether a text is Python's text of messages, as `to_csv` writes a column of lists.
fn is_python(text: &str) -> bool {
    let start = text.trim_start();
    let start = start.strip_prefix("array(").unwrap_or(start);
    let key = start.strip_prefix('[').unwrap_or(start).strip_prefix("{'");
    key.is_some_and(|key| ["role'", "content'", "from'", "value'"].iter().any(|name| key.starts_with(name)))
}

/// Returns the messages of a text that is JSON of messages.
fn messages_in(text: &str) -> Option<Value> {
    let is_list = text.trim_start().starts_with('[') && text.trim_end().ends_with(']');
    if !is_list || !(text.contains("\"role\"") || text.contains("\"from\"")) {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let is_message =
        |item: &Value| ["role", "from"].iter().any(|key| item.get(key).is_some_and(Value::is_string));
    value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(is_message)).then_some(value)
}

/// Returns the format that columns belong to, where it is another one.
pub(super) fn format_of(columns: &[String]) -> Option<&'static str> {
    const KNOWN: [(&str, &[&str]); 4] = [
        ("shp", &["history", "human_ref_A", "human_ref_B"]),
        ("gair", &["query", "response_1", "response_2"]),
        ("ultrafeedback", &["instruction", "completions"]),
        ("sandbox", &["prompt", "responses", "labels"]),
    ];
    let has = |name: &&str| columns.iter().any(|column| column == name);
    KNOWN.into_iter().find(|(_, names)| names.iter().all(has)).map(|(format, _)| format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lists_of_messages_are_taken_for_python_or_json() {
        for text in [
            "[{'role': 'user', 'content': 'x'}]",
            "  [{'content': \"it's\"}\n {'role': 1}]",
            "array([{'from': 'x'}])",
        ] {
            assert!(is_python(text), "{text}");
        }
        for text in ["[{'a': 1}]", "use {'role'} here", "['role']", ""] {
            assert!(!is_python(text), "{text}");
        }
        assert!(messages_in("[{\"role\": \"user\", \"content\": \"x\"}]").is_some());
        for text in ["[]", "[1, \"role\"]", "[{\"role\": 1}]", "[{\"role\": \"a\"} and more]", "\"role\""] {
            assert!(messages_in(text).is_none(), "{text}");
        }
    }
}
