//! Checks what a stranger gets who depends on a published crate of ours.

use anyhow::{Context, Result, ensure};

use crate::workspace::{Workspace, output, run};

/// The crate that is fit for the registry.
const PACKAGE: &str = "pref-loss";
/// A crate outside of the workspace that depends on it.
const CONSUMER: &str = "examples/downstream/Cargo.toml";
/// As `[package.metadata.docs.rs]` says.
const DOCS: &str = "doc-only,rayon";
/// Beside what the other stages build, which this must not disturb.
const TARGET: &str = "target/outside";
const TO: &str = "--target-dir";
/// A folder that is not there.
const NOWHERE: &str = "no-libtorch";

/// Packs the crate as for the registry and builds it from there, without libtorch; then the consumer against the packed
/// crate; then the documentation as docs.rs would.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let target = workspace.root().join(TARGET);
    let packed = target.join("package").join(format!("{PACKAGE}-{}", version(workspace)?));
    let cargo = |arguments: &[&str]| without_libtorch(workspace, arguments);
    cargo(&[
        "publish",
        "--dry-run",
        "--allow-dirty",
        "--package",
        PACKAGE,
        "--no-default-features",
        TO,
        TARGET,
    ])?;
    ensure!(packed.join("Cargo.toml").is_file(), "{} was not packed", packed.display());
    let patch = format!("patch.crates-io.{PACKAGE}.path={packed:?}");
    for what in ["test", "run"] {
        cargo(&[what, "--quiet", "--manifest-path", CONSUMER, "--config", &patch, TO, TARGET])?;
    }
    cargo(&[
        "doc",
        "--no-deps",
        "--package",
        PACKAGE,
        "--no-default-features",
        "--features",
        DOCS,
        TO,
        TARGET,
    ])
}

/// Cargo with a `LIBTORCH` that leads nowhere: whatever looks for it fails.
fn without_libtorch(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let mut command = workspace.cargo_command();
    command.args(arguments).env("LIBTORCH", workspace.root().join(NOWHERE));
    run(&mut command)
}

/// What follows the last `#` or `@` of a package's id.
fn version(workspace: &Workspace) -> Result<String> {
    let id = output(workspace.cargo_command().args(["pkgid", "--package", PACKAGE]))?;
    let version = id.trim().rsplit(['#', '@']).next();
    Ok(version.context("`cargo pkgid` printed nothing")?.to_owned())
}
