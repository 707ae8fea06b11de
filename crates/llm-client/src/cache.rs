//! Answers on disk, addressed by what was asked.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use serde::{Deserialize, Serialize};

use crate::{ChatRequest, Error, Reply};

/// The address of a request: a hash of the server's address and of everything that is sent, and the number of the repeat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey(String);

impl RequestKey {
    /// The key of `request` to the server at `address`.
    pub fn new(address: &str, request: &ChatRequest) -> Self {
        let asked = serde_json::to_vec(&(KEY_VERSION, address, request.body(), request.repeat))
            .expect("a request has string keys and finite numbers");
        Self(blake3::hash(&asked).to_hex().to_string())
    }

    /// Its hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Changes when equal requests stop meaning the same.
const KEY_VERSION: &str = "llm-client reply v1";

/// A folder of answers. Files appear whole or not at all, so what is found was received to its end.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    reply: Reply,
}

impl Cache {
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The answer to the request `key`, if it was received before.
    pub(crate) fn get(&self, key: &RequestKey) -> Result<Option<Reply>, Error> {
        let path = self.path(key);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { action: "read", path, source }),
        };
        let entry: Result<Entry, _> = serde_json::from_slice(&text);
        if let Err(error) = &entry {
            tracing::warn!(path = %path.display(), %error, "a cached answer is damaged and will be asked for again");
        }
        Ok(entry.ok().map(|entry| entry.reply))
    }

    pub(crate) fn put(&self, key: &RequestKey, reply: &Reply) -> Result<(), Error> {
        let path = self.path(key);
        let entry = Entry { reply: reply.clone() };
        let text = serde_json::to_vec(&entry).expect("a reply has string keys and plain values");
        write(&path, &text).map_err(|source| Error::Io { action: "write", path, source })
    }

    fn path(&self, key: &RequestKey) -> PathBuf {
        self.folder.join(&key.as_str()[..2]).join(format!("{}.json", key.as_str()))
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = AtomicWriteFile::open(path)?;
    file.write_all(bytes)?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChatMessage, ChatSampling};

    fn request() -> ChatRequest {
        ChatRequest {
            model: "m".to_owned(),
            messages: vec![ChatMessage::user("Hello?")],
            sampling: ChatSampling::greedy(8),
            repeat: 0,
        }
    }

    #[test]
    fn whatever_is_sent_or_repeated_has_a_key_of_its_own() {
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
    fn what_was_received_is_found_and_damage_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("replies"));
        let key = RequestKey::new("http://a", &request());
        assert_eq!(cache.get(&key).unwrap(), None);
        let reply = Reply { text: "Hi – 😀".to_owned(), finish_reason: None, model: None, usage: None };
        cache.put(&key, &reply).unwrap();
        assert_eq!(cache.get(&key).unwrap(), Some(reply));
        fs::write(cache.path(&key), "{\"reply\": {\"te").unwrap();
        assert_eq!(cache.get(&key).unwrap(), None);
    }
}
