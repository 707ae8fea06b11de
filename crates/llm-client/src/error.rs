//! What can go wrong, for good.

use std::io;
use std::path::PathBuf;

use crate::Failure;

/// An error of this crate. None of them holds a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call failed and was not, or no longer, worth another attempt.
    #[error("{model} gave no answer in {attempts} {}", if *attempts == 1 { "attempt" } else { "attempts" })]
    Call {
        /// The model that was asked.
        model: String,
        /// How often it was asked.
        attempts: u32,
        /// What the last attempt failed with.
        source: Failure,
    },
    /// The next call could cost more than is left.
    #[error(
        "stopped before the next call: {spent:.4} USD of {limit} USD are spent, and the call may cost {next:.4} USD; \
         what is done is kept: raise the limit and run again to go on"
    )]
    Budget {
        /// What was spent, in USD.
        spent: f64,
        /// The most that may be spent, in USD.
        limit: f64,
        /// The most that the next call can cost, in USD.
        next: f64,
    },
    /// A limit on costs is set and nobody knows what the model costs.
    #[error(
        "no price is known for model {model:?}, so no limit on costs can be kept: add the model to the prices"
    )]
    NoPrice {
        /// The model.
        model: String,
    },
    /// Somebody asked to stop before the call was made.
    #[error("stopped before the next call; what is done is kept: run again to go on")]
    Stopped,
    /// No key, or none that can be sent.
    #[error("{}", secret_problem(variable.as_deref()))]
    Secret {
        /// The environment variable that was looked at.
        variable: Option<String>,
    },
    /// The address of an endpoint makes no sense.
    #[error("{given:?} is no address of an endpoint: {problem}")]
    BaseUrl {
        /// The address as it was given.
        given: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Setup {
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the cache or the ledger cannot be read or written.
    #[error("cannot {action} {}; check that the folder is writable and has space", path.display())]
    Io {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process works with the same folder.
    #[error("{} is in use by another process; wait for it, or give another folder", path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
    },
    /// A line of the ledger, or a file of prices, is not what it should be.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A number that makes no sense, such as a limit of no requests.
    #[error("{what} is {given}; give {wanted}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// Its value.
        given: String,
        /// What would be right.
        wanted: &'static str,
    },
}

impl Error {
    /// Whether the user can mend it by saying something else (exit status 2), not by trying again.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::NoPrice { .. }
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
