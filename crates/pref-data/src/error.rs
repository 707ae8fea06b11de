//! What can go wrong between a file of preferences and a batch of tokens.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The error of a library that reports with a boxed one.
pub type BoxedError = Box<dyn Error + Send + Sync>;

/// An error of this crate: what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The name of a file says nothing about what is in it.
    #[error("{}: cannot tell the file's kind from its name; name it {expected}", path.display())]
    UnknownExtension {
        /// The file.
        path: PathBuf,
        /// The endings that are known for this format.
        expected: &'static str,
    },
    /// A file holds no record at all.
    #[error("{}: holds no records; check that it was written completely", path.display())]
    NoRecords {
        /// The file.
        path: PathBuf,
    },
    /// A line is not the JSON that it should be.
    #[error("{place}: {}; every line must hold one whole JSON object", describe_json_error(source))]
    Json {
        /// The line.
        place: Place,
        /// What the parser says, with the column.
        #[source]
        source: serde_json::Error,
    },
    /// A field is missing or holds something that cannot be used.
    #[error("{place}: field `{field}` {problem}")]
    Field {
        /// The line or row.
        place: Place,
        /// The field, with indices: `chosen[1].content`.
        field: String,
        /// What is wrong with it and what to do.
        problem: FieldProblem,
    },
    /// A record that was not read from a file cannot be used.
    #[error("record `{id}`: field `{field}` {problem}")]
    Record {
        /// The record.
        id: String,
        /// The field, with indices.
        field: String,
        /// What is wrong with it and what to do.
        problem: FieldProblem,
    },
    /// Two records share an identifier.
    #[error("{place}: id `{id}` was already used at {}; give every record its own id", first.seen_from(place))]
    DuplicateId {
        /// The later of the two.
        place: Place,
        /// The identifier.
        id: String,
        /// The earlier one.
        first: Place,
    },
    /// A file breaks off or cannot be unpacked.
    #[error("{place}: cannot be read: {source}; the file may be cut off or damaged, so fetch it again")]
    Broken {
        /// The line where it happens.
        place: Place,
        /// What reading or unpacking says.
        #[source]
        source: io::Error,
    },
    /// A page of a parquet file or a batch of an Arrow file is damaged.
    #[error("{place} or a few rows later: {source}; the file is damaged, so fetch it again")]
    BrokenRow {
        /// The first row that could not be read.
        place: Place,
        /// What the reader says.
        #[source]
        source: BoxedError,
    },
    /// A row of a CSV file has more or fewer cells than the first, or cannot be read.
    #[error("{place}: {source}; every row must have the cells that the first row names")]
    Csv {
        /// The line where the row begins.
        place: Place,
        /// What the CSV reader says.
        #[source]
        source: csv::Error,
    },
    /// A cell is not UTF-8.
    #[error("{place}: field `{field}` is not UTF-8: {source}; save the file as UTF-8")]
    Encoding {
        /// The line where the row begins.
        place: Place,
        /// The column.
        field: String,
        /// What is wrong.
        #[source]
        source: std::str::Utf8Error,
    },
    /// An Arrow file could not be read.
    #[error(
        "{}: {source}; Arrow files are read with LZ4 or no compression only, so write others anew, for example with \
         `pyarrow.feather.write_feather(table, path, compression=\"lz4\")`",
        path.display()
    )]
    Arrow {
        /// The file.
        path: PathBuf,
        /// What the Arrow reader says.
        #[source]
        source: arrow_schema::ArrowError,
    },
    /// A line that never ends.
    #[error("{place}: is longer than {most} bytes; a file of JSON lines has one record a line")]
    LongLine {
        /// The line.
        place: Place,
        /// The longest that is read.
        most: u64,
    },
    /// A parquet file could not be read.
    #[error(
        "{}: {source}; parquet is read with snappy, zstd, gzip or no compression, so rewrite other files, for example with \
         pandas' `to_parquet(path, compression=\"snappy\")`",
        path.display()
    )]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the parquet reader says.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A column of a parquet file is of a kind that no format here has.
    #[error(
        "{}: column `{column}` is {found}; it must be text, a number, or lists and structs of these",
        path.display()
    )]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The column's arrow type.
        found: String,
    },
    /// An annotator is asked for who labelled nothing.
    #[error(
        "no record carries a label of annotator `{annotator}`; the annotators here are: {}",
        names(known)
    )]
    UnknownAnnotator {
        /// Who was asked for.
        annotator: String,
        /// Who labelled something, by name.
        known: Vec<String>,
    },
    /// A share lies outside its range.
    #[error("{name} is {value}; it must lie in {range}")]
    OutOfRange {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// Where it should lie.
        range: &'static str,
    },
    /// A source of labels that says nothing.
    #[error(
        "is {text:?}; name an annotator, or write \"majority of A, B, C\", \"majority of all\" or \"70% A, 30% B\""
    )]
    LabelSource {
        /// What it says.
        text: String,
    },
    /// A slice of agreement that says nothing.
    #[error(
        "is {text:?}; it must be \"A = B\" or \"A != B\" with two annotators, such as \"human != gpt-4-turbo\""
    )]
    AgreementSlice {
        /// What it says.
        text: String,
    },
    /// A filter of SHP's pairs that says nothing.
    #[error("is {text:?}; it must be \"> N\" or \">= N\", such as \"> 2\"")]
    ScoreRatio {
        /// What it says.
        text: String,
    },
    /// A file of a model folder could not be understood.
    #[error("{}: {source}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: BoxedError,
    },
    /// A special token is named in a model folder that its vocabulary does not have.
    #[error(
        "{}: {name} is {token:?}, which tokenizer.json does not know; add it there or name another token",
        path.display()
    )]
    UnknownSpecialToken {
        /// The file that names it.
        path: PathBuf,
        /// Its role: `eos_token`.
        name: &'static str,
        /// The token.
        token: String,
    },
    /// Plain text is to be ended with a token that the tokenizer does not define.
    #[error(
        "{} defines no eos_token, which ends a plain-text response; add \"eos_token\" to tokenizer_config.json",
        folder.display()
    )]
    NoEosToken {
        /// The model folder.
        folder: PathBuf,
    },
    /// Messages are to be rendered without a template.
    #[error(
        "{} has no chat template, so messages cannot be rendered; put chat_template.jinja into the folder, or give \
         prompt and responses as plain text",
        folder.display()
    )]
    NoTemplate {
        /// The model folder.
        folder: PathBuf,
    },
    /// A chat template does not parse, or fails on a conversation.
    #[error("the chat template of {} fails{}", folder.display(), date_hint(source))]
    Template {
        /// The model folder.
        folder: PathBuf,
        /// What the template raises, and at which of its lines.
        #[source]
        source: chat_template::TemplateError,
    },
    /// What a template is given is not what templates take.
    #[error("`{field}` {problem}")]
    TemplateInput {
        /// The field of the record: `tools`, `documents`, `chat_template_kwargs`, `messages`.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A pair that cannot be rendered or tokenized.
    #[error("record `{id}`")]
    Pair {
        /// The pair's identifier.
        id: String,
        /// What is wrong.
        #[source]
        source: Box<DataError>,
    },
    /// A control token that is also what its text gives.
    #[error(
        "the tokenizer of {} makes {token:?} of its plain text too, so it cannot be sanitized; set \
         data.sanitize_control_tokens = false",
        folder.display()
    )]
    CannotSanitize {
        /// The model folder.
        folder: PathBuf,
        /// The token.
        token: String,
    },
    /// Text could not be turned into tokens.
    #[error("cannot tokenise text with the tokenizer of {}: {source}", folder.display())]
    Encode {
        /// The model folder.
        folder: PathBuf,
        /// What the tokenizer says.
        #[source]
        source: BoxedError,
    },
    /// Tokens could not be turned into text.
    #[error("cannot turn tokens into text with the tokenizer of {}: {source}", folder.display())]
    Decode {
        /// The model folder.
        folder: PathBuf,
        /// What the tokenizer says.
        #[source]
        source: BoxedError,
    },
    /// A pair has nothing that its first response token could be predicted from.
    #[error(
        "pair `{id}`: the prompt gives no token that both responses follow, so their first tokens cannot be scored; \
         start the prompt with some text, or use a tokenizer that adds a beginning-of-sequence token"
    )]
    EmptyPrompt {
        /// The pair.
        id: String,
    },
    /// A response gives no token.
    #[error("pair `{id}`: the {response} response gives no token; remove the pair or fill the response")]
    EmptyResponse {
        /// The pair.
        id: String,
        /// `chosen` or `rejected`.
        response: &'static str,
    },
    /// A prompt is messages and its response text, or the other way round.
    #[error(
        "pair `{id}`: prompt and responses must be all plain text or all messages; bring them to one form"
    )]
    MixedForms {
        /// The pair.
        id: String,
    },
    /// A pair has JSON that a table of text columns does not hold.
    #[error(
        "pair `{id}`: messages with keys other than role and content, tools, documents and template arguments do not fit \
         a table; write .jsonl"
    )]
    NotTabular {
        /// The pair.
        id: String,
    },
    /// A length limit leaves no room for a prompt token and a response token.
    #[error(
        "max_length is {max_length}; it must be at least 2: one token of the prompt, one of the response"
    )]
    MaxLength {
        /// The limit.
        max_length: usize,
    },
    /// A limit on prompts leaves them or the responses no room.
    #[error(
        "max_prompt_length is {max_prompt_length}; it must be at least 1 and below max_length, which is {max_length}"
    )]
    MaxPromptLength {
        /// The limit on prompts.
        max_prompt_length: usize,
        /// The limit on prompt and response.
        max_length: usize,
    },
    /// A file of tokens cannot be used.
    #[error("{}: {source}; remove the file, and the tokens are made again", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// A dialogue has no token that training could learn from.
    #[error(
        "no token of the dialogue is scored: it has no assistant message, or none within max_length ({max_length}); \
         add one or raise max_length"
    )]
    NothingScored {
        /// The limit.
        max_length: usize,
    },
    /// A dialogue's beginning is rendered differently once more turns follow.
    #[error(
        "the chat template of {} renders message {message} of a dialogue differently once later messages follow, so \
         its tokens cannot be told apart; split the dialogue so that only its last assistant message is learnt",
        folder.display()
    )]
    UnstableTemplate {
        /// The model folder.
        folder: PathBuf,
        /// Index of the message.
        message: usize,
    },
    /// A batch of nothing.
    #[error("a batch needs at least one sequence")]
    EmptyBatch,
}

