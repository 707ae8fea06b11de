//! Whether the files of installed Python packages are whole, by their own `RECORD`s.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The folder in `site` where pip notes the installation of `requirement` (`name==version`).
pub(crate) fn dist_info(site: &Path, requirement: &str) -> PathBuf {
    let name = requirement.replace("==", "-");
    // In file names the dashes of a package's name are underscores; the one before the version stays.
    let (package, version) = name.rsplit_once('-').unwrap_or((&name, ""));
    site.join(format!("{}-{version}.dist-info", package.replace('-', "_")))
}

/// Every package that pip noted in `site`.
pub(crate) fn dist_infos(site: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(site).with_context(|| format!("could not read {}", site.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "dist-info") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Checks that each file of a package is there with the size that the package's `RECORD` gives.
///
/// # Errors
///
/// Names the first file that is missing or has another size.
pub(crate) fn check(dist_info: &Path) -> Result<()> {
    let site = dist_info.parent().context("a dist-info folder lies in a site folder")?;
    let record = dist_info.join("RECORD");
    let text = fs::read_to_string(&record).with_context(|| format!("could not read {}", record.display()))?;
    for line in text.lines() {
        let Some((path, size)) = recorded(line) else { continue };
        let path = site.join(path);
        let found = fs::metadata(&path).with_context(|| format!("{} is missing", path.display()))?.len();
        ensure!(found == size, "{} has {found} bytes instead of {size}", path.display());
    }
    Ok(())
}

/// Path and size of one `RECORD` line: `path,sha256=...,size`.
///
/// Compiled caches have no size, and `--target` puts scripts elsewhere than `../../bin`: neither matters here.
fn recorded(line: &str) -> Option<(&str, u64)> {
    let mut fields = line.rsplitn(3, ',');
    let size = fields.next()?.parse().ok()?;
    let path = fields.nth(1)?.trim_matches('"');
    (!path.starts_with("../")).then_some((path, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_pip() {
        let path = dist_info(Path::new("site"), "nvidia-cuda-cupti==13.0.85");
        assert_eq!(path, Path::new("site/nvidia_cuda_cupti-13.0.85.dist-info"));
    }

    #[test]
    fn records_without_size_or_outside_of_the_folder_are_passed_over() {
        assert_eq!(recorded("torch/version.py,sha256=abc,42"), Some(("torch/version.py", 42)));
        assert_eq!(recorded("\"torch/a,b.py\",sha256=abc,42"), Some(("torch/a,b.py", 42)));
        assert_eq!(recorded("torch/__pycache__/x.pyc,,"), None);
        assert_eq!(recorded("../../bin/torchrun,sha256=abc,42"), None);
        assert_eq!(recorded(""), None);
    }

    #[test]
    fn a_short_or_missing_file_is_named() {
        let site = std::env::temp_dir().join(format!("xtask-wheel-{}", std::process::id()));
        let info = dist_info(&site, "torch==1.0");
        fs::create_dir_all(&info).unwrap();
        fs::write(info.join("RECORD"), "a.so,sha256=x,3\n").unwrap();
        let missing = check(&info).unwrap_err().to_string();
        fs::write(site.join("a.so"), "12").unwrap();
        let short = check(&info).unwrap_err().to_string();
        fs::write(site.join("a.so"), "123").unwrap();
        let whole = check(&info);
        let listed = dist_infos(&site).unwrap();
        fs::remove_dir_all(&site).unwrap();
        assert!(missing.ends_with("a.so is missing"), "{missing}");
        assert!(short.ends_with("a.so has 2 bytes instead of 3"), "{short}");
        assert!(whole.is_ok());
        assert_eq!(listed, [info]);
    }
}
