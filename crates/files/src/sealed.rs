//! Files that end with their BLAKE3 hash, for binary formats of this workspace.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;

use crate::AtomicWriteFile;

/// The length of the hash, in bytes.
pub const HASH_BYTES: usize = blake3::OUT_LEN;

/// A writer that hashes what it writes.
#[derive(Debug)]
pub struct Hashing<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Replaces the file `path` with what `content` writes, followed by its hash.
///
/// # Errors
///
/// As [`write_with`](crate::write_with).
pub fn write_sealed(
    path: &Path,
    content: impl FnOnce(&mut Hashing<&mut BufWriter<&mut AtomicWriteFile>>) -> io::Result<()>,
) -> io::Result<()> {
    crate::write_with(path, |out| {
        let mut hashing = Hashing { out, hasher: blake3::Hasher::new() };
        content(&mut hashing)?;
        let Hashing { out, hasher } = hashing;
        out.write_all(hasher.finalize().as_bytes())
    })
}

/// Whether a file ends with the hash of what precedes it.
///
/// # Errors
///
/// Any error of the file system.
pub fn is_sealed(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let Some(length) = file.metadata()?.len().checked_sub(HASH_BYTES as u64) else { return Ok(false) };
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut BufReader::with_capacity(1 << 20, &file).take(length), &mut hasher)?;
    let mut hash = [0; HASH_BYTES];
    file.seek(SeekFrom::Start(length))?;
    file.read_exact(&mut hash)?;
    Ok(hasher.finalize() == hash)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.tokens");
        write_sealed(&path, |out| out.write_all(b"content")).unwrap();
        assert!(is_sealed(&path).unwrap());
        let intact = fs::read(&path).unwrap();
        assert_eq!(intact.len(), 7 + HASH_BYTES);
        for bit in 0..8 * intact.len() {
            let mut flipped = intact.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            assert!(!is_sealed(&path).unwrap(), "bit {bit}");
        }
        for length in 0..intact.len() {
            fs::write(&path, &intact[..length]).unwrap();
            assert!(!is_sealed(&path).unwrap(), "{length} bytes");
        }
    }
}
