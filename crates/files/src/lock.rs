//! Advisory locks between processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// An exclusive lock on a file, released on drop and when the process ends.
#[derive(Debug)]
#[must_use = "the lock is released on drop"]
pub struct Lock {
    _file: File,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process holds the lock.
    #[error("{} is locked by another process", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file cannot be created or locked.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock on `path`, or fails at once if another process holds it. Creates the file if necessary.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] or [`LockError::Io`].
    pub fn try_exclusive(path: &Path) -> Result<Self, LockError> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(LockError::Io { path: path.to_owned(), source }),
        }
    }

    /// Takes the lock on `path`. Calls `waiting` once and blocks if another process holds it.
    ///
    /// # Errors
    ///
    /// [`LockError::Io`].
    pub fn exclusive(path: &Path, waiting: impl FnOnce()) -> Result<Self, LockError> {
        match Self::try_exclusive(path) {
            Err(LockError::Held { path }) => {
                waiting();
                let file = open(&path)?;
                file.lock().map_err(|source| LockError::Io { path, source })?;
                Ok(Self { _file: file })
            }
            other => other,
        }
    }
}

fn open(path: &Path) -> Result<File, LockError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| LockError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::try_exclusive(&path).unwrap();
        assert!(matches!(Lock::try_exclusive(&path), Err(LockError::Held { .. })));
        drop(held);
        let mut waited = false;
        let _held = Lock::exclusive(&path, || waited = true).unwrap();
        assert!(!waited);
    }
}
