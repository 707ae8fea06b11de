//! The store: what was computed, addressed by the content of everything that determines it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StudyError;

/// Part of every address: raised when the meaning of stored results changes.
const VERSION: &str = "study store v1";

/// A folder of results in which nothing is ever overwritten with something else.
///
/// `world-KEY/` holds what a study starts from, `runs/KEY/` training runs, `answers/KEY/` answers that any judge may rate,
/// `scores/KEY/` evaluations, `failed/KEY.json` why one of them could not be had, `reference/` the reference's log-probabilities, `tokens/` tokenised pairs, `judge-calls/JUDGE/` what
/// an endpoint said. A key is the hash of what determines the content, so a second study of the same cells finds them, and a
/// changed recipe never does.
#[derive(Clone, Debug)]
pub struct ResultStore {
    root: PathBuf,
}

/// The address of a result: the hash of what determines it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Key(String);

impl Key {
    /// The address of what `parts` determine; the order of parts matters, their boundaries are kept.
    pub fn of(parts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [VERSION].iter().chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        Self(hasher.finalize().to_hex()[..16].to_owned())
    }

    /// The address as text: 16 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ResultStore {
    /// The store in folder `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder that holds what a study starts from.
    pub fn world(&self, key: &Key) -> PathBuf {
        self.root.join(format!("world-{}", key.as_str()))
    }

    /// The folder of a training run.
    pub fn run(&self, key: &Key) -> PathBuf {
        self.root.join("runs").join(key.as_str())
    }

    /// The folder of an evaluation.
    pub fn scores(&self, key: &Key) -> PathBuf {
        self.root.join("scores").join(key.as_str())
    }

    /// The folder of a policy's answers.
    pub fn answers(&self, key: &Key) -> PathBuf {
        self.root.join("answers").join(key.as_str())
    }

    /// The note that a run or an evaluation failed.
    pub(crate) fn failure(&self, key: &Key) -> PathBuf {
        self.root.join("failed").join(format!("{}.json", key.as_str()))
    }

    /// The folder of what a judge behind an endpoint said and was paid; judges' names are names of files.
    pub fn judge_calls(&self, judge: &str) -> PathBuf {
        self.root.join("judge-calls").join(judge)
    }

    /// The store's folder, below which training keeps what its runs share.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Makes the folder `target` by letting `fill` write a sibling that is then renamed: it appears whole or not at all.
pub(crate) fn create_folder<T>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<T, StudyError>,
) -> Result<T, StudyError> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(StudyError::io("cannot create", parent))?;
    let partial = tempfile::Builder::new()
        .prefix(".partial-")
        .tempdir_in(parent)
        .map_err(StudyError::io("cannot create a folder in", parent))?;
    let made = fill(partial.path())?;
    files::fault::point("files.create_dir.filled");
    match fs::rename(partial.path(), target) {
        // Another worker made the same folder meanwhile, with the same content by construction.
        Err(_) if target.exists() => {}
        renamed => renamed.map_err(StudyError::io("cannot create", target))?,
    }
    files::fault::point("files.create_dir.renamed");
    Ok(made)
}

/// Reads a JSON file; `None` where there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StudyError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StudyError::io("cannot read", path)(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StudyError::io("cannot read", path)(error)),
    }
}

/// Writes a JSON file whole or not at all.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StudyError> {
    let json =
        serde_json::to_vec_pretty(value).map_err(|e| StudyError::io("cannot write", path)(e.into()))?;
    write_file(path, &json)
}

/// Writes a file whole or not at all.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<(), StudyError> {
    let failed = || StudyError::io("cannot write", path);
    let mut file = atomic_write_file::AtomicWriteFile::open(path).map_err(failed())?;
    file.write_all(content).map_err(failed())?;
    files::fault::point("files.write.written");
    file.commit().map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_boundaries_of_their_parts() {
        assert_eq!(Key::of(&["a", "b"]), Key::of(&["a", "b"]));
        assert_ne!(Key::of(&["a", "b"]), Key::of(&["ab"]));
        assert_ne!(Key::of(&["a", "b"]), Key::of(&["b", "a"]));
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("x/y");
        let failed: Result<(), _> = create_folder(&target, |partial| {
            fs::write(partial.join("half"), "…").unwrap();
            Err(StudyError::Stopped)
        });
        assert!(failed.is_err());
        assert!(!target.exists());
        assert_eq!(fs::read_dir(root.path().join("x")).unwrap().count(), 0, "nothing half-written stays");
        create_folder(&target, |partial| {
            fs::write(partial.join("whole"), "1").map_err(StudyError::io("cannot write", partial))
        })
        .unwrap();
        assert_eq!(fs::read_to_string(target.join("whole")).unwrap(), "1");
    }
}
