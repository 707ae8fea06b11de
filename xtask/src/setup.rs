//! Brings libtorch into the checkout and tells cargo where it lies.
//!
//! The wheel of PyTorch on PyPI *is* libtorch, with its headers, and needs no Python at run time. pip installs it
//! beside its place; only a whole, stamped folder is renamed into it, so an interrupted set-up leaves nothing that a
//! build could mistake for libtorch.

mod prerequisites;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::wheel;
use crate::workspace::{Workspace, rpath_flag, run as run_command};

/// The libtorch that `tch` in the workspace's manifest is written for.
const TORCH: &str = "2.13.0";
/// What `libtorch_cpu.so` of the Linux wheels needs to load, even where no GPU is.
const LINUX_LOADER: [&str; 2] = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];
/// Packages whose presence tells a whole CUDA installation from a CPU one.
const CUDA_MARKS: [&str; 3] = ["nvidia_cublas-", "nvidia_cudnn_cu13-", "nvidia_nccl_cu13-"];
/// Written last: a folder that holds it is whole.
const STAMP: &str = "installed.txt";

/// Which libtorch a command asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Whatever is installed; where nothing is, what the machine can use.
    Any,
    /// What the machine can use.
    Detected,
    /// The CPU's; an installation that can use a GPU too is kept.
    Cpu,
}

/// What an installation can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    Cpu,
    Cuda,
}

/// The systems that PyPI has a wheel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Linux,
    MacOs,
}

/// Makes libtorch available and writes `.cargo/libtorch.toml`.
///
/// # Errors
///
/// Says what to install or unset where the machine lacks something.
pub(crate) fn run(workspace: &Workspace, want: Want) -> Result<()> {
    let announce = want != Want::Any;
    if announce {
        prerequisites::compiler()?;
    }
    if let Some(libtorch) = workspace.exported_libtorch() {
        check_exported(&libtorch)?;
        if announce {
            println!("libtorch: {} (exported LIBTORCH)", libtorch.display());
        }
    } else {
        let variant = install(workspace.root(), want)?;
        if announce {
            println!("libtorch: {TORCH} for {} in .libtorch", variant.words());
        }
    }
    point_cargo_at(workspace)
}

/// Installs libtorch unless what is there will do; one xtask at a time.
fn install(root: &Path, want: Want) -> Result<Variant> {
    let site = root.join(".libtorch");
    if let (Want::Any, Some(variant)) = (want, stamped(&site)) {
        return Ok(variant);
    }
    let system = System::detect(std::env::consts::OS, std::env::consts::ARCH)?;
    let lock = File::create(root.join(".libtorch.lock")).context("could not create .libtorch.lock")?;
    if lock.try_lock().is_err() {
        println!("another set-up is at work here; waiting for it");
        lock.lock().context("could not wait for .libtorch.lock")?;
    }
    let target = match want {
        Want::Any | Want::Detected if prerequisites::nvidia_driver() => Variant::Cuda,
        _ => Variant::Cpu,
    };
    let least = if want == Want::Any { Variant::Cpu } else { target };
    match stamped(&site).or_else(|| recognised(&site, system)) {
        Some(found) if found >= least => Ok(found),
        _ => download(root, &site, system, target).map(|()| target),
    }
}

/// Lets pip install beside `site`, checks every file, stamps, and renames.
fn download(root: &Path, site: &Path, system: System, variant: Variant) -> Result<()> {
    prerequisites::compiler()?;
    prerequisites::pip()?;
    let partial = root.join(".libtorch.partial");
    let fresh = partial.join("site");
    if stamped(&fresh) != Some(variant) {
        remove(&partial)?;
        // pip unpacks where TMPDIR points before it moves: here that is the same disk, and ours to clean.
        let scratch = partial.join("tmp");
        fs::create_dir_all(&scratch).with_context(|| format!("could not create {}", scratch.display()))?;
        println!("Installing libtorch {TORCH} for {} ({}) with pip", variant.words(), variant.size());
        run_command(pip_install(system, variant, &fresh).env("TMPDIR", &scratch)).with_context(|| {
            format!(
                "pip could not install libtorch. It needs a package index with torch {TORCH}, {} of disk and, on \
                 Linux, glibc 2.28 or later with pip 20.3 or later",
                variant.size()
            )
        })?;
        for package in wheel::dist_infos(&fresh)? {
            wheel::check(&package).context("pip left an incomplete package")?;
        }
        ensure!(
            recognised(&fresh, system) == Some(variant),
            "pip ended well, but {} holds no libtorch {TORCH} for {}",
            fresh.display(),
            variant.words()
        );
    }
    let old = root.join(".libtorch.old");
    remove(&old)?;
    if site.exists() {
        fs::rename(site, &old).context("could not move the old .libtorch away")?;
    }
    fs::rename(&fresh, site).context("could not move libtorch into its place")?;
    remove(&old)?;
    remove(&partial)
}

