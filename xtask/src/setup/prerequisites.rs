//! What set-up needs from the machine, with errors that say what to install.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::workspace::output;

/// A program that only a C++20 compiler with its standard library takes.
const CPP20: &str =
    "#include <concepts>\ntemplate <std::integral T> T f(T x) { return x; }\nint main() { return f(0); }\n";

/// A C++20 compiler: the `tch` crate compiles a layer of C++ against libtorch's headers.
pub(crate) fn compiler() -> Result<()> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let source = std::env::temp_dir().join(format!("xtask-cpp20-{}.cpp", std::process::id()));
    fs::write(&source, CPP20)?;
    let taken = takes_cpp20(&compiler, &source);
    fs::remove_file(&source)?;
    ensure!(
        taken,
        "`{compiler}` is no C++20 compiler. Install one (Debian, Ubuntu: `apt-get install g++`, Fedora: `dnf install \
         gcc-c++`, macOS: `xcode-select --install`) or name it in CXX"
    );
    Ok(())
}

fn takes_cpp20(compiler: &str, source: &Path) -> bool {
    // CXX may hold a wrapper and options, as in `ccache g++ -m64`.
    let mut words = compiler.split_whitespace();
    let Some(program) = words.next() else { return false };
    let mut command = Command::new(program);
    command.args(words).args(["-std=c++20", "-fsyntax-only"]).arg(source);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Python 3 with pip, which fetches the wheels; nothing of ours runs on Python afterwards.
pub(crate) fn pip() -> Result<()> {
    let version = output(Command::new("python3").args(["-m", "pip", "--version"]));
    ensure!(
        version.is_ok(),
        "`python3 -m pip` does not run. Install Python 3 with pip (Debian, Ubuntu: `apt-get install python3-pip`, \
         Fedora: `dnf install python3-pip`, macOS: `brew install python`), or export LIBTORCH with a libtorch of yours"
    );
    Ok(())
}

/// Whether the machine has a working NVIDIA driver.
pub(crate) fn nvidia_driver() -> bool {
    let listed = || output(Command::new("nvidia-smi").arg("-L")).is_ok_and(|list| list.contains("GPU "));
    Path::new("/proc/driver/nvidia/version").exists() || listed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_compiler_is_refused() {
        let source = std::env::temp_dir().join(format!("xtask-negative-{}.cpp", std::process::id()));
        fs::write(&source, "int main() { return missing; }\n").unwrap();
        let rejected = takes_cpp20("c++", &source);
        fs::write(&source, CPP20).unwrap();
        let absent = takes_cpp20("no-such-compiler", &source);
        let empty = takes_cpp20("", &source);
        fs::remove_file(&source).unwrap();
        assert_eq!([rejected, absent, empty], [false; 3]);
    }
}
