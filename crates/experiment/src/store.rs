//! The store: results under addresses that hash everything that determines them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ExperimentError;

/// The version of the layout and of all keys. Raise it when the meaning of stored results changes.
const LAYOUT: u32 = 2;
/// The file of the store that names its layout.
const LAYOUT_FILE: &str = "layout";

/// A folder of results that are never overwritten.
///
/// | folder | content |
/// |---|---|
/// | `source-KEY/` | what the runs start from |
/// | `runs/KEY/` | training runs |
/// | `answers/KEY/` | answers, which any judge may rate |
/// | `scores/KEY/` | evaluations |
/// | `failed/KEY.json` | the reason of a failure |
/// | `begun/KEY.json` | an evaluation that is being computed, or whose processes died |
/// | `reference/` | log-probabilities of the reference |
/// | `tokens/` | tokenized pairs |
/// | `judge-calls/JUDGE/` | replies of an endpoint |
///
/// A key hashes what determines the content. A second experiment with the same cells therefore finds them, and one with
/// another setup does not.
#[derive(Clone, Debug)]
pub struct ResultStore {
    root: PathBuf,
}

/// The address of a result: a hash of what determines it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Key(String);

impl Key {
    /// Returns the address of a result of this `kind` that `content` determines.
    ///
    /// The hash covers the layout's version, the kind, and the JSON of `content`, field names included.
    pub fn of(kind: &str, content: &impl Serialize) -> Self {
        let json = serde_json::to_vec(&(LAYOUT, kind, content)).expect("keys have string field names");
        Self(blake3::hash(&json).to_hex()[..16].to_owned())
    }

    /// Returns the address as 16 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ResultStore {
    /// Opens the store in the folder `root`, which need not exist.
    ///
    /// # Errors
    ///
    /// [`ExperimentError::StoreLayout`] if the folder holds results of another layout.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ExperimentError> {
        let root = root.into();
        let path = root.join(LAYOUT_FILE);
        let found = match fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Replies of a judge, and files that a crash leaves, may precede the layout's version.
                let mut entries = fs::read_dir(&root).into_iter().flatten().flatten();
                let of_first_layout =
                    |name: &str| ["answers", "runs", "scores"].contains(&name) || name.starts_with("world-");
                if !entries.any(|entry| entry.file_name().to_str().is_some_and(of_first_layout)) {
                    return Ok(Self { root });
                }
                "1".to_owned()
            }
            Err(error) => return Err(ExperimentError::io("cannot read", path)(error)),
        };
        if found != LAYOUT.to_string() {
            return Err(ExperimentError::StoreLayout { store: root, found, expected: LAYOUT });
        }
        Ok(Self { root })
    }

    /// Writes the layout's version into a new store.
    pub(crate) fn create(&self) -> Result<(), ExperimentError> {
        let path = self.root.join(LAYOUT_FILE);
        if path.exists() { Ok(()) } else { write_file(&path, format!("{LAYOUT}\n").as_bytes()) }
    }

    /// Returns the folder of what the runs start from.
    pub fn source(&self, key: &Key) -> PathBuf {
        self.root.join(format!("source-{}", key.as_str()))
    }

    /// Returns the folder of a training run.
    pub fn run(&self, key: &Key) -> PathBuf {
        self.root.join("runs").join(key.as_str())
    }

    /// Returns the folder of an evaluation.
    pub fn scores(&self, key: &Key) -> PathBuf {
        self.root.join("scores").join(key.as_str())
    }

    /// Returns the folder of a policy's answers.
    pub fn answers(&self, key: &Key) -> PathBuf {
        self.root.join("answers").join(key.as_str())
    }

    /// Returns the file with the reason of a failure.
    pub(crate) fn failure(&self, key: &Key) -> PathBuf {
        self.root.join("failed").join(format!("{}.json", key.as_str()))
    }

    /// Returns the file that exists while an evaluation is computed.
    pub(crate) fn begun(&self, key: &Key) -> PathBuf {
        self.root.join("begun").join(format!("{}.json", key.as_str()))
    }

    /// Returns the folder of the replies and costs of an endpoint. Names of judges are valid file names.
    pub fn judge_calls(&self, judge: &str) -> PathBuf {
        self.root.join("judge-calls").join(judge)
    }

    /// Returns the folder of the store. Training keeps what runs share below it.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Creates the folder `target` atomically from what `fill` writes.
pub(crate) fn create_folder<T>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<T, ExperimentError>,
) -> Result<T, ExperimentError> {
    files::create_dir(target, |partial| fill(partial).map_err(Failed::Fill)).map_err(|failed| match failed {
        Failed::System(error) => ExperimentError::io("cannot create", target)(error),
        Failed::Fill(error) => error,
    })
}

/// Why a folder was not created.
enum Failed {
    System(io::Error),
    Fill(ExperimentError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Reads a JSON file; `None` if there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ExperimentError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| ExperimentError::io("cannot read", path)(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ExperimentError::io("cannot read", path)(error)),
    }
}

/// Writes a JSON file atomically.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ExperimentError> {
    let json =
        serde_json::to_vec_pretty(value).map_err(|e| ExperimentError::io("cannot write", path)(e.into()))?;
    write_file(path, &json)
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), ExperimentError> {
    files::write(path, content).map_err(ExperimentError::io("cannot write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_kind_field_names_and_boundaries() {
        assert_eq!(Key::of("run", &["a", "b"]), Key::of("run", &["a", "b"]));
        assert_ne!(Key::of("run", &["a", "b"]), Key::of("scores", &["a", "b"]));
        assert_ne!(Key::of("run", &["a", "b"]), Key::of("run", &["ab"]));
        assert_ne!(Key::of("run", &["a", "b"]), Key::of("run", &["b", "a"]));
    }

    #[test]
    fn a_folder_is_created_completely_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("x/y");
        let failed: Result<(), _> = create_folder(&target, |partial| {
            fs::write(partial.join("half"), "…").unwrap();
            Err(ExperimentError::Stopped)
        });
        assert!(matches!(failed, Err(ExperimentError::Stopped)));
        assert!(!target.exists());
        assert_eq!(fs::read_dir(root.path().join("x")).unwrap().count(), 0, "no temporary folder remains");
    }

    #[test]
    fn a_store_of_another_layout_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let store = ResultStore::open(&root).unwrap();
        store.create().unwrap();
        ResultStore::open(&root).unwrap();
        fs::remove_file(root.join(LAYOUT_FILE)).unwrap();
        ResultStore::open(&root).unwrap();
        fs::create_dir_all(root.join("runs")).unwrap();
        let refused = ResultStore::open(&root).unwrap_err();
        assert!(refused.is_bad_input());
        let words = refused.to_string();
        assert!(words.contains(&root.display().to_string()) && words.contains("layout 1"), "{words}");
        assert!(words.contains("judge-calls"), "paid replies can be kept: {words}");
        fs::write(root.join(LAYOUT_FILE), "3\n").unwrap();
        assert!(ResultStore::open(&root).unwrap_err().to_string().contains("layout 3"));
    }
}
