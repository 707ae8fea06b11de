//! The error of this crate.

use std::io;
use std::path::PathBuf;

/// Why a table, figure or page is not rendered or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// An unknown format.
    #[error("unknown format {given:?}; use one of text, md, csv, tex, json")]
    UnknownFormat {
        /// The given name.
        given: String,
    },
    /// An id or a name that cannot be a file's name.
    #[error("{name:?} cannot name a file; use letters, digits, `-`, `_` and `.`, not starting with `.`")]
    FileName {
        /// The id or name.
        name: String,
    },
    /// Two tables or figures that would be written to one file.
    #[error("{name:?} names two files of one kind; give each its own")]
    SameName {
        /// The id or name.
        name: String,
    },
    /// An error of the file system.
    #[error("cannot {action} {}; check that the folder exists, is writable and has space", path.display())]
    Io {
        /// The failed action: `read`, `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
}