/// The pip command for a variant.
///
/// libtorch does not care which Python runs pip, so every machine takes the wheel of the same one.
fn pip_install(system: System, variant: Variant, target: &Path) -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-warn-script-location"]);
    pip.args(["--root-user-action", "ignore", "--no-compile"]);
    pip.args(["--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.12"]);
    if variant == Variant::Cpu {
        pip.arg("--no-deps");
    }
    pip.arg("--target").arg(target).args(packages(system));
    pip
}

/// What every installation on `system` holds.
fn packages(system: System) -> Vec<String> {
    let mut packages = vec![format!("torch=={TORCH}")];
    if system == System::Linux {
        packages.extend(LINUX_LOADER.map(str::to_owned));
    }
    packages
}

/// The variant of a folder that was stamped for this version.
fn stamped(site: &Path) -> Option<Variant> {
    let stamp = fs::read_to_string(site.join(STAMP)).ok()?;
    [Variant::Cpu, Variant::Cuda].into_iter().find(|variant| stamp == variant.stamp())
}

/// The variant of a folder that pip filled without us; it is stamped so that the next look is quick.
fn recognised(site: &Path, system: System) -> Option<Variant> {
    for package in packages(system) {
        wheel::check(&wheel::dist_info(site, &package)).ok()?;
    }
    let installed = wheel::dist_infos(site).ok()?;
    let cuda = CUDA_MARKS.iter().all(|mark| {
        let named = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(mark));
        installed.iter().any(named)
    });
    let variant = match cuda && installed.iter().all(|package| wheel::check(package).is_ok()) {
        true => Variant::Cuda,
        false => Variant::Cpu,
    };
    write_if_changed(&site.join(STAMP), &variant.stamp()).ok()?;
    Some(variant)
}

/// Refuses an exported `LIBTORCH` that the build would stumble over later.
fn check_exported(libtorch: &Path) -> Result<()> {
    let library = format!("lib/libtorch_cpu{}", std::env::consts::DLL_SUFFIX);
    ensure!(
        libtorch.join(&library).is_file(),
        "LIBTORCH is `{}`, but there is no {library} in it. Point it at a libtorch {TORCH}, or unset it and let \
         `cargo xtask setup` bring one",
        libtorch.display()
    );
    let Some(version) = version_of(libtorch) else { return Ok(()) };
    let release = version.split('+').next().unwrap_or(&version);
    if release != TORCH && std::env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_none() {
        bail!(
            "LIBTORCH is `{}`, which is libtorch {version}; the `tch` crate needs {TORCH}. Point it at that version, \
             or unset it and let `cargo xtask setup` bring one",
            libtorch.display()
        );
    }
    Ok(())
}

/// The version that a libtorch folder states: `build-version` in the zip archives, `version.py` in wheels.
fn version_of(libtorch: &Path) -> Option<String> {
    if let Ok(version) = fs::read_to_string(libtorch.join("build-version")) {
        return Some(version.trim().to_owned());
    }
    let text = fs::read_to_string(libtorch.join("version.py")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(line.trim_matches(['\'', '"']).to_owned())
}

/// Writes the run-time search path that `.cargo/config.toml` includes.
///
/// Absolute, since doctests run from the system's temporary folder and a target folder may lie anywhere.
fn point_cargo_at(workspace: &Workspace) -> Result<()> {
    let lib = workspace.libtorch().join("lib");
    let lib = std::path::absolute(&lib).with_context(|| format!("could not resolve {}", lib.display()))?;
    let text = cargo_config(&lib)?;
    let path = workspace.root().join(".cargo/libtorch.toml");
    write_if_changed(&path, &text).with_context(|| format!("could not write {}", path.display()))
}

fn cargo_config(lib: &Path) -> Result<String> {
    let shown = lib.to_str().filter(|lib| !lib.contains(',')).with_context(|| {
        format!("{} contains a comma or is not UTF-8, which the linker's options can't carry", lib.display())
    })?;
    let flag = rpath_flag(Path::new(shown)).replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("[build]\nrustflags = [\"{flag}\"]\nrustdocflags = [\"{flag}\"]\n"))
}

/// Replaces a file at once, or leaves it alone where it says the same: cargo would rebuild for a newer one.
fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)?;
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

impl Variant {
    fn words(self) -> &'static str {
        match self {
            Variant::Cpu => "the CPU",
            Variant::Cuda => "CPU and NVIDIA GPUs",
        }
    }

    fn size(self) -> &'static str {
        match self {
            Variant::Cpu => "0.5 GB to download, 2 GB on disk",
            Variant::Cuda => "3 GB to download, 8 GB on disk",
        }
    }

    fn stamp(self) -> String {
        format!("torch=={TORCH} for {}\n", self.words())
    }
}

