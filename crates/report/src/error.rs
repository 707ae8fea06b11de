//! The error of this crate.

use std::io;
use std::path::PathBuf;

/// Why a table, figure or page cannot be rendered or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The format is unknown.
    #[error("unknown format {given:?}; use one of text, md, csv, tex, json")]
    UnknownFormat {
        /// The given name.
        given: String,
    },
    /// The id or name is not a valid file name.
    #[error("{name:?} cannot name a file; use letters, digits, `-`, `_` and `.`, not starting with `.`")]
    FileName {
        /// The id or name.
        name: String,
    },
    /// Two tables or figures have the same file.
    #[error("{name:?} names two files of one kind; give each its own")]
    SameName {
        /// The id or name.
        name: String,
    },
    /// An error of the file system.
    #[error("cannot {action} {}; check that the folder exists, is writable and has space", path.display())]
    Io {
        /// The operation, such as `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
}
