#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod checked_json;
pub mod fault;
mod inside;
pub mod json_lines;
mod lock;
mod manifest;
mod sealed;
mod verify;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub use atomic_write_file::AtomicWriteFile;
pub use checked_json::{read_checked_json, write_checked_json};
pub use inside::{file_inside, read_inside, read_inside_if_present};
pub use lock::{Lock, LockError};
pub use manifest::{Damage, MANIFEST, check_file, check_folder, read_checked, seal, seal_files, unseal};
pub use sealed::{HASH_BYTES, Hashing, is_sealed, write_sealed};
pub use verify::{Verification, verify};

/// Replaces the file `path` with `bytes`, and creates its folder if necessary.
///
/// # Errors
///
/// Any error of the file system. The old file is then unchanged.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// Replaces the file `path` with what `content` writes, and creates its folder if necessary.
///
/// # Errors
///
/// The error of `content`, or any error of the file system. The old file is then unchanged.
pub fn write_with<E: From<io::Error>>(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<&mut AtomicWriteFile>) -> Result<(), E>,
) -> Result<(), E> {
    fs::create_dir_all(parent(path))?;
    let mut file = AtomicWriteFile::open(path)?;
    let mut out = BufWriter::new(&mut file);
    content(&mut out)?;
    out.flush()?;
    drop(out);
    fault::point("files.write.written");
    Ok(file.commit()?)
}

/// Creates the folder `target`: `fill` writes into a temporary sibling, which is then [sealed](seal), renamed and synced.
///
/// If `target` appears in the meantime, it is kept and the temporary folder is removed. This suits content-addressed
/// folders, where another process writes the same content.
///
/// # Errors
///
/// The error of `fill`, or any error of the file system. `target` then does not exist.
pub fn create_dir<T, E: From<io::Error>>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let parent = parent(target);
    fs::create_dir_all(parent)?;
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(parent)?;
    let made = fill(partial.path())?;
    seal(partial.path())?;
    fault::point("files.create_dir.filled");
    match fs::rename(partial.path(), target) {
        // The folder has its final name: nothing is left to remove.
        Ok(()) => drop(partial.keep()),
        Err(_) if target.exists() => {}
        Err(error) => return Err(error.into()),
    }
    fault::point("files.create_dir.renamed");
    sync_dir(parent)?;
    Ok(made)
}

/// Syncs a folder, so that a rename inside it survives a power failure.
///
/// # Errors
///
/// Any error of the file system. Does nothing where folders cannot be opened, as on Windows.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Returns the line of a CSV record in `text`, from the position that the crate csv gives: it is before the empty lines
/// that were skipped.
///
/// ```
/// assert_eq!(files::line_of_record("a,b\n\n1,2\n", 4, 2), 3);
/// ```
pub fn line_of_record(text: &str, byte: u64, line: u64) -> u64 {
    let from = usize::try_from(byte).unwrap_or(usize::MAX);
    let skipped = text.as_bytes().get(from..).unwrap_or_default().iter();
    let empty =
        skipped.take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|byte| **byte == b'\n').count();
    line + empty as u64
}

/// The folder of `path`; `.` for a bare file name.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/file");
        write(&path, b"old").unwrap();
        let failed = write_with(&path, |out| {
            out.write_all(b"half of the new")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file remains");
    }

    #[test]
    fn a_folder_appears_complete_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("runs/a");
        let failed: io::Result<()> = create_dir(&target, |partial| {
            fs::write(partial.join("half"), b"")?;
            Err(io::Error::other("killed"))
        });
        assert!(failed.is_err() && !target.exists());
        for content in ["first", "second"] {
            create_dir(&target, |partial| fs::write(partial.join("x"), content)).unwrap();
        }
        assert_eq!(fs::read_to_string(target.join("x")).unwrap(), "first");
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1, "no temporary folder remains");
    }
}
