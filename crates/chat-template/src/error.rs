//! What can go wrong with a chat template.

/// An error of a chat template, with the line at which it occurs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct TemplateError {
    /// The line of the template, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong at a line of a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The template is not valid Jinja.
    #[error("{0}")]
    Syntax(String),
    /// The template refuses the conversation with `raise_exception`.
    #[error("{0}")]
    Raised(String),
    /// An operation is not defined for its values, as in Python.
    #[error("{0}")]
    Value(String),
    /// The template needs too much work or memory.
    #[error("{0}; chat templates end early at this limit")]
    Limit(&'static str),
    /// The template asks for the date and none is given.
    #[error("it asks for the date (`strftime_now`), and none is given")]
    NoDate,
}

pub(crate) type Result<T> = std::result::Result<T, Problem>;

/// An operation that Python does not define for its values.
pub(crate) fn value_error<T>(message: impl Into<String>) -> Result<T> {
    Err(Problem::Value(message.into()))
}
