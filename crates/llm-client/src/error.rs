//! Permanent errors.

use std::io;
use std::path::PathBuf;

use crate::failure::Failure;

/// An error of this crate. None of them holds a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call failed in all of its attempts.
    #[error("{model} gave no answer in {attempts} {}", if *attempts == 1 { "attempt" } else { "attempts" })]
    Call {
        /// The model, or the address of a file.
        model: String,
        /// The number of attempts.
        attempts: u32,
        /// The failure of the last attempt.
        source: Failure,
    },
    /// The next call could exceed the budget.
    #[error(
        "stopped before the next call: {spent:.4} USD of {limit} USD are spent, and the call may cost {next:.4} USD; \
         what is done is kept: raise the limit and run again to go on"
    )]
    Budget {
        /// The cost so far, in USD.
        spent: f64,
        /// The budget, in USD.
        limit: f64,
        /// The maximum cost of the next call, in USD.
        next: f64,
    },
    /// A budget is set and the price of the model is unknown.
    #[error(
        "no price is known for model {model:?}, so no limit on costs can be kept: add the model to the prices"
    )]
    NoPrice {
        /// The model.
        model: String,
    },
    /// A request to stop came before the call.
    #[error("stopped before the next call; what is done is kept: run again to go on")]
    Stopped,
    /// A batch ended without results.
    #[error("the batch {id} is {status}: {problem}; run again to submit its calls in a new batch")]
    Batch {
        /// The server's id of the batch.
        id: String,
        /// The server's status of the batch.
        status: String,
        /// The server's reason.
        problem: String,
    },
    /// A call is part of a batch that is not collected.
    #[error(
        "the call is part of a batch that is not collected, and would be paid twice: run with batches to collect it, or \
         delete {} to give it up", path.display()
    )]
    OpenBatch {
        /// The batch's record.
        path: PathBuf,
    },
    /// A key is missing or cannot be sent.
    #[error("{}", secret_problem(variable.as_deref()))]
    Secret {
        /// The environment variable of the key.
        variable: Option<String>,
    },
    /// The address of an endpoint is invalid.
    #[error("{given:?} is no address of an endpoint: {problem}")]
    BaseUrl {
        /// The address, without a password.
        given: String,
        /// The mistake and its remedy.
        problem: String,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Setup {
        /// Its error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the cache or the ledger cannot be read or written.
    #[error("cannot {action} {}; check that the folder is writable and has space", path.display())]
    Io {
        /// The action: `read`, `write`, `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process uses the same folder.
    #[error("{} is in use by another process; wait for it, or give another folder", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A line of the ledger, or of a file of prices, is invalid.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The mistake.
        problem: String,
    },
    /// A setting is out of range, such as a limit of no requests.
    #[error("{what} is {given}; give {wanted}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// Its value.
        given: String,
        /// A correct value.
        wanted: &'static str,
    },
}

impl Error {
    /// Whether other input helps (exit status 2), and not another attempt.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::NoPrice { .. }
            | Self::OpenBatch { .. }
            | Self::Secret { .. }
            | Self::BaseUrl { .. }
            | Self::Line { .. }
            | Self::Setting { .. } => true,
            Self::Call { source, .. } => matches!(source, Failure::Refused { .. }),
            _ => false,
        }
    }
}

fn secret_problem(variable: Option<&str>) -> String {
    match variable {
        Some(variable) => {
            format!("environment variable {variable} holds no API key: set it to the key, without spaces")
        }
        None => "the API key is empty or holds characters that cannot be sent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn no_text_repeats_its_cause() {
        let refused = || Failure::Refused { status: 401, message: "the cause".to_owned() };
        let io = || io::Error::other("the cause");
        for error in [
            Error::Call { model: "m".to_owned(), attempts: 1, source: refused() },
            Error::Setup { source: "the cause".into() },
            Error::Io { action: "read", path: "x".into(), source: io() },
        ] {
            let cause = error.source().expect("it has a cause").to_string();
            assert!(cause.contains("the cause") && !error.to_string().contains("the cause"), "{error}");
        }
    }
}
