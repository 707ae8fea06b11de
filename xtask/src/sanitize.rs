//! torch-ext's tests with its C++ under the address and undefined-behaviour sanitizers.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::{Workspace, output, run as run_command};

/// What the sanitizers are to leave out, with a reason each, from the root.
const SUPPRESSIONS: &str = "crates/torch-ext/sanitizer-suppressions.txt";

/// Whole stacks, since libtorch's frames hide from short ones who asked for what leaked. GCC 12 checks no stack after its function
/// has returned: the frames that it makes for that are not aligned as 64-byte vectors need (its bug 110027).
const ADDRESSES: &str = "detect_leaks=1:fast_unwind_on_malloc=0";

/// Runs the tests. A wrong access ends a test binary; leaks are reported at its end.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "the sanitizers are GCC's on Linux; run this there");
    let suppressions = workspace.root().join(SUPPRESSIONS);
    let mut command = workspace.cargo_command();
    command.args(["--config", &runner(&library()?)]);
    command.args(["test", "--package", "torch-ext", "--features", "torch-ext/sanitize"]);
    command.args(["--lib", "--tests", "--no-fail-fast"]);
    command.env("ASAN_OPTIONS", ADDRESSES);
    command.env("LSAN_OPTIONS", format!("suppressions={}:print_suppressions=0", suppressions.display()));
    command.env("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1");
    run_command(&mut command)
        .context("a sanitizer found something, or a test failed; the first report above says where")
}

/// The address sanitizer's library as the compiler of the shim has it.
fn library() -> Result<String> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let path = output(Command::new(compiler).arg("-print-file-name=libasan.so"))?.trim().to_owned();
    // A compiler that does not have it answers with the bare name.
    ensure!(
        Path::new(&path).is_absolute(),
        "this C++ compiler brings no libasan.so; the sanitizers are GCC's, so install g++, or let CXX name it"
    );
    Ok(path)
}

/// Cargo's setting that has tests, and nothing else, start with `library`, which wants to be loaded before all others; rustc links
/// libtorch before it.
fn runner(library: &str) -> String {
    format!("target.'cfg(all())'.runner = ['env', 'LD_PRELOAD={library}']")
}
