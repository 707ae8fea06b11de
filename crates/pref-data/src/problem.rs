//! Problems of files and fields.

use crate::text::quoted;

/// A problem of a file as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// Git left the pointer to a large file instead of the file.
    #[error("is a Git LFS pointer and not the data; fetch the data with `git lfs pull`")]
    LfsPointer,
    /// A server answered with a page.
    #[error("is a web page or XML and not the data; download the file itself")]
    WebPage,
    /// The file is an archive, or compressed in another way than gzip.
    #[error("is {kind}, whatever its name; unpack it, or compress it with gzip")]
    Archive {
        /// The kind.
        kind: &'static str,
    },
    /// Text is UTF-16.
    #[error("is UTF-16; save it as UTF-8")]
    Utf16,
    /// A JSON object extends over several lines.
    #[error(
        "holds one JSON object over several lines; write an array of objects or one object a line, for example with \
         pandas' `to_json(path, orient=\"records\", lines=True)`"
    )]
    OneObject,
    /// `data.columns` names a column that is not there.
    #[error("data.columns names `{column}`, which is not there; the columns are {}", quoted(columns))]
    MissingColumn {
        /// The name.
        column: String,
        /// The columns of the file.
        columns: Vec<String>,
    },
    /// A column holds images, video or audio.
    #[error(
        "column `{column}`: images, video and audio are not supported; remove the column if it is not needed"
    )]
    Media {
        /// The column.
        column: String,
    },
    /// A `DatasetDict` has several splits, none of them `train`.
    #[error("holds the splits {}, none of them `train`; give the folder of one", quoted(splits))]
    NoTrainSplit {
        /// The splits.
        splits: Vec<String>,
    },
}

/// A problem of a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldProblem {
    /// The field is not there or null.
    #[error("is missing; add it")]
    Missing,
    /// No column of the file is recognized as this one.
    #[error("is missing; the columns are {}; {}", quoted(columns), advice(*format))]
    NoColumn {
        /// The columns.
        columns: Vec<String>,
        /// The format that has these columns.
        format: Option<&'static str>,
    },
    /// `data.columns` names a column that the row does not have.
    #[error("is not there, but data.columns names it; the columns are {}", quoted(columns))]
    NotAColumn {
        /// The columns.
        columns: Vec<String>,
    },
    /// The field has another type.
    #[error("is {found}; it must be {expected}")]
    WrongType {
        /// The right type.
        expected: &'static str,
        /// The type.
        found: &'static str,
    },
    /// A label or a rating that the format does not know.
    #[error("is {found:?}; it must be {expected}")]
    UnknownLabel {
        /// The label.
        found: String,
        /// The labels that the format knows.
        expected: &'static str,
    },
    /// The field is empty.
    #[error("is empty; fill it or remove the record")]
    Empty,
    /// A response consists of the text or turns that both responses begin with.
    #[error("is empty after the text that both responses begin with; give the prompt in a field `prompt`")]
    EmptyAfterPrompt,
    /// The text is Python's text of a list.
    #[error(
        "is Python's text of a list of messages; write parquet or JSON lines, for example with `datasets.to_json`"
    )]
    PythonText,
    /// The row is an unpaired preference.
    #[error(
        "belongs to an unpaired preference, which only loss.kind = \"kto\" can use; give `chosen` and `rejected`"
    )]
    Unpaired,
    /// Another column holds a response, too.
    #[error("also holds a response, next to `{used}`; name the one to read in data.columns.completion")]
    SecondResponse {
        /// The other column.
        used: String,
    },
    /// The row has another layout than earlier rows.
    #[error("belongs to {found}, but earlier rows are {earlier}; give each layout a file of its own")]
    OtherLayout {
        /// The layout of the row.
        found: &'static str,
        /// The layout of earlier rows.
        earlier: &'static str,
    },
    /// The field holds images, video or audio.
    #[error(
        "is set: images, video and audio are not supported; remove the record, or the field if it is not needed"
    )]
    Media,
    /// A part of a message is not text.
    #[error("is {found:?}; only parts of type \"text\" are supported")]
    NotText {
        /// The type of the part, or what it holds.
        found: String,
    },
    /// The `from` of a `ShareGPT` message is unknown.
    #[error("is {from:?}; it must be human, gpt, system or tool")]
    UnknownSender {
        /// The sender.
        from: String,
    },
    /// The last message of a response is not the assistant's.
    #[error("ends with a message that is not the assistant's; end it with the answer")]
    NotAnAnswer,
    /// Prompt and response have different forms.
    #[error("is {found}, but `{other}` is {other_found}; give both as text or both as lists of messages")]
    Mixed {
        /// Its form.
        found: &'static str,
        /// The field with another form.
        other: &'static str,
        /// That field's form.
        other_found: &'static str,
    },
    /// A dialogue of hh-rlhf has no turn of the assistant.
    #[error("has no \"\\n\\nAssistant:\" to split at; use format `pairs` for data of another shape")]
    NoAssistantTurn,
    /// Two dialogues of hh-rlhf differ before the first turn of the assistant.
    #[error(
        "shares no \"\\n\\nAssistant:\" with `chosen`; remove the pair, its dialogues have no prompt in common"
    )]
    NoSharedTurn,
    /// The format has no such field.
    #[error(
        "is not a field of a record; the fields are id, prompt, responses, labels, domain, tools, chat_template_kwargs and \
         documents{}", layout_hint(*format)
    )]
    Unknown {
        /// The format that has these columns.
        format: Option<&'static str>,
    },
    /// A record has fewer than two responses.
    #[error("holds {found}; a preference needs at least two")]
    TooFewResponses {
        /// The number of responses.
        found: usize,
    },
    /// A label names a response that does not exist.
    #[error("prefers response {index}, but the record has {responses}, counted from 0; correct the label")]
    LabelOutOfRange {
        /// The label.
        index: usize,
        /// The number of responses.
        responses: usize,
    },
}

fn layout_hint(format: Option<&str>) -> String {
    format.map_or_else(String::new, |format| {
        format!("; data.format = \"{format}\" (--layout {format}) has such columns")
    })
}

fn advice(format: Option<&str>) -> String {
    match format {
        Some(format) => format!("data.format = \"{format}\" has such columns"),
        None => "name its column in data.columns".to_owned(),
    }
}
