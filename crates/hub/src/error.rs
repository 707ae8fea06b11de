//! What can go wrong between the Hub and a file.

use std::io;
use std::path::PathBuf;

use hf_hub::api::sync::ApiError;

use crate::repo::RepoId;

/// An error of this crate. None of them holds a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The terms of a repository are to be accepted first, or the token's account has no access.
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
    /// The Hub does not show a repository to whoever asks, or it is not there: without a token it says the same of both.
    #[error("{repo}: the Hub asks who you are; check the name, and set HF_TOKEN to a token that may read it")]
    Unauthorised {
        /// The repository.
        repo: RepoId,
    },
    /// There is no such repository or revision.
    #[error("{repo}: the Hub has no such repository or revision; check both at {page}")]
    NotFound {
        /// The repository.
        repo: RepoId,
        /// Where it would be.
        page: String,
    },
    /// A repository does not hold the file that is asked for.
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
    /// Nothing but the cache may be looked at, and it does not hold this.
    #[error("{repo} is not in the cache {}, and HF_HUB_OFFLINE is set; unset it to fetch it", cache.display())]
    Offline {
        /// The repository.
        repo: RepoId,
        /// The cache.
        cache: PathBuf,
    },
    /// The Hub answers with something else, or not at all.
    #[error(
        "cannot fetch {repo}: {cause}; what has come is kept: run again to go on, or set HF_HUB_OFFLINE=1 to use the cache"
    )]
    Request {
        /// The repository.
        repo: RepoId,
        /// What the client says; its words name its own causes, so that it is no `source` to be printed after it.
        cause: Box<ApiError>,
    },
    /// The cache cannot be read or written.
    #[error("cannot use the cache {}", path.display())]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl HubError {
    /// Whether the user can mend it by saying something else (exit status 2), not by trying again.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Request { .. } | Self::Cache { .. })
    }

    /// What an error of the client means for somebody who wants `repo`.
    pub(crate) fn of(repo: &RepoId, endpoint: &str, error: ApiError) -> Self {
        let (repo, page) = (repo.clone(), repo.page(endpoint));
        let ApiError::RequestError(request) = &error else {
            return Self::Request { repo, cause: Box::new(error) };
        };
        match &**request {
            ureq::Error::Status(status, response) => match (status, response.header("x-error-code")) {
                (_, Some("GatedRepo")) | (403, _) => Self::Gated { repo, page },
                (401, _) => Self::Unauthorised { repo },
                (404, _) => Self::NotFound { repo, page },
                _ => Self::Request { repo, cause: Box::new(error) },
            },
            ureq::Error::Transport(_) => Self::Request { repo, cause: Box::new(error) },
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
