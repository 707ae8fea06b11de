//! Errors.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tokenizer could not be trained from the demonstrations.
    #[error("cannot train the sandbox tokenizer on {dialogues} dialogues")]
    TrainTokenizer {
        /// How many dialogues it was trained on.
        dialogues: usize,
        /// The error of the `tokenizers` crate.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file or its folder could not be written.
    #[error("cannot write {path}: check that the folder can be created and the disk has room", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: std::io::Error,
    },
}
