//! Sources of scores: a path, and the arm and seed that it belongs to.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;

/// A file or folder of scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file; or a study's folder, a folder of FastChat's, or a folder with lm-evaluation-harness samples.
    pub path: PathBuf,
    /// The arm of all its scores, in place of the one that the file names.
    pub arm: Option<String>,
    /// The training seed of all its scores.
    pub seed: Option<String>,
}

impl FromStr for Source {
    type Err = Infallible;

    /// Parses `PATH`, `ARM=PATH` or `ARM@SEED=PATH`, where SEED is a number. An existing path is a path.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let plain = Self { path: text.into(), arm: None, seed: None };
        let Some((name, path)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Ok(plain);
        };
        if Path::new(text).exists() {
            return Ok(plain);
        }
        let is_number = |seed: &str| !seed.is_empty() && seed.bytes().all(|byte| byte.is_ascii_digit());
        let (arm, seed) = match name.rsplit_once('@') {
            Some((arm, seed)) if is_number(seed) => (arm, Some(seed.to_owned())),
            _ => (name, None),
        };
        Ok(Self { path: path.into(), arm: Some(arm.to_owned()), seed })
    }
}

impl Source {
    /// Returns the files of the source.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>, Error> {
        if !self.path.is_dir() {
            return Ok(vec![self.path.clone()]);
        }
        let results = self.path.join("results.parquet");
        if results.is_file() {
            return Ok(vec![results]);
        }
        let mut found = Vec::new();
        collect(&self.path, 3, &mut found)?;
        found.sort();
        if found.is_empty() {
            return Err(Error::File {
                path: self.path.clone(),
                problem: "the folder has neither results.parquet nor samples_*.jsonl nor *_single.jsonl; name a file"
                    .to_owned(),
            });
        }
        Ok(found)
    }
}

/// Collects samples of lm-evaluation-harness and judgments of FastChat.
fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if depth > 1 {
                collect(&path, depth - 1, found)?;
            }
        } else if (name.starts_with("samples_") && name.ends_with(".jsonl"))
            || name.ends_with("_single.jsonl")
        {
            found.push(path);
        }
    }
    Ok(())
}
