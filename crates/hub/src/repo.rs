//! Ids of repositories.

use std::fmt;

/// The kind of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepoKind {
    /// A model: configuration, tokenizer, weights.
    Model,
    /// A data set.
    Dataset,
}

/// A repository at a revision, and possibly a file in it: `owner/name@revision:file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoId {
    kind: RepoKind,
    name: String,
    revision: String,
    file: Option<String>,
}

/// The default revision.
const MAIN: &str = "main";

impl RepoId {
    /// Parses an id, or returns `None`. The caller first checks whether the text is a path that exists.
    pub fn parse(kind: RepoKind, text: &str) -> Option<Self> {
        let (rest, file) = match text.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (text, None),
        };
        let (name, revision) = rest.split_once('@').unwrap_or((rest, MAIN));
        let (owner, repo) = name.split_once('/')?;
        let is_name = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let is_inside =
            |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\\');
        let whole = is_name(owner) && is_name(repo) && is_inside(revision) && file.is_none_or(is_inside);
        whole.then(|| Self {
            kind,
            name: name.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }

    /// Returns its kind.
    pub fn kind(&self) -> RepoKind {
        self.kind
    }

    /// Returns `owner/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Returns the file in it, whose last part may contain `*`.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// Its page, below an endpoint.
    pub(crate) fn page(&self, endpoint: &str) -> String {
        match self.kind {
            RepoKind::Model => format!("{endpoint}/{}", self.name),
            RepoKind::Dataset => format!("{endpoint}/datasets/{}", self.name),
        }
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)?;
        self.file.as_ref().map_or(Ok(()), |file| write!(f, ":{file}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_no_paths() {
        for text in
            ["a/b", "GAIR/preference-dissection@v1.0", "a/b.c_d@refs/convert/parquet:default/train/*.parquet"]
        {
            let id = RepoId::parse(RepoKind::Dataset, text).expect(text);
            let shown = if text.contains('@') { text.to_owned() } else { format!("{text}@main") };
            assert_eq!(id.to_string(), shown);
        }
        for text in [
            "pairs.jsonl",
            "./a/b",
            "../b",
            "/a/b",
            "a/b/c",
            "a/",
            "/b",
            "a/b@",
            "a/b:",
            "a/b:../c",
            "a/b:/c",
            "a b/c",
        ] {
            assert_eq!(RepoId::parse(RepoKind::Dataset, text), None, "{text}");
        }
    }
}
