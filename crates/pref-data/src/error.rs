//! Errors.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use crate::place::{Place, Places};
use crate::problem::{FieldProblem, FileProblem};
use crate::text::quoted;

/// The error of a library that reports with a boxed one.
pub type BoxedError = Box<dyn Error + Send + Sync>;

/// An error of this crate: the problem, its place, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The action: "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
    /// A model folder has no `tokenizer.json`.
    #[error("{} has no tokenizer.json; {remedy}", folder.display())]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// The end of a file's name is not known.
    #[error("{}: the end of the name does not give the kind of file; it must be {expected}", path.display())]
    UnknownExtension {
        /// The file.
        path: PathBuf,
        /// The endings that this format can have.
        expected: &'static str,
    },
    /// A file or folder holds no record.
    #[error("{}: holds no records{}", path.display(), hint_of_left(left))]
    NoRecords {
        /// The file.
        path: PathBuf,
        /// Files and folders of the folder that were not read.
        left: Vec<String>,
    },
    /// Columns of pairs are named for another format.
    #[error("columns can only be named for the format of pairs; choose that or name none")]
    UnusedColumns,
    /// A file as a whole cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The problem and what to do.
        problem: FileProblem,
    },
    /// A row is not a JSON object.
    #[error("{place}: {problem}; a row must be one whole JSON object")]
    Json {
        /// The line.
        place: Place,
        /// The parser's message, with the field and the column of the line.
        problem: String,
    },
    /// A field is missing or holds something that cannot be used.
    #[error("{place}: field `{field}` {problem}")]
    Field {
        /// The line or row.
        place: Place,
        /// The field, with indices: `chosen[1].content`.
        field: String,
        /// The problem and what to do.
        problem: FieldProblem,
    },
    /// A record that was not read from a file cannot be used.
    #[error("record `{id}`: field `{field}` {problem}")]
    Record {
        /// The record.
        id: String,
        /// The field, with indices.
        field: String,
        /// The problem and what to do.
        problem: FieldProblem,
    },
    /// A file is cut off or cannot be decompressed.
    #[error("{place}: cannot be read: {problem}; the file may be cut off or damaged, so fetch it again")]
    Broken {
        /// The line where it happens.
        place: Place,
        /// The message of the decompressor or the file system.
        problem: String,
    },
    /// A page of a parquet file or a batch of an Arrow file is damaged.
    #[error("{place} or a few rows later: the file is damaged; fetch it again")]
    BrokenRow {
        /// The first row that could not be read.
        place: Place,
        /// The reader's error.
        #[source]
        source: BoxedError,
    },
    /// A row of a CSV or TSV file cannot be read.
    #[error("{place}: {problem}; every row must have the cells that the first row names")]
    Cells {
        /// The line where the row begins.
        place: Place,
        /// The problem.
        problem: String,
    },
    /// A cell is not UTF-8.
    #[error("{place}: field `{field}` is not UTF-8 from byte {byte} on; save the file as UTF-8")]
    Encoding {
        /// The line where the row begins.
        place: Place,
        /// The column.
        field: String,
        /// The first byte that is not UTF-8, from 1.
        byte: usize,
    },
    /// An Arrow file cannot be read.
    #[error(
        "{}: cannot be read as Arrow; files with LZ4, zstd or no compression are read, so write others anew, for \
         example with `pyarrow.feather.write_feather(table, path, compression=\"lz4\")`",
        path.display()
    )]
    Arrow {
        /// The file.
        path: PathBuf,
        /// The Arrow reader's error.
        #[source]
        source: arrow_schema::ArrowError,
    },
    /// A row is longer than the limit.
    #[error("{place}: is longer than {most} bytes; write one record a row")]
    LongRow {
        /// The line.
        place: Place,
        /// The limit.
        most: u64,
    },
    /// A parquet file cannot be read.
    #[error(
        "{}: cannot be read as parquet; files with snappy, zstd, gzip or no compression are read, so write others anew, \
         for example with pandas' `to_parquet(path, compression=\"snappy\")`",
        path.display()
    )]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The parquet reader's error.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A column of a table has a type that is not supported.
    #[error(
        "{}: column `{column}` is {found}; it must be text, a number, or lists and structs of these",
        path.display()
    )]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The column's Arrow type.
        found: String,
    },
    /// No record has a label of the annotator.
    #[error(
        "no record carries a label of annotator `{annotator}`; the annotators here are: {}",
        names(known)
    )]
    UnknownAnnotator {
        /// The annotator.
        annotator: String,
        /// The annotators of the records.
        known: Vec<String>,
    },
    /// A value is outside its range.
    #[error("{name} is {value}; it must lie in {range}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The range.
        range: &'static str,
    },
    /// The text of a [`LabelSource`](crate::LabelSource) cannot be understood.
    #[error(
        "is {text:?}; name an annotator, or write \"majority of A, B, C\", \"majority of all\" or \"70% A, 30% B\""
    )]
    LabelSource {
        /// The text.
        text: String,
    },
    /// The text of an [`AgreementSlice`](crate::AgreementSlice) cannot be understood.
    #[error(
        "is {text:?}; it must be \"A = B\" or \"A != B\" with two annotators, such as \"human != gpt-4-turbo\""
    )]
    AgreementSlice {
        /// The text.
        text: String,
    },
    /// The text of a [`ScoreRatio`](crate::ScoreRatio) cannot be understood.
    #[error("is {text:?}; it must be \"> N\" or \">= N\", such as \"> 2\"")]
    ScoreRatio {
        /// The text.
        text: String,
    },
    /// A file of a model folder cannot be parsed.
    #[error("cannot use {}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: BoxedError,
    },
    /// The vocabulary does not have a special token that the model folder names.
    #[error(
        "{}: {name} is {token:?}, which tokenizer.json does not know; add it there or name another token",
        path.display()
    )]
    UnknownSpecialToken {
        /// The file that names the token.
        path: PathBuf,
        /// Its role: `eos_token`.
        name: &'static str,
        /// The token.
        token: String,
    },
    /// The tokenizer has no end-of-sequence token for plain text.
    #[error(
        "{} defines no eos_token, which ends a plain-text response; add \"eos_token\" to tokenizer_config.json",
        folder.display()
    )]
    NoEosToken {
        /// The model folder.
        folder: PathBuf,
    },
    /// The model folder has no chat template for messages.
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
    #[error("the chat template of {} fails{hint}", folder.display())]
    Template {
        /// The model folder.
        folder: PathBuf,
        /// What the template raises, and at which of its lines.
        #[source]
        source: chat_template::TemplateError,
        /// What to do, where that is known.
        hint: &'static str,
    },
    /// What a template is given is not what templates take.
    #[error("`{field}` {problem}")]
    TemplateInput {
        /// The field of the record: `tools`, `documents`, `chat_template_kwargs`, `messages`.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A record that cannot be rendered or tokenized.
    #[error("record `{id}`")]
    Example {
        /// The record's identifier.
        id: String,
        /// What is wrong.
        #[source]
        source: Box<DataError>,
    },
    /// A record of a file cannot be rendered or tokenized.
    #[error("{place}")]
    At {
        /// The record's line or row.
        place: Place,
        /// What is wrong, with the record's identifier.
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
    /// Text cannot be tokenized.
    #[error("cannot tokenize text with the tokenizer of {}", folder.display())]
    Encode {
        /// The model folder.
        folder: PathBuf,
        /// The tokenizer's error.
        #[source]
        source: BoxedError,
    },
    /// Tokens cannot be decoded.
    #[error("cannot decode tokens with the tokenizer of {}", folder.display())]
    Decode {
        /// The model folder.
        folder: PathBuf,
        /// The tokenizer's error.
        #[source]
        source: BoxedError,
    },
    /// A record has no prompt token from which its first response token can be predicted.
    #[error(
        "record `{id}`: the prompt gives no token that each response follows, so first tokens cannot be scored; \
         start the prompt with some text, or use a tokenizer that adds a beginning-of-sequence token"
    )]
    EmptyPrompt {
        /// The pair.
        id: String,
    },
    /// A response has no token.
    #[error("record `{id}`: the {response} response has no token; remove the record or fill the response")]
    EmptyResponse {
        /// The pair.
        id: String,
        /// `chosen`, `rejected` or `only`.
        response: &'static str,
    },
    /// Prompt and responses have different forms.
    #[error(
        "record `{id}`: prompt and responses must be all plain text or all messages; bring them to one form"
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
    /// A limit on prompts leaves no room for prompts or responses.
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
    #[error("cannot read the tokens in {}; remove the file, and they are computed again", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A dialogue has no token to train on.
    #[error(
        "no token of the dialogue is scored: it has no assistant message, or none within max_length ({max_length}); \
         add one or raise max_length"
    )]
    NothingScored {
        /// The limit.
        max_length: usize,
    },
    /// The rendering of a dialogue's beginning depends on later turns.
    #[error(
        "the chat template of {} renders message {message} of a dialogue differently once later messages follow, so \
         its tokens cannot be distinguished; split the dialogue so that only its last assistant message is learnt",
        folder.display()
    )]
    UnstableTemplate {
        /// The model folder.
        folder: PathBuf,
        /// Index of the message.
        message: usize,
    },
    /// A batch has no sequence.
    #[error("a batch needs at least one sequence")]
    EmptyBatch,
}

