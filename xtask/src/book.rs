//! `cargo xtask book`: the documentation as an mdBook.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, run};
use crate::{reference, tracked};

/// Writes the reference pages that are generated from the code.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    for (path, text) in reference::pages(&tracked::read(workspace)?) {
        let full = workspace.root().join(path);
        if let Some(folder) = full.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(&full, text).with_context(|| format!("cannot write {path}"))?;
        println!("{path}");
    }
    // The programs print their own help; a test compares it with the page, and writes the page when it is told to.
    println!("docs/reference/programs.md: UPDATE_REFERENCE=1 cargo test -p bins --test reference");
    Ok(())
}

/// Builds the book from `docs`, after a check that its reference pages are current.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let stale = reference::stale(&tracked::read(workspace)?);
    if !stale.is_empty() {
        bail!("{}", stale.join("\n"));
    }
    let found = Command::new("mdbook").arg("--version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        bail!("mdbook is not installed; run `cargo install mdbook --locked`, then this command again");
    }
    run(Command::new("mdbook").arg("build").current_dir(workspace.root()))?;
    println!("target/book/index.html");
    Ok(())
}
