//! Batches on disk. A batch has its record before it is at the server, so that a later process goes on with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::RequestKey;
use crate::error::Error;

/// The folder of records and input files in a client's folder.
const FOLDER: &str = "batches";

/// The folder of the batches of one client.
#[derive(Clone, Debug)]
pub(crate) struct BatchStore {
    folder: PathBuf,
}

/// A batch, as far as it is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BatchRecord {
    /// Its number in the folder.
    pub(crate) number: u64,
    /// The server's address.
    pub(crate) address: String,
    /// The model of all its requests.
    pub(crate) model: String,
    /// The progress.
    pub(crate) stage: Stage,
    /// The keys of its requests.
    pub(crate) keys: Vec<String>,
    /// The maximum cost in USD, if the price is known.
    pub(crate) most_usd: Option<f64>,
}

/// The progress of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The input file is uploaded. The server may have the batch.
    Uploaded {
        /// The id of the input file.
        file: String,
    },
    /// The server has the batch.
    Created {
        /// The id of the input file.
        file: String,
        /// The id of the batch.
        batch: String,
    },
    /// The results are received.
    Collected {
        /// The id of the batch.
        batch: String,
        /// Its status at the end.
        status: String,
    },
}

impl BatchRecord {
    /// Whether the server has, or may have, an uncollected batch.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Collected { .. })
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = RequestKey> {
        self.keys.iter().filter_map(|digits| RequestKey::from_digits(digits))
    }
}

impl BatchStore {
    pub(crate) fn new(client_folder: &Path) -> Self {
        Self { folder: client_folder.join(FOLDER) }
    }

    pub(crate) fn record_path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:06}.json"))
    }

    /// Returns all records by number. A damaged record is an error: its batch may be at the server.
    pub(crate) fn records(&self) -> Result<Vec<BatchRecord>, Error> {
        let failed = |path: &Path, source| Error::Io { action: "read", path: path.to_owned(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>().map_err(|e| failed(&self.folder, e))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(&self.folder, error)),
        };
        let paths = entries.iter().map(fs::DirEntry::path);
        let paths = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
        let read = |path: PathBuf| files::read_checked_json(&path).map_err(|source| failed(&path, source));
        let mut records = paths.map(read).collect::<Result<Vec<BatchRecord>, _>>()?;
        records.sort_by_key(|record| record.number);
        Ok(records)
    }

    pub(crate) fn save(&self, record: &BatchRecord) -> Result<(), Error> {
        let path = self.record_path(record.number);
        fs::create_dir_all(&self.folder)
            .and_then(|()| files::write_checked_json(&path, record))
            .map_err(|source| Error::Io { action: "write", path, source })
    }

    /// Removes the record of a batch that the server does not have.
    pub(crate) fn remove(&self, number: u64) -> Result<(), Error> {
        let path = self.record_path(number);
        fs::remove_file(&path).map_err(|source| Error::Io { action: "remove", path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_record_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = BatchStore::new(folder.path());
        assert_eq!(store.records().unwrap(), []);
        let stage = Stage::Created { file: "f".to_owned(), batch: "b".to_owned() };
        let record = BatchRecord {
            number: 2,
            address: "http://a".to_owned(),
            model: "m".to_owned(),
            stage,
            keys: vec!["0".repeat(64), "x".to_owned()],
            most_usd: None,
        };
        store.save(&record).unwrap();
        store.save(&BatchRecord { number: 1, ..record.clone() }).unwrap();
        let records = store.records().unwrap();
        assert_eq!((records[1].clone(), records.len(), record.keys().count()), (record, 2, 1));
        store.remove(1).unwrap();
        let path = store.record_path(2);
        let damaged = fs::read_to_string(&path).unwrap().replace("\"b\"", "\"c\"");
        fs::write(&path, damaged).unwrap();
        assert!(matches!(store.records(), Err(Error::Io { action: "read", .. })));
    }
}
