//! Files of a folder from elsewhere: symbolic links are followed only inside it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The largest file that is read whole: a large `tokenizer.json` has 40 MB.
const MAX_BYTES: u64 = 256 << 20;

/// Returns the path of the file `name` in `folder`. A missing file is not an error.
///
/// In a snapshot of the Hugging Face Hub's cache, links lead to the `blobs` of the same repository.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] if a symbolic link leads out of the folder. Otherwise another folder than the
/// one that was named could be read, and copied into a result.
pub fn file_inside(folder: &Path, name: impl AsRef<Path>) -> io::Result<PathBuf> {
    let path = folder.join(name);
    let target = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path),
        target => target?,
    };
    let root = folder.canonicalize()?;
    let is_inside = target.starts_with(&root) || blobs(&root).is_some_and(|blobs| target.starts_with(blobs));
    if is_inside {
        return Ok(path);
    }
    let problem = format!(
        "it is a symbolic link to {}, outside of its folder; replace the link by a copy of the file",
        target.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

/// Reads the regular file `name` in `folder` as [`read_inside`]; `None` if it is missing.
///
/// # Errors
///
/// Those of [`read_inside`].
pub fn read_inside_if_present(folder: &Path, name: impl AsRef<Path>) -> io::Result<Option<Vec<u8>>> {
    match read_inside(folder, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some),
    }
}

/// Reads the regular file `name` in `folder` as [`file_inside`] finds it.
///
/// # Errors
///
/// Those of [`file_inside`], [`io::ErrorKind::FileTooLarge`] beyond 256 MiB, or any error of the file system.
pub fn read_inside(folder: &Path, name: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let path = file_inside(folder, name)?;
    // A pipe would block, and a device never ends.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let problem = format!("it has more than {} MiB, the limit of such files", MAX_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

/// Returns the files of the repository whose snapshot has the folder `root`.
fn blobs(root: &Path) -> Option<PathBuf> {
    let snapshots =
        root.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_only_inside_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let model = root.path().join("model");
        fs::create_dir_all(model.join("templates")).unwrap();
        fs::write(root.path().join("secret"), "s").unwrap();
        fs::write(model.join("real"), "r").unwrap();
        symlink("real", model.join("near")).unwrap();
        symlink("../secret", model.join("far")).unwrap();
        symlink(root.path(), model.join("folder")).unwrap();
        symlink("nowhere", model.join("dangling")).unwrap();
        for name in ["real", "near", "missing", "dangling", "templates/missing"] {
            assert_eq!(file_inside(&model, name).unwrap(), model.join(name));
        }
        for name in ["far", "folder/secret", "../secret"] {
            let error = file_inside(&model, name).unwrap_err();
            assert!(error.to_string().contains("secret"), "{error}");
        }
        // A folder may itself be reached through a link.
        symlink(&model, root.path().join("alias")).unwrap();
        assert!(file_inside(&root.path().join("alias"), "near").is_ok());
        assert!(file_inside(&root.path().join("alias"), "far").is_err());
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read_inside_if_present(root.path(), "missing").unwrap(), None);
        fs::write(root.path().join("x"), "content").unwrap();
        assert_eq!(read_inside(root.path(), "x").unwrap(), b"content");
        fs::create_dir(root.path().join("folder")).unwrap();
        assert_eq!(read_inside(root.path(), "folder").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        File::create(root.path().join("large")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(read_inside(root.path(), "large").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_snapshot_links_to_the_blobs_of_its_repository() {
        let root = tempfile::tempdir().unwrap();
        let repository = root.path().join("models--a--b");
        let snapshot = repository.join("snapshots/0123");
        fs::create_dir_all(snapshot.join("data")).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        fs::write(repository.join("blobs/ab"), "w").unwrap();
        fs::write(repository.join("other"), "o").unwrap();
        symlink("../../blobs/ab", snapshot.join("config.json")).unwrap();
        symlink("../../../blobs/ab", snapshot.join("data/x")).unwrap();
        symlink("../../other", snapshot.join("wrong")).unwrap();
        assert!(file_inside(&snapshot, "config.json").is_ok());
        assert!(file_inside(&snapshot.join("data"), "x").is_ok());
        assert!(file_inside(&snapshot, "wrong").is_err());
    }
}