impl System {
    fn detect(os: &str, architecture: &str) -> Result<Self> {
        match (os, architecture) {
            ("linux", "x86_64" | "aarch64") => Ok(Self::Linux),
            ("macos", "aarch64") => Ok(Self::MacOs),
            _ => bail!(
                "PyPI has no libtorch {TORCH} for {os} on {architecture}. Install or build libtorch {TORCH} yourself, \
                 export LIBTORCH=FOLDER (the one that holds lib/ and include/), and run `cargo xtask setup` again"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with the files of the CPU installation, each one byte long.
    fn tiny_site(name: &str) -> PathBuf {
        let site = std::env::temp_dir().join(format!("xtask-setup-{name}-{}", std::process::id()));
        for (index, package) in packages(System::Linux).iter().enumerate() {
            let info = wheel::dist_info(&site, package);
            fs::create_dir_all(&info).unwrap();
            fs::write(info.join("RECORD"), format!("lib{index}.so,sha256=x,1\n")).unwrap();
            fs::write(site.join(format!("lib{index}.so")), "x").unwrap();
        }
        site
    }

    #[test]
    fn a_whole_folder_is_recognised_and_stamped() {
        let site = tiny_site("whole");
        let before = stamped(&site);
        let found = recognised(&site, System::Linux);
        let after = stamped(&site);
        fs::write(site.join(STAMP), "torch==2.12.0 for the CPU\n").unwrap();
        let other_version = stamped(&site);
        fs::remove_dir_all(&site).unwrap();
        assert_eq!((before, found, after), (None, Some(Variant::Cpu), Some(Variant::Cpu)));
        assert_eq!(other_version, None);
    }

    #[test]
    fn a_truncated_library_is_not_recognised() {
        let site = tiny_site("truncated");
        fs::write(site.join("lib0.so"), "").unwrap();
        let found = recognised(&site, System::Linux);
        let stamp = stamped(&site);
        fs::remove_dir_all(&site).unwrap();
        assert_eq!((found, stamp), (None, None));
    }

    #[test]
    fn cuda_is_told_by_its_packages() {
        let site = tiny_site("cuda");
        for mark in CUDA_MARKS {
            let info = site.join(format!("{mark}1.0.dist-info"));
            fs::create_dir_all(&info).unwrap();
            fs::write(info.join("RECORD"), "").unwrap();
        }
        let found = recognised(&site, System::Linux);
        fs::remove_dir_all(&site).unwrap();
        assert_eq!(found, Some(Variant::Cuda));
    }

    #[test]
    fn an_exported_folder_without_libtorch_or_of_another_version_is_refused() {
        let folder = std::env::temp_dir().join(format!("xtask-exported-{}", std::process::id()));
        fs::create_dir_all(folder.join("lib")).unwrap();
        let empty = check_exported(&folder).unwrap_err().to_string();
        fs::write(folder.join(format!("lib/libtorch_cpu{}", std::env::consts::DLL_SUFFIX)), "").unwrap();
        fs::write(folder.join("version.py"), "__version__ = '2.9.1+cu128'\n").unwrap();
        let old = check_exported(&folder).unwrap_err().to_string();
        fs::write(folder.join("version.py"), "__version__ = '2.13.0+cpu'\n").unwrap();
        let right = check_exported(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert!(empty.contains("there is no lib/libtorch_cpu"), "{empty}");
        assert!(old.contains("libtorch 2.9.1+cu128") && old.contains("needs 2.13.0"), "{old}");
        assert!(right.is_ok());
    }

    #[test]
    fn systems_without_a_wheel_hear_what_to_do() {
        assert_eq!(System::detect("linux", "aarch64").unwrap(), System::Linux);
        assert_eq!(System::detect("macos", "aarch64").unwrap(), System::MacOs);
        let error = System::detect("macos", "x86_64").unwrap_err().to_string();
        assert!(error.contains("export LIBTORCH=FOLDER"), "{error}");
        assert_eq!(packages(System::MacOs), ["torch==2.13.0"]);
    }

    #[test]
    fn the_configuration_is_toml_and_refuses_what_the_linker_would_split() {
        let text = cargo_config(Path::new("/a \"b\"/lib")).unwrap();
        let flag = r#"["-Clink-arg=-Wl,-rpath,/a \"b\"/lib"]"#;
        assert_eq!(text, format!("[build]\nrustflags = {flag}\nrustdocflags = {flag}\n"));
        assert!(cargo_config(Path::new("/a,b/lib")).is_err());
    }

    #[test]
    fn an_unchanged_file_keeps_its_time() {
        let path = std::env::temp_dir().join(format!("xtask-unchanged-{}", std::process::id()));
        write_if_changed(&path, "a").unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        write_if_changed(&path, "a").unwrap();
        let same = fs::metadata(&path).unwrap().modified().unwrap();
        write_if_changed(&path, "b").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!((same, text.as_str()), (old, "b"));
    }
}
