//! Digests of files that a setup names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use pref_data::DataError;

use crate::error::ExperimentError;

/// The kinds of files on which a model's address depends.
const MODEL_FILES: [&str; 4] = ["safetensors", "json", "jinja", "model"];

/// Returns the files of a model folder that determine it, with those of the base model of adapters.
pub(crate) fn model_files(folder: &Path) -> Result<Vec<PathBuf>, ExperimentError> {
    let mut folders = policy_model::model_folders(folder)?;
    folders.extend(Some(folder.join("additional_chat_templates")).filter(|named| named.is_dir()));
    let mut files = Vec::new();
    for folder in folders {
        let failed = || ExperimentError::io("cannot read the model folder", &folder);
        for entry in fs::read_dir(&folder).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if path.is_file() && MODEL_FILES.contains(&ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Returns a digest of the names and contents of files.
pub(crate) fn digest(files: &[PathBuf]) -> Result<String, ExperimentError> {
    let mut hasher = blake3::Hasher::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
        let failed = || |source| DataError::Io { action: "read", path: path.clone(), source };
        let file = File::open(path).map_err(failed())?;
        hasher.update(&file.metadata().map_err(failed())?.len().to_le_bytes());
        hasher.update_reader(file).map_err(failed())?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
