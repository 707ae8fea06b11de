//! A folder of peft's adapters in place of a model.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::PolicyError;

pub(crate) const CONFIG: &str = "adapter_config.json";
const BASE: &str = "base_model_name_or_path";

/// Returns the folders that determine a model's weights: `dir`, and that of the base model if `dir` has adapters of peft only.
///
/// # Errors
/// The base model of adapters is not found.
pub fn model_folders(dir: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    Ok([Some(dir.to_owned()), base_folder(dir)?].into_iter().flatten().collect())
}

/// Returns the folder of the base model if `dir` has adapters of peft and no model.
///
/// A relative path is looked up in `dir`, then in the working directory.
///
/// # Errors
/// The base model is not found.
pub fn base_folder(dir: &Path) -> Result<Option<PathBuf>, PolicyError> {
    if dir.join("config.json").exists() || !dir.join(CONFIG).exists() {
        return Ok(None);
    }
    let path = dir.join(CONFIG);
    let text = files::read_inside(dir, CONFIG).map_err(PolicyError::io("read", &path))?;
    let json: Value =
        serde_json::from_slice(&text).map_err(|source| PolicyError::Json { path: path.clone(), source })?;
    let Some(name) = json.get(BASE).and_then(Value::as_str) else {
        return Err(PolicyError::MissingField { path, field: BASE });
    };
    let places = [dir.join(name), PathBuf::from(name)];
    // Adapters over adapters are a chain that no trainer writes.
    match places.into_iter().find(|place| place.join("config.json").exists()) {
        Some(base) => Ok(Some(base)),
        None => Err(PolicyError::InvalidField {
            path,
            field: BASE.to_owned(),
            value: Value::from(name).to_string(),
            expected: "the folder of a model; fetch the base model, and set it to that folder".to_owned(),
        }),
    }
}
