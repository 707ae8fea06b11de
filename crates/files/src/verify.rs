//! A check of all checksums below a folder.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::{Damage, MANIFEST, Manifest, damage, is_manifest};
use crate::{checked_json, json_lines, sealed};

/// Formats of this workspace that end with their hash.
const SEALED: [&str; 2] = ["logps", "tokens"];

/// The result of [`verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// The number of files that match their checksums.
    pub intact: usize,
    /// The files that differ from their checksums.
    pub damaged: Vec<Damage>,
    /// The files without a checksum.
    pub unchecked: Vec<PathBuf>,
}

/// Compares all files below `folder` with their checksums. Hidden files and symbolic links are left out.
///
/// # Errors
///
/// Any error of the file system.
pub fn verify(folder: &Path) -> io::Result<Verification> {
    let mut found = Verification::default();
    // Files of subfolders may be listed above.
    let mut listed = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        check_manifest(&folder, &mut found, &mut listed)?;
        let mut entries = fs::read_dir(&folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries.iter().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')) {
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && !listed.contains(&path) && !is_list(&path) {
                check(path, &mut found)?;
            }
        }
    }
    Ok(found)
}

/// Whether a file holds checksums of others.
fn is_list(path: &Path) -> bool {
    is_manifest(path) || json_lines::checked_by(path).is_some_and(|lines| lines.exists())
}

fn check_manifest(folder: &Path, found: &mut Verification, listed: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let manifest = match Manifest::read(folder) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let path = folder.join(MANIFEST);
            found.damaged.push(damage(&path, "is no list of checksums"));
            return Ok(());
        }
        manifest => manifest?,
    };
    let Some(manifest) = manifest else { return Ok(()) };
    for name in manifest.sums.keys() {
        match manifest.check(name)? {
            Some(damage) => found.damaged.push(damage),
            None => found.intact += 1,
        }
        listed.insert(folder.join(name));
    }
    Ok(())
}

fn check(path: PathBuf, found: &mut Verification) -> io::Result<()> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let cache = |path: &Path| Damage {
        path: path.to_owned(),
        problem: "differs from its checksum".to_owned(),
        remedy: "it is made again when it is needed".to_owned(),
    };
    let damaged = if json_lines::checks_of(&path).exists() {
        json_lines::damage(&path)?
    } else if SEALED.contains(&ending) {
        (!sealed::is_sealed(&path)?).then(|| cache(&path))
    } else {
        let intact = if ending == "json" { checked_json::is_intact(&fs::read(&path)?) } else { None };
        let Some(intact) = intact else {
            found.unchecked.push(path);
            return Ok(());
        };
        (!intact).then(|| cache(&path))
    };
    match damaged {
        Some(damage) => found.damaged.push(damage),
        None => found.intact += 1,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn every_kind_of_checksum_is_checked() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        crate::write(&path("model/weights"), b"w").unwrap();
        crate::seal(&path("model")).unwrap();
        crate::write_sealed(&path("tokens/k.tokens"), |out| out.write_all(b"ids")).unwrap();
        crate::write_checked_json(&path("replies/k.json"), &serde_json::json!({"text": "yes"})).unwrap();
        let mut log = json_lines::Log::open(&path("metrics.jsonl")).unwrap();
        log.append(&serde_json::json!({"step": 1})).unwrap();
        log.append(&serde_json::json!({"step": 2})).unwrap();
        crate::write(&path("notes.txt"), b"").unwrap();
        let found = verify(root.path()).unwrap();
        assert_eq!((found.intact, found.damaged.len()), (4, 0), "{found:?}");
        assert_eq!(found.unchecked, [path("notes.txt")]);
        for name in ["model/weights", "tokens/k.tokens", "replies/k.json", "metrics.jsonl"] {
            let intact = fs::read(path(name)).unwrap();
            let mut flipped = intact.clone();
            *flipped.last_mut().unwrap() ^= 4;
            fs::write(path(name), &flipped).unwrap();
            let found = verify(root.path()).unwrap();
            let named: Vec<_> = found.damaged.iter().map(|damage| damage.path.clone()).collect();
            assert_eq!(named, [path(name)]);
            fs::write(path(name), &intact).unwrap();
        }
    }
}