impl DataError {
    /// The error as that of a pair, where it says nothing of one itself and other pairs may be sound.
    pub(crate) fn of_pair(self, id: &str) -> Self {
        match self {
            Self::Template { .. }
            | Self::TemplateInput { .. }
            | Self::Encode { .. }
            | Self::CannotSanitize { .. } => Self::Pair { id: id.to_owned(), source: Box::new(self) },
            other => other,
        }
    }

    /// Whether other pairs may be sound, so that this one can be left out.
    pub(crate) fn is_of_one_pair(&self) -> bool {
        match self {
            Self::Pair { source, .. } => match &**source {
                Self::Template { source, .. } => source.problem != chat_template::Problem::NoDate,
                _ => true,
            },
            Self::EmptyPrompt { .. } | Self::EmptyResponse { .. } => true,
            _ => false,
        }
    }

    /// The message with those of its causes.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        text
    }
}

/// A line of a text file or a row of a parquet file, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// Whether its records stand in lines or rows.
    pub unit: Unit,
    /// Which one, from 1.
    pub number: usize,
}

/// What a file's records stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Lines of text.
    Line,
    /// Rows of a table.
    Row,
}

impl Place {
    /// Its name for somebody who reads about `other`: without the file where that is the same.
    fn seen_from(&self, other: &Self) -> String {
        if self.path == other.path { format!("{} {}", self.unit, self.number) } else { self.to_string() }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Line => "line",
            Self::Row => "row",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} {}", self.path.display(), self.unit, self.number)
    }
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldProblem {
    /// It is not there.
    #[error("is missing; add it")]
    Missing,
    /// It is of another type.
    #[error("is {found}; it must be {expected}")]
    WrongType {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A label or a rating that is none of those that the format knows.
    #[error("is {found:?}; it must be {expected}")]
    UnknownLabel {
        /// What it says.
        found: String,
        /// What it may say.
        expected: &'static str,
    },
    /// It holds nothing.
    #[error("is empty; fill it or remove the record")]
    Empty,
    /// Nothing is left of a response after the prompt that both share is taken off.
    #[error("is empty after the text that both responses begin with; give the prompt in a field `prompt`")]
    EmptyAfterPrompt,
    /// A response's last message is not the model's.
    #[error("ends with a message that is not the assistant's; end it with the answer")]
    NotAnAnswer,
    /// A prompt is messages and a response text, or the other way round.
    #[error("is {found}, but `{other}` is {other_found}; give both as text or both as lists of messages")]
    Mixed {
        /// What it is.
        found: &'static str,
        /// The field it does not go with.
        other: &'static str,
        /// What that one is.
        other_found: &'static str,
    },
    /// A dialogue of hh-rlhf without a turn of the assistant.
    #[error("has no \"\\n\\nAssistant:\" to split at; use format `pairs` for data of another shape")]
    NoAssistantTurn,
    /// Two dialogues of hh-rlhf that part before the assistant first speaks.
    #[error(
        "shares no \"\\n\\nAssistant:\" with `chosen`; remove the pair, its dialogues have no prompt in common"
    )]
    NoSharedTurn,
    /// A field that this format does not have.
    #[error(
        "is not a field of a record; the fields are id, prompt, responses, labels, domain, tools, chat_template_kwargs and \
         documents"
    )]
    Unknown,
    /// A record with fewer than two responses.
    #[error("holds {found}; a preference needs at least two")]
    TooFewResponses {
        /// How many there are.
        found: usize,
    },
    /// A label names a response that is not there.
    #[error("prefers response {index}, but the record has {responses}, counted from 0; correct the label")]
    LabelOutOfRange {
        /// The label.
        index: usize,
        /// How many responses there are.
        responses: usize,
    },
}

/// What to do about a missing date.
fn date_hint(error: &chat_template::TemplateError) -> &'static str {
    match error.problem {
        chat_template::Problem::NoDate => {
            "; set data.date (or --date) to a day, \"today\", or \"none\" for a template that has a branch without date"
        }
        _ => "",
    }
}

/// A parser's error without the line, which within a line is always the first.
fn describe_json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(problem) if error.column() > 0 => format!("{problem} at column {}", error.column()),
        Some(problem) => problem.to_owned(),
        None => text,
    }
}

fn names(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}
