//! Errors between the Hub and a file.

use std::io;
use std::path::PathBuf;

use crate::repo::RepoId;

/// An error of this crate. None of them holds a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The terms of a repository must be accepted first, or the token's account has no access.
    #[error(
        "{repo} is gated: open {page} in a browser, accept its terms with your account, and set HF_TOKEN to a token of \
         that account"
    )]
    Gated {
        /// The repository.
        repo: RepoId,
        /// Its page.
        page: String,
    },
    /// A repository is private or missing. Without a token the Hub does not distinguish the two.
    #[error("{repo}: the Hub refuses access; check the name, and set HF_TOKEN to a token that may read it")]
    Unauthorised {
        /// The repository.
        repo: RepoId,
    },
    /// There is no such repository or revision.
    #[error("{repo}: the Hub has no such repository or revision; check both at {page}")]
    NotFound {
        /// The repository.
        repo: RepoId,
        /// Its page.
        page: String,
    },
    /// A repository does not hold the requested file.
    #[error("{repo} holds no such file; its files of data are: {}", list(known))]
    NoSuchFile {
        /// The repository and the file.
        repo: RepoId,
        /// Its files of data.
        known: Vec<String>,
    },
    /// A repository holds several files of data and no single training split.
    #[error("{repo} holds several files of data; name one, or several with a *, as {}:FILE: {}", repo.name(), list(known))]
    WhichFile {
        /// The repository.
        repo: RepoId,
        /// Its files of data.
        known: Vec<String>,
    },
    /// Only the cache may be used, and it does not hold the repository.
    #[error("{repo} is not in the cache {}, and HF_HUB_OFFLINE is set; unset it to fetch it", cache.display())]
    Offline {
        /// The repository.
        repo: RepoId,
        /// The cache.
        cache: PathBuf,
    },
    /// The Hub gives an unexpected answer, or none.
    #[error(
        "cannot fetch {repo}: {cause}; what has come is kept: run again to go on, or set HF_HUB_OFFLINE=1 to use the cache"
    )]
    Request {
        /// The repository.
        repo: RepoId,
        /// The cause, without addresses: those of a store of files hold signatures.
        cause: String,
    },
    /// A server names a file of the cache by something else than a digest.
    #[error(
        "{repo}: {endpoint} answers with the {what} {value:?}, which is no digest of 40 to 64 hexadecimal digits; check \
         HF_ENDPOINT"
    )]
    NoDigest {
        /// The repository.
        repo: RepoId,
        /// The server.
        endpoint: String,
        /// The wrong value: `etag` or `commit`.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot use the cache {}", path.display())]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

impl HubError {
    /// Whether other input helps (exit status 2), and not another attempt.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Request { .. } | Self::Cache { .. })
    }

    /// Classifies an error of a request about `repo`.
    pub(crate) fn of(repo: &RepoId, endpoint: &str, error: ureq::Error) -> Self {
        let (repo, page) = (repo.clone(), repo.page(endpoint));
        match error {
            ureq::Error::Status(status, response) => match (status, response.header("x-error-code")) {
                (_, Some("GatedRepo")) | (403, _) => Self::Gated { repo, page },
                (401, _) => Self::Unauthorised { repo },
                (404, _) => Self::NotFound { repo, page },
                _ => Self::Request { repo, cause: format!("the server answers with status {status}") },
            },
            ureq::Error::Transport(transport) => {
                let detail = transport.message().unwrap_or("the connection failed");
                Self::Request { repo, cause: format!("{}: {detail}", transport.kind()) }
            }
        }
    }
}

fn list(known: &[String]) -> String {
    const NAMED: usize = 20;
    let named = known.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match known.len() {
        0 => "none".to_owned(),
        n if n > NAMED => format!("{named}, and {} more", n - NAMED),
        _ => named,
    }
}
