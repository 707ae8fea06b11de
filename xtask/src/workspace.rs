//! The checkout that xtask works on, and how it calls cargo there.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The folder that `.cargo/config.toml` names when nobody exports `LIBTORCH`, relative to the root.
const OWN_LIBTORCH: &str = ".libtorch/torch";

/// A checkout of this repository.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The checkout that this xtask belongs to.
    pub(crate) fn locate() -> Result<Self> {
        // Cargo tells where the manifest lies now; the path from compile time serves a binary that is called directly.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let manifest = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        let root = manifest.parent().context("xtask lies outside of a workspace")?;
        ensure!(
            root.join("Cargo.toml").is_file(),
            "{} holds no Cargo.toml; run xtask as `cargo xtask` within the repository",
            root.display()
        );
        Ok(Self { root: root.to_owned() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The libtorch that `setup` installs.
    pub(crate) fn own_libtorch(&self) -> PathBuf {
        self.root.join(OWN_LIBTORCH)
    }

    /// The libtorch that somebody exported.
    ///
    /// Cargo hands `[env]` of `.cargo/config.toml` to xtask as well, so our own folder does not count.
    pub(crate) fn exported_libtorch(&self) -> Option<PathBuf> {
        let exported = PathBuf::from(std::env::var_os("LIBTORCH")?);
        let own = self.own_libtorch();
        let same = match (exported.canonicalize(), own.canonicalize()) {
            (Ok(exported), Ok(own)) => exported == own,
            _ => exported == own,
        };
        (!same).then_some(exported)
    }

    /// The libtorch that builds use: the exported one, or ours.
    pub(crate) fn libtorch(&self) -> PathBuf {
        self.exported_libtorch().unwrap_or_else(|| self.own_libtorch())
    }

    /// Runs cargo in the root with our standard streams.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Result<()> {
        run(self.cargo_command().args(arguments))
    }

    /// Cargo as it would run from a shell in the root.
    ///
    /// Build scripts that watch a variable run again when `cargo xtask` changes it, and with them everything above, so
    /// what the outer cargo added is taken away. Exported `RUSTFLAGS` replace the run-time search path of
    /// `.cargo/libtorch.toml`, so they get it added.
    pub(crate) fn cargo_command(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        if self.exported_libtorch().is_none() {
            command.env_remove("LIBTORCH");
        }
        let flag = rpath_flag(&self.libtorch().join("lib"));
        for name in ["RUSTFLAGS", "RUSTDOCFLAGS"] {
            if let Some(flags) = std::env::var_os(name) {
                command.env(name, with_flag(flags, &flag));
            }
        }
        command
    }
}

/// The compiler flag that lets programs find libtorch in `lib` when they start.
pub(crate) fn rpath_flag(lib: &Path) -> String {
    format!("-Clink-arg=-Wl,-rpath,{}", lib.display())
}

/// `flags` with `flag` at the end, unless it stands there already.
fn with_flag(mut flags: OsString, flag: &str) -> OsString {
    if !flags.to_string_lossy().contains(flag) {
        if !flags.is_empty() {
            flags.push(" ");
        }
        flags.push(flag);
    }
    flags
}

/// Runs a command with our standard streams.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start {}", words(command)))?;
    ensure!(status.success(), "{} failed ({status})", words(command));
    Ok(())
}

/// The standard output of a command that must end well.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("could not start {}", words(command)))?;
    ensure!(
        output.status.success(),
        "{} failed ({}): {}",
        words(command),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as a person would type it.
fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy);
    format!("`{}`", words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exported_flags_gain_the_search_path_once() {
        let flag = rpath_flag(Path::new("/opt/torch/lib"));
        let once = with_flag("-Dwarnings".into(), &flag);
        assert_eq!(once, OsString::from("-Dwarnings -Clink-arg=-Wl,-rpath,/opt/torch/lib"));
        assert_eq!(with_flag(once.clone(), &flag), once);
        assert_eq!(with_flag(OsString::new(), &flag), OsString::from(flag));
    }

    #[test]
    fn a_failure_names_the_command_as_it_is_typed() {
        let error = run(Command::new("false").arg("--fast")).unwrap_err();
        assert!(format!("{error:#}").starts_with("`false --fast` failed"), "{error:#}");
        let error = run(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(format!("{error:#}").contains("could not start `no-such-program-here`"), "{error:#}");
    }
}
