//! Requests to the Hub, and downloads into its cache.
//!
//! A server's headers name files of the cache: the etag a blob, the commit a snapshot. Both are refused unless they are
//! hexadecimal digests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use files::Lock;
use serde::Deserialize;
use ureq::{Agent, Response};

use crate::error::HubError;
use crate::repo::{RepoId, RepoKind};

/// The number of retries of a broken download.
const RETRIES: u32 = 3;
/// The wait before the first retry; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// The number of redirects that one request follows.
const REDIRECTS: usize = 5;
/// The time after which a silent server has failed.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest description of a repository, in bytes.
const MAX_DESCRIPTION: u64 = 64 << 20;

/// A connection to the Hub at an endpoint.
pub(crate) struct Client<'a> {
    agent: Agent,
    endpoint: &'a str,
    token: Option<&'a str>,
}

/// The folder of a repository in the cache.
pub(crate) struct Cached {
    pub(crate) folder: PathBuf,
}

/// A repository at a commit.
pub(crate) struct Description {
    pub(crate) commit: String,
    pub(crate) files: Vec<String>,
}

/// A response after its redirects, with the headers of the Hub's own answer.
struct Answer {
    response: Response,
    etag: Option<String>,
    commit: Option<String>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(endpoint: &'a str, token: Option<&'a str>) -> Self {
        // Redirects are followed here, so that a token goes to the endpoint only.
        let agent = ureq::builder().try_proxy_from_env(true).redirects(0).timeout_read(SILENCE).build();
        Self { agent, endpoint, token }
    }

    /// Asks for the commit and the files of `repo`.
    pub(crate) fn describe(&self, repo: &RepoId) -> Result<Description, HubError> {
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            siblings: Vec<Sibling>,
        }
        let kind = match repo.kind() {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        let revision = encoded(repo.revision()).replace('/', "%2F");
        let url = format!("{}/api/{kind}/{}/revision/{revision}", self.endpoint, repo.name());
        let body = self.get(repo, &url, None)?.response.into_reader().take(MAX_DESCRIPTION);
        let info: Info = serde_json::from_reader(body).map_err(|error| request(repo, &error))?;
        let commit = self.digest(repo, "commit", Some(info.sha))?;
        Ok(Description {
            commit,
            files: info.siblings.into_iter().map(|sibling| sibling.rfilename).collect(),
        })
    }

    /// Downloads `file` of `repo` at `commit` into the cache, unless the cache holds it.
    pub(crate) fn fetch(
        &self,
        repo: &RepoId,
        cached: &Cached,
        commit: &str,
        file: &str,
    ) -> Result<(), HubError> {
        let pointer = cached.snapshot(commit).join(file);
        if pointer.exists() {
            return Ok(());
        }
        tracing::info!(%repo, file, "fetching what the cache lacks");
        let kind = match repo.kind() {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        };
        let url = format!("{}/{kind}{}/resolve/{commit}/{}", self.endpoint, repo.name(), encoded(file));
        let first = self.get(repo, &url, Some("bytes=0-0"))?;
        self.digest(repo, "commit", first.commit)?;
        let etag = self.digest(repo, "etag", first.etag)?;
        let size = size(&first.response).ok_or_else(|| request(repo, &"the answer names no size"))?;
        let blob = cached.folder.join("blobs").join(&etag);
        let blobs = cached.folder.join("blobs");
        fs::create_dir_all(&blobs).map_err(cache_error(&blobs))?;
        let waiting = || tracing::info!("waiting for another process that downloads {file}");
        let _lock = Lock::exclusive(&blob.with_extension("lock"), waiting)
            .map_err(|error| cache_error(&blob)(io::Error::other(error)))?;
        if !blob.exists() {
            let part = blob.with_extension("part");
            self.download(repo, &url, &part, size)?;
            fs::rename(&part, &blob).and_then(|()| files::sync_dir(&blobs)).map_err(cache_error(&blob))?;
        }
        link(&blob, &pointer, file).map_err(cache_error(&pointer))
    }

    /// Downloads what the file `part` lacks of `size` bytes.
    fn download(&self, repo: &RepoId, url: &str, part: &Path, size: u64) -> Result<(), HubError> {
        for attempt in 0.. {
            match self.download_once(repo, url, part, size) {
                Err(HubError::Request { .. }) if attempt < RETRIES => {
                    thread::sleep(FIRST_WAIT * (1 << attempt));
                }
                other => return other,
            }
        }
        Ok(())
    }

    fn download_once(&self, repo: &RepoId, url: &str, part: &Path, size: u64) -> Result<(), HubError> {
        let failed = cache_error(part);
        let open = || OpenOptions::new().append(true).create(true).open(part);
        let mut file = open().map_err(cache_error(part))?;
        let length = |file: &File| file.metadata().map(|metadata| metadata.len());
        let mut start = length(&file).map_err(cache_error(part))?;
        if start > size {
            start = 0;
            file.set_len(0).map_err(cache_error(part))?;
        }
        if start < size {
            let answer = self.get(repo, url, Some(&format!("bytes={start}-")))?;
            if start > 0 && answer.response.status() != 206 {
                start = 0;
                file.set_len(0).map_err(cache_error(part))?;
            }
            let mut body = answer.response.into_reader().take(size - start);
            io::copy(&mut body, &mut file).map_err(|error| request(repo, &error))?;
        }
        file.sync_all().map_err(cache_error(part))?;
        let found = length(&file).map_err(failed)?;
        if found == size {
            return Ok(());
        }
        Err(request(repo, &format!("the download ended after {found} of {size} bytes")))
    }

