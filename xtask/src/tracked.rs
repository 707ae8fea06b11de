//! The text files of the repository, as rules read them.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::{Workspace, output};

/// The text files that git tracks or would track, by their path from the root.
pub(crate) type Files = BTreeMap<String, String>;

/// What a rule found, one line each: where, what, and what to do.
pub(crate) type Violations = Vec<String>;

/// Reads the text files that git tracks or would track.
pub(crate) fn read(workspace: &Workspace) -> Result<Files> {
    let mut list = Command::new("git");
    list.current_dir(workspace.root());
    let listed = output(list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let mut files = Files::new();
    for path in listed.split_terminator('\0') {
        let full = workspace.root().join(path);
        // A path can be gone (deleted, not yet committed), a folder or link (no text of ours), or hold no text.
        if !full.symlink_metadata().is_ok_and(|found| found.is_file()) {
            continue;
        }
        let bytes = fs::read(&full).with_context(|| format!("could not read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.insert(path.to_owned(), text);
        }
    }
    Ok(files)
}
