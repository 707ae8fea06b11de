//! Conversion of an id to a path.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

use crate::choice::choose;
use crate::error::HubError;
use crate::repo::{RepoId, RepoKind};

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

/// The number of retries of a broken request.
const RETRIES: usize = 3;

impl Hub {
    /// The Hub of the environment, as in `huggingface_hub`. `variable` returns the value of a variable.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = set("HF_HOME").map(PathBuf::from);
        let default = Cache::default();
        let cache = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home?.join("hub")));
        let cache = cache.unwrap_or_else(|| default.path().clone());
        let stored = || Cache::new(cache.clone()).token();
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
        let failed = |error| HubError::of(repo, &self.endpoint, error);
        let api = self.api().map_err(failed)?;
        let info = api.repo(self.at(repo, repo.revision())).info().map_err(failed)?;
        let all: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        // Names come from the network and become paths.
        let all: Vec<String> = all.into_iter().filter(|file| stays_inside(file)).collect();
        let choice = choose(repo, &all)?;
        let at_commit = api.repo(self.at(repo, &info.sha));
        for file in &choice.files {
            tracing::info!(repo = %repo, file, "fetching what the cache lacks");
            at_commit.get(file).map_err(failed)?;
        }
        // So that the revision is found without the network.
        let cache = Cache::new(self.cache.clone()).repo(self.at(repo, repo.revision()));
        cache.create_ref(&info.sha).map_err(|source| HubError::Cache { path: self.cache.clone(), source })?;
        Ok(self.snapshot(repo, &info.sha).join(choice.path))
    }

    fn cached(&self, repo: &RepoId) -> Result<PathBuf, HubError> {
        let missing = || HubError::Offline { repo: repo.clone(), cache: self.cache.clone() };
        let folder = self.cache.join(self.at(repo, repo.revision()).folder_name());
        let commit = fs::read_to_string(folder.join("refs").join(repo.revision()))
            .map_or_else(|_| repo.revision().to_owned(), |commit| commit.trim().to_owned());
        let snapshot = self.snapshot(repo, &commit);
        let mut all = Vec::new();
        if !stays_inside(&commit) || !snapshot.is_dir() {
            return Err(missing());
        }
        list(&snapshot, "", &mut all).map_err(|source| HubError::Cache { path: snapshot.clone(), source })?;
        let choice = choose(repo, &all)?;
        if choice.files.is_empty() { Err(missing()) } else { Ok(snapshot.join(choice.path)) }
    }

    fn api(&self) -> Result<Api, hf_hub::api::sync::ApiError> {
        ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_retries(RETRIES)
            .with_progress(false)
            .build()
    }

    fn at(&self, repo: &RepoId, revision: &str) -> Repo {
        let kind = match repo.kind() {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        };
        Repo::with_revision(repo.name().to_owned(), kind, revision.to_owned())
    }

    fn snapshot(&self, repo: &RepoId, commit: &str) -> PathBuf {
        self.cache.join(self.at(repo, commit).folder_name()).join("snapshots").join(commit)
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
