//! Manifests: the checksums of a folder's files.
//!
//! `checksums.b3` has the format of `b3sum`, so that `b3sum --check checksums.b3` checks a folder without this crate.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::sync_dir;

/// The usual name of a manifest.
pub const MANIFEST: &str = "checksums.b3";
/// The ending of all manifests. A folder has several if several processes write its files.
pub(crate) const ENDING: &str = ".b3";

/// A file that differs from its checksum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {problem}; {remedy}", subject(path))]
pub struct Damage {
    /// The file; empty in the cause of an error that names it.
    pub path: PathBuf,
    /// The difference.
    pub problem: String,
    /// How to go on.
    pub remedy: String,
}

fn subject(path: &Path) -> std::borrow::Cow<'_, str> {
    if path.as_os_str().is_empty() { "it".into() } else { path.to_string_lossy() }
}

impl Damage {
    pub(crate) fn error(self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, self)
    }
}

/// The checksums of a folder's files, by their paths in the folder.
pub(crate) struct Manifest {
    folder: PathBuf,
    pub(crate) sums: BTreeMap<String, blake3::Hash>,
}

impl Manifest {
    /// Reads the manifests of `folder`; `None` if it has none.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let mut manifest = None;
        for entry in entries {
            let path = entry?.path();
            if is_manifest(&path) {
                let of_folder = || Self { folder: folder.to_owned(), sums: BTreeMap::new() };
                manifest.get_or_insert_with(of_folder).append(&path)?;
            }
        }
        Ok(manifest)
    }

    fn append(&mut self, path: &Path) -> io::Result<()> {
        let text = fs::read(path)?;
        for (line, text) in (1..).zip(text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())) {
            let (name, sum) = parse_line(text).ok_or_else(|| {
                let problem = format!("has no checksum and file name in line {line}");
                damage(path, &problem).error()
            })?;
            self.sums.insert(name, sum);
        }
        Ok(())
    }

    /// Compares one listed file with its checksum; a missing file differs.
    pub(crate) fn check(&self, name: &str) -> io::Result<Option<Damage>> {
        let path = self.folder.join(name);
        match hash(&path) {
            Ok(found) if self.sums.get(name).is_none_or(|sum| *sum == found) => Ok(None),
            Ok(_) => Ok(Some(damage(&path, "differs from its checksum"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Some(damage(&path, "is missing, but has a checksum")))
            }
            Err(error) => Err(error),
        }
    }
}

/// Writes the manifest of all files in `folder`, but for hidden ones and those of subfolders with their own manifest,
/// and syncs them and their folders.
///
/// # Errors
///
/// Any error of the file system.
pub fn seal(folder: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    list(folder, "", &mut names)?;
    seal_files(folder, MANIFEST, &names)
}

/// Writes the manifest `manifest` of the files `names` in `folder`, and syncs them.
///
/// # Errors
///
/// Any error of the file system.
pub fn seal_files(folder: &Path, manifest: &str, names: &[String]) -> io::Result<()> {
    let mut lines = BTreeMap::new();
    for name in names {
        let path = folder.join(name);
        lines.insert(name, hash(&path)?);
        File::open(&path)?.sync_all()?;
        if let Some(parent) = path.parent().filter(|parent| *parent != folder) {
            sync_dir(parent)?;
        }
    }
    let text: String = lines.iter().map(|(name, sum)| format!("{}  {name}\n", sum.to_hex())).collect();
    crate::write(&folder.join(manifest), text.as_bytes())
}

/// Removes the manifest of `folder`, before its files change.
///
/// # Errors
///
/// Any error of the file system.
pub fn unseal(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(MANIFEST)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Compares the files of `folder` with its manifest. Files without a checksum, missing files and folders without a
/// manifest pass.
///
/// # Errors
///
/// [`Damage`] in an [`io::Error`] for the first file that differs, or any error of the file system.
pub fn check_folder(folder: &Path) -> io::Result<()> {
    let Some(manifest) = Manifest::read(folder)? else { return Ok(()) };
    for name in manifest.sums.keys().filter(|name| folder.join(name).exists()) {
        if let Some(damage) = manifest.check(name)? {
            return Err(damage.error());
        }
    }
    Ok(())
}

/// Compares one file with the manifest of its folder. A file without a checksum passes.
///
/// # Errors
///
/// As [`check_folder`].
pub fn check_file(path: &Path) -> io::Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let manifest = Manifest::read(crate::parent(path))?.filter(|manifest| manifest.sums.contains_key(&name));
    match manifest.filter(|_| path.exists()).map(|manifest| manifest.check(&name)).transpose()?.flatten() {
        Some(damage) => Err(Damage { path: PathBuf::new(), ..damage }.error()),
        None => Ok(()),
    }
}