impl DataError {
    /// Creates the error of a chat template of `folder`.
    pub(crate) fn template(folder: &Path, source: chat_template::TemplateError) -> Self {
        let hint = match source.problem {
            chat_template::Problem::NoDate => {
                "; set data.date (or --date) to a day, \"today\", or \"none\" for a template that has a branch without date"
            }
            _ => "",
        };
        Self::Template { folder: folder.to_owned(), source, hint }
    }

    /// Attributes the error to a record, if it names none and other records may be valid.
    pub(crate) fn of_record(self, id: &str) -> Self {
        match self {
            Self::Template { .. }
            | Self::TemplateInput { .. }
            | Self::Encode { .. }
            | Self::CannotSanitize { .. } => Self::Example { id: id.to_owned(), source: Box::new(self) },
            other => other,
        }
    }

    /// Returns the identifier of the only example at fault; `None` if other examples may fail, too.
    pub(crate) fn id_of_one(&self) -> Option<&str> {
        match self {
            Self::Example { id, source } => match &**source {
                Self::Template { source, .. } if source.problem == chat_template::Problem::NoDate => None,
                _ => Some(id),
            },
            Self::EmptyPrompt { id } | Self::EmptyResponse { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Adds the place of the record at fault, if the error names a record that is known.
    #[must_use]
    pub fn located(self, places: &Places) -> Self {
        let id = match &self {
            Self::Example { id, .. }
            | Self::EmptyPrompt { id }
            | Self::EmptyResponse { id, .. }
            | Self::MixedForms { id } => id,
            _ => return self,
        };
        match places.of(id).cloned() {
            Some(place) => Self::At { place, source: Box::new(self) },
            None => self,
        }
    }

    /// Returns the message with those of its causes.
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

/// What to do about a missing date.
fn hint_of_left(left: &[String]) -> String {
    if left.is_empty() {
        "; check that it was written completely".to_owned()
    } else {
        format!(" that can be read; it holds {}", quoted(left))
    }
}

fn names(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}
