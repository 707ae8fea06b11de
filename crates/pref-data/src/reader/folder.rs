//! Which files a path stands for.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::notes::Note;
use crate::error::DataError;
use crate::file_kind::kind;
use crate::problem::FileProblem;

/// The files of a path, and what else its folder holds.
pub(super) struct Files {
    pub(super) files: Vec<PathBuf>,
    /// Files and folders that are not read, by name.
    pub(super) left: Vec<String>,
    pub(super) notes: Vec<Note>,
}

/// Metadata that `datasets` writes beside the rows.
const METADATA: [&str; 4] = ["dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"];

/// The split that is read of several.
const TRAIN: &str = "train";

/// Returns the files that `path` stands for: itself, those of a folder, or those that fit a pattern.
pub(super) fn files(path: &Path) -> Result<Files, DataError> {
    let pattern = path.file_name().and_then(|name| name.to_str()).filter(|name| name.contains('*'));
    if path.is_dir() {
        return dataset_dict(path).unwrap_or_else(|| list(path, "*"));
    }
    match pattern.filter(|_| !path.exists()) {
        Some(pattern) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let found = list(folder.unwrap_or(Path::new(".")), pattern)?;
            Ok(Files { left: Vec::new(), ..found })
        }
        None => Ok(Files { files: vec![path.to_owned()], left: Vec::new(), notes: Vec::new() }),
    }
}

/// The index of a `DatasetDict` on disk.
#[derive(Deserialize)]
struct Splits {
    splits: Vec<String>,
}

/// Lists one split of a `DatasetDict`; `None` for another folder.
fn dataset_dict(folder: &Path) -> Option<Result<Files, DataError>> {
    let index = fs::read_to_string(folder.join("dataset_dict.json")).ok()?;
    let Splits { splits } = serde_json::from_str(&index).ok()?;
    let read = match &splits[..] {
        [only] => only,
        splits => match splits.iter().find(|split| *split == TRAIN) {
            Some(train) => train,
            None => {
                let problem = FileProblem::NoTrainSplit { splits: splits.to_vec() };
                return Some(Err(DataError::File { path: folder.to_owned(), problem }));
            }
        },
    };
    let left: Vec<String> = splits.iter().filter(|split| *split != read).cloned().collect();
    // A name from a file must not lead out of the folder.
    let name = Path::new(read).file_name()?;
    let notes = if left.is_empty() { Vec::new() } else { vec![Note::Split { read: read.clone(), left }] };
    Some(list(&folder.join(name), "*").map(|found| Files { notes, ..found }))
}

/// The index of a `Dataset` on disk.
#[derive(Deserialize)]
struct State {
    #[serde(rename = "_data_files")]
    files: Vec<DataFile>,
}

#[derive(Deserialize)]
struct DataFile {
    filename: String,
}

/// Returns the data files of a `Dataset` on disk. Its folder may also hold caches, which repeat the rows.
fn data_files(folder: &Path) -> Option<Vec<String>> {
    let index = fs::read_to_string(folder.join("state.json")).ok()?;
    let State { files } = serde_json::from_str(&index).ok()?;
    (!files.is_empty()).then(|| files.into_iter().map(|file| file.filename).collect())
}

/// Lists the files of a folder whose name fits, by name.
fn list(folder: &Path, pattern: &str) -> Result<Files, DataError> {
    let failed = |source| DataError::Io { action: "read", path: folder.to_owned(), source };
    let (mut files, mut left) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_hidden = name.starts_with(['.', '_']) || METADATA.contains(&name.as_str());
        if is_hidden || !fits(&name, pattern) {
            continue;
        }
        if path.is_dir() {
            left.push(format!("{name}/"));
        } else if kind(&path).is_some() {
            files.push(path);
        } else {
            left.push(name);
        }
    }
    if let Some(names) = data_files(folder) {
        let is_data =
            |path: &PathBuf| names.iter().any(|name| path.file_name().is_some_and(|file| file == &**name));
        let (data, caches): (Vec<_>, Vec<_>) = files.into_iter().partition(is_data);
        left.extend(caches.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())));
        files = data;
    }
    files.sort();
    left.sort();
    Ok(Files { files, left, notes: Vec::new() })
}

/// Whether a name fits a pattern in which `*` stands for any text.
fn fits(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| fits(&name[at..], rest))
        }),
    }
}
