//! Conversion of an id to a path.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::choice::choose;
use crate::client::{Cached, Client, cache_error, is_digest};
use crate::error::HubError;
use crate::repo::RepoId;

/// The Hub, with cache and token of this machine.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    access: Access,
}

/// The sources of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The cache, and the Hub for missing files.
    Network,
    /// The cache only.
    CacheOnly,
}

/// The default address of the Hub.
const ENDPOINT: &str = "https://huggingface.co";

impl Hub {
    /// The Hub of the environment, as in `huggingface_hub`. `variable` returns the value of a variable.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = set("HF_HOME").map(PathBuf::from);
        let cache = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home?.join("hub")));
        let cache = cache.unwrap_or_else(default_cache);
        // As `huggingface-cli login` writes it.
        let stored = || {
            let token = fs::read_to_string(cache.parent()?.join("token")).ok()?;
            Some(token.trim().to_owned()).filter(|token| !token.is_empty())
        };
        let is_on =
            |value: String| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
        let offline = set("HF_HUB_OFFLINE").is_some_and(is_on);
        Self {
            endpoint: set("HF_ENDPOINT")
                .map_or_else(|| ENDPOINT.to_owned(), |url| url.trim_end_matches('/').to_owned()),
            token: set("HF_TOKEN").map(|token| token.trim().to_owned()).or_else(stored),
            cache,
            access: if offline { Access::CacheOnly } else { Access::Network },
        }
    }

    /// Downloads what the cache lacks and returns the path: a model's folder, a file, or a pattern with `*` in its last
    /// part. All files are of one commit.
    ///
    /// # Errors
    ///
    /// [`HubError`]. Complete files stay in the cache.
    pub fn fetch(&self, repo: &RepoId) -> Result<PathBuf, HubError> {
        match self.access {
            Access::CacheOnly => self.cached(repo),
            Access::Network => self.download(repo),
        }
    }

    fn download(&self, repo: &RepoId) -> Result<PathBuf, HubError> {
        let client = Client::new(&self.endpoint, self.token.as_deref());
        let description = client.describe(repo)?;
        // Names come from the network and become paths.
        let all: Vec<String> = description.files.into_iter().filter(|file| stays_inside(file)).collect();
        let choice = choose(repo, &all)?;
        let (cached, commit) = (Cached::of(&self.cache, repo), description.commit);
        for file in &choice.files {
            client.fetch(repo, &cached, &commit, file)?;
        }
        // So that the revision is found without the network.
        let reference = cached.reference(repo.revision());
        files::write(&reference, commit.as_bytes()).map_err(cache_error(&reference))?;
        Ok(cached.snapshot(&commit).join(choice.path))
    }

    fn cached(&self, repo: &RepoId) -> Result<PathBuf, HubError> {
        let missing = || HubError::Offline { repo: repo.clone(), cache: self.cache.clone() };
        let cached = Cached::of(&self.cache, repo);
        let commit = fs::read_to_string(cached.reference(repo.revision()))
            .map_or_else(|_| repo.revision().to_owned(), |commit| commit.trim().to_owned());
        let snapshot = cached.snapshot(&commit);
        let mut all = Vec::new();
        if !is_digest(&commit) || !snapshot.is_dir() {
            return Err(missing());
        }
        list(&snapshot, "", &mut all).map_err(cache_error(&snapshot))?;
        let choice = choose(repo, &all)?;
        if choice.files.is_empty() { Err(missing()) } else { Ok(snapshot.join(choice.path)) }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("access", &self.access)
            .finish()
    }
}

/// The cache of `huggingface_hub` without variables.
fn default_cache() -> PathBuf {
    std::env::home_dir().unwrap_or_default().join(".cache/huggingface/hub")
}

fn stays_inside(path: &str) -> bool {
    !path.contains('\\') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The files below a folder, as paths from it.
fn list(folder: &Path, prefix: &str, out: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{name}/"), out)?;
        } else {
            out.push(name);
        }
    }
    Ok(())
}