/// Reads a file and compares it with the manifest of its folder.
///
/// # Errors
///
/// As [`check_file`], and any error of the file system.
pub fn read_checked(path: &Path) -> io::Result<Vec<u8>> {
    check_file(path)?;
    fs::read(path)
}

/// Appends the names of the files in `folder` to `names`, as paths from the first folder.
pub(crate) fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A name that is no text cannot be listed.
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
        if entry.file_name().to_string_lossy().starts_with('.') || name.ends_with(ENDING) {
            continue;
        }
        let path = entry.path();
        if !path.is_dir() {
            names.push(name);
        } else if !path.join(MANIFEST).exists() {
            list(&path, &format!("{name}/"), names)?;
        }
    }
    Ok(())
}

/// Parses `DIGEST  NAME`. A name that leads out of the folder is none.
fn parse_line(line: &[u8]) -> Option<(String, blake3::Hash)> {
    let (sum, name) = std::str::from_utf8(line).ok()?.split_once("  ")?;
    let is_inside = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let hash = blake3::Hash::from_hex(sum).ok().filter(|hash| is_inside && hash.to_hex().as_str() == sum)?;
    Some((name.to_owned(), hash))
}

pub(crate) fn hash(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            read => hasher.update(&buffer[..read]),
        };
    }
}

/// Whether a file is a manifest, by its name.
pub(crate) fn is_manifest(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ENDING)) && path.is_file()
}

pub(crate) fn damage(path: &Path, problem: &str) -> Damage {
    Damage {
        path: path.to_owned(),
        problem: problem.to_owned(),
        remedy: format!(
            "restore it from a copy, or delete {MANIFEST} of its folder to accept the files as they are"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in [("weights", "1234"), ("sub/template", "{{ x }}"), (".lock", "")] {
            crate::write(&root.path().join(name), content.as_bytes()).unwrap();
        }
        seal(root.path()).unwrap();
        root
    }

    #[test]
    fn every_flipped_bit_is_found_and_named() {
        let root = folder();
        check_folder(root.path()).unwrap();
        for name in ["weights", "sub/template", MANIFEST] {
            let path = root.path().join(name);
            let intact = fs::read(&path).unwrap();
            for bit in 0..8 * intact.len() {
                let mut flipped = intact.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &flipped).unwrap();
                // A changed name in the manifest is a file that is missing: only `verify` reports it.
                let damaged = crate::verify(root.path()).unwrap().damaged;
                assert!(!damaged.is_empty(), "bit {bit} of {name}");
                if name != MANIFEST {
                    let error = check_folder(root.path()).unwrap_err().to_string();
                    assert!(error.contains(name) && error.contains("restore it"), "{error}");
                }
            }
            fs::write(&path, &intact).unwrap();
        }
        check_folder(root.path()).unwrap();
    }

    #[test]
    fn files_without_a_checksum_pass() {
        let root = folder();
        fs::write(root.path().join("new"), "").unwrap();
        fs::remove_file(root.path().join("weights")).unwrap();
        check_folder(root.path()).unwrap();
        check_file(&root.path().join("new")).unwrap();
        unseal(root.path()).unwrap();
        fs::write(root.path().join("sub/template"), "changed").unwrap();
        check_folder(root.path()).unwrap();
    }

    #[test]
    fn a_manifest_cannot_name_a_file_elsewhere() {
        let root = folder();
        let line = format!("{}  ../secret\n", blake3::hash(b"").to_hex());
        fs::write(root.path().join(MANIFEST), line).unwrap();
        assert!(check_folder(root.path()).unwrap_err().to_string().contains("line 1"));
    }
}
