//! Replies on disk, addressed by their requests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::chat::{ChatRequest, Reply};
use crate::error::Error;

/// The key of a request: a hash of the server's address, of everything that is sent, and of the number of the repeat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey(String);

impl RequestKey {
    /// The key of `request` to the server at `address`.
    pub fn new(address: &str, request: &ChatRequest) -> Self {
        let asked = serde_json::to_vec(&(KEY_VERSION, address, request.body(), request.repeat))
            .expect("a request has string keys and finite numbers");
        Self(blake3::hash(&asked).to_hex().to_string())
    }

    /// Returns its hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The version of the key's format.
const KEY_VERSION: &str = "llm-client reply v1";

/// A folder of replies. Writes are atomic: every file is a complete reply.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

/// A reply on disk, with the data of its ledger row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) reply: Reply,
    #[serde(default)]
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) model: String,
    /// The price as a share of the list price: less than 1 for calls in batches.
    #[serde(default = "full_price", skip_serializing_if = "is_full_price")]
    pub(crate) price_share: f64,
}

/// The price of calls outside of batches.
pub(crate) const FULL_PRICE: f64 = 1.0;

fn full_price() -> f64 {
    FULL_PRICE
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_full_price(share: &f64) -> bool {
    *share == FULL_PRICE
}

impl Cache {
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Returns the reply to the request `key`, if it is on disk. A damaged file is none.
    pub(crate) fn get(&self, key: &RequestKey) -> Result<Option<Reply>, Error> {
        Ok(self.entry(key)?.map(|entry| entry.reply))
    }

    pub(crate) fn entry(&self, key: &RequestKey) -> Result<Option<Entry>, Error> {
        let path = self.path(key);
        match files::read_checked_json(&path) {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                tracing::warn!("the cached reply {} is damaged: its call is made again", path.display());
                Ok(None)
            }
            Err(source) => Err(Error::Io { action: "read", path, source }),
        }
    }

    pub(crate) fn put(&self, key: &RequestKey, entry: &Entry) -> Result<(), Error> {
        let path = self.path(key);
        files::write_checked_json(&path, entry).map_err(|source| Error::Io { action: "write", path, source })
    }

    /// Returns the keys of all replies, in no order.
    pub(crate) fn keys(&self) -> Result<Vec<RequestKey>, Error> {
        let list = |folder: &Path| match fs::read_dir(folder) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let unreadable = |source| Error::Io { action: "read", path: self.folder.clone(), source };
        let mut keys = Vec::new();
        for folder in list(&self.folder).map_err(unreadable)?.into_iter().filter(|path| path.is_dir()) {
            for path in list(&folder).map_err(unreadable)? {
                let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                if path.extension().is_some_and(|end| end == "json") && is_digest(stem) {
                    keys.push(RequestKey(stem.to_owned()));
                }
            }
        }
        Ok(keys)
    }

    fn path(&self, key: &RequestKey) -> PathBuf {
        self.folder.join(&key.as_str()[..2]).join(format!("{}.json", key.as_str()))
    }
}

/// Whether `name` is a BLAKE3 digest in hexadecimal digits.
fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl RequestKey {
    /// The key with these digits, as a ledger has them.
    pub(crate) fn from_digits(digits: &str) -> Option<Self> {
        is_digest(digits).then(|| Self(digits.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ChatMessage, ChatSampling};

    fn request() -> ChatRequest {
        ChatRequest {
            model: "m".to_owned(),
            messages: vec![ChatMessage::user("Hello?")],
            sampling: ChatSampling::greedy(8),
            repeat: 0,
        }
    }

    #[test]
    fn every_part_of_a_request_changes_its_key() {
        let asked = request();
        let mut others = vec![asked.clone(); 6];
        others[0].model.push('2');
        others[1].messages[0].content.push('!');
        others[2].messages[0] = ChatMessage::system("Hello?");
        others[3].sampling.temperature = None;
        others[4].sampling.max_tokens += 1;
        others[5].repeat = 1;
        let mut keys: Vec<RequestKey> =
            others.iter().map(|other| RequestKey::new("http://a", other)).collect();
        keys.push(RequestKey::new("http://b", &asked));
        keys.push(RequestKey::new("http://a", &asked));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 8);
        assert_eq!(RequestKey::new("http://a", &asked), RequestKey::new("http://a", &request()));
    }

    #[test]
    fn replies_are_found_and_damaged_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("replies"));
        let key = RequestKey::new("http://a", &request());
        assert_eq!(cache.get(&key).unwrap(), None);
        let reply = Reply { text: "Hi – 😀".to_owned(), ..Reply::default() };
        let entry = Entry { reply, address: "http://a".to_owned(), model: "m".to_owned(), price_share: 0.5 };
        cache.put(&key, &entry).unwrap();
        let reply = Some(entry.reply);
        assert_eq!(cache.get(&key).unwrap(), reply);
        assert_eq!(cache.keys().unwrap(), std::slice::from_ref(&key));
        let intact = fs::read(cache.path(&key)).unwrap();
        for at in 0..intact.len() {
            let mut flipped = intact.clone();
            flipped[at] ^= 2;
            fs::write(cache.path(&key), &flipped).unwrap();
            let found = cache.get(&key).unwrap();
            // Without the name of the checksum the reply itself is intact.
            assert!(found.is_none() || (at < 10 && found == reply), "byte {at}");
        }
        fs::write(cache.path(&key), "{\"reply\": {\"te").unwrap();
        assert_eq!(cache.get(&key).unwrap(), None);
    }
}