    /// Sends a request and follows its redirects. The token goes to the endpoint only.
    fn get(&self, repo: &RepoId, url: &str, range: Option<&str>) -> Result<Answer, HubError> {
        let home = origin(self.endpoint);
        let (mut url, mut etag, mut commit) = (url.to_owned(), None, None);
        for _ in 0..=REDIRECTS {
            let is_home = origin(&url) == home;
            let mut asked = self.agent.get(&url).set("accept-encoding", "identity");
            if let Some(range) = range {
                asked = asked.set("range", range);
            }
            if let Some(token) = self.token.filter(|_| is_home) {
                asked = asked.set("authorization", &format!("Bearer {token}"));
            }
            let response = asked.call().map_err(|error| HubError::of(repo, self.endpoint, error))?;
            let header = |name: &str| response.header(name).map(str::to_owned);
            // The Hub names the file; the store that it redirects to has other etags.
            etag = etag.or_else(|| header("x-linked-etag")).or_else(|| header("etag"));
            commit = commit.or_else(|| header("x-repo-commit"));
            if !(300..400).contains(&response.status()) {
                return Ok(Answer { response, etag, commit });
            }
            let location = header("location").unwrap_or_default();
            url = match location.strip_prefix('/') {
                Some(_) if !location.starts_with("//") => format!("{}{location}", origin(&url)),
                _ => location,
            };
            let is_secure = url.starts_with("https://");
            if !is_secure && (home.starts_with("https://") || !url.starts_with("http://")) {
                return Err(request(repo, &"a redirect leads to an address without TLS"));
            }
        }
        Err(request(repo, &format!("more than {REDIRECTS} redirects")))
    }

    /// Returns a header's value without its quotes if it is a digest: 40 to 64 hexadecimal digits.
    fn digest(&self, repo: &RepoId, what: &'static str, value: Option<String>) -> Result<String, HubError> {
        let value = value.unwrap_or_default();
        let bare = value.strip_prefix("W/").unwrap_or(&value).trim_matches('"');
        if is_digest(bare) {
            return Ok(bare.to_ascii_lowercase());
        }
        let (repo, endpoint) = (repo.clone(), self.endpoint.to_owned());
        Err(HubError::NoDigest { repo, endpoint, what, value: value.chars().take(MAX_SHOWN).collect() })
    }
}

/// The largest part of a header in an error, in characters.
const MAX_SHOWN: usize = 80;

/// Whether `text` is a digest of the Hub: SHA-1 or SHA-256 in hexadecimal digits.
pub(crate) fn is_digest(text: &str) -> bool {
    (40..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Cached {
    /// Returns the folder of `repo` below the cache.
    pub(crate) fn of(cache: &Path, repo: &RepoId) -> Self {
        let kind = match repo.kind() {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        Self { folder: cache.join(format!("{kind}--{}", repo.name().replace('/', "--"))) }
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The file that names the commit of a revision.
    pub(crate) fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }
}

/// Makes `pointer` a link to `blob`, relative so that the cache can move.
fn link(blob: &Path, pointer: &Path, file: &str) -> io::Result<()> {
    let folder = pointer.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // `snapshots/COMMIT` is two folders deep, and each folder of the file one more.
    let up = "../".repeat(2 + file.matches('/').count());
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    let made = symlink(&Path::new(&up).join("blobs").join(name.as_ref()), blob, pointer);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| files::sync_dir(folder)),
    }
}

#[cfg(unix)]
fn symlink(relative: &Path, _: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, pointer)
}

#[cfg(not(unix))]
fn symlink(_: &Path, blob: &Path, pointer: &Path) -> io::Result<()> {
    fs::copy(blob, pointer).map(drop)
}

/// Returns the size of the whole file.
fn size(response: &Response) -> Option<u64> {
    match response.header("content-range") {
        Some(range) => range.rsplit('/').next()?.parse().ok(),
        None => response.header("content-length")?.parse().ok(),
    }
}

/// Returns scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    &url[..url[start..].find('/').map_or(url.len(), |at| start + at)]
}

/// Encodes what ends the path of an address.
fn encoded(path: &str) -> String {
    path.replace('%', "%25").replace('#', "%23").replace('?', "%3F")
}

fn request(repo: &RepoId, cause: &dyn std::fmt::Display) -> HubError {
    HubError::Request { repo: repo.clone(), cause: cause.to_string() }
}

pub(crate) fn cache_error(path: &Path) -> impl FnOnce(io::Error) -> HubError + use<> {
    let path = path.to_owned();
    move |source| HubError::Cache { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_hexadecimal() {
        assert!(is_digest(&"0f".repeat(20)) && is_digest(&"A9".repeat(32)));
        for text in [
            "",
            "0f",
            "../../../../root/.ssh/authorized_keys",
            &"0g".repeat(20),
            &"0".repeat(39),
            &"0".repeat(65),
        ] {
            assert!(!is_digest(text), "{text}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("https://hub.example:8443/a/b"), "https://hub.example:8443");
        assert_eq!(origin("http://127.0.0.1:80"), "http://127.0.0.1:80");
        assert_eq!(encoded("data/a#b?c%20.parquet"), "data/a%23b%3Fc%2520.parquet");
    }
}
