//! Opening files: gzip, byte order marks, and content that is not what the name says.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

use crate::error::DataError;
use crate::place::{Place, Unit};
use crate::problem::FileProblem;

const GZIP: &[u8] = &[0x1f, 0x8b];
const BOM: &[u8] = "\u{feff}".as_bytes();
const UTF_16: [&[u8]; 2] = [&[0xff, 0xfe], &[0xfe, 0xff]];
/// The beginnings of archives and of compressed files that are not read.
const ARCHIVES: [(&[u8], &str); 5] = [
    (b"PK\x03\x04", "a zip archive"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "compressed with xz"),
    (b"BZh", "compressed with bzip2"),
    (b"7z\xbc\xaf", "a 7z archive"),
];
const LFS_POINTER: &[u8] = b"version https://git-lfs";
/// Bytes that show what a file holds.
const HEAD: u64 = 64;

/// Opens a text file. Gzip is recognized by its first bytes, and a byte order mark is skipped.
pub(super) fn open_text(path: &Path) -> Result<Box<dyn BufRead>, DataError> {
    let failed = |source| DataError::Io { action: "read", path: path.to_owned(), source };
    let (head, rest) = peek(BufReader::new(open(path)?)).map_err(failed)?;
    let is_gzip = head.starts_with(GZIP);
    let whole = Cursor::new(head).chain(rest);
    if !is_gzip {
        return skip_mark(path, peek(whole).map_err(failed)?);
    }
    let compressed = Rc::new(Cell::new(0));
    let whole = BufReader::new(Counted { inner: whole, bytes: Rc::clone(&compressed) });
    let broken = |error: io::Error| DataError::Broken {
        place: Place { path: path.into(), unit: Unit::Line, number: 1 },
        problem: error.to_string(),
    };
    skip_mark(
        path,
        peek(BufReader::new(Inflated { inner: MultiGzDecoder::new(whole), bytes: 0, compressed }))
            .map_err(broken)?,
    )
}

/// Counts the bytes that are read.
struct Counted<R> {
    inner: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// Decompressed text, up to a factor that no text reaches: a small file must not fill the memory.
struct Inflated<R> {
    inner: R,
    bytes: u64,
    compressed: Rc<Cell<u64>>,
}

/// The factor by which gzip may shrink a text. Preferences reach 3 to 10.
const MAX_FACTOR: u64 = 100;
/// Texts up to this length, in bytes, may shrink more.
const FREE: u64 = 16 << 20;

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        if self.bytes > FREE && self.bytes > MAX_FACTOR * self.compressed.get() {
            let problem = format!(
                "the text is more than {MAX_FACTOR} times as long as its gzip file; decompress the file first if it is meant"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(read)
    }
}

/// Opens a parquet or Arrow file.
pub(super) fn open_table(path: &Path) -> Result<File, DataError> {
    let failed = |source| DataError::Io { action: "read", path: path.to_owned(), source };
    let (head, mut file) = peek(open(path)?).map_err(failed)?;
    check(path, &head)?;
    file.rewind().map_err(failed)?;
    Ok(file)
}

fn open(path: &Path) -> Result<File, DataError> {
    File::open(path).map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })
}

fn peek<R: Read>(mut text: R) -> io::Result<(Vec<u8>, R)> {
    let mut head = Vec::new();
    (&mut text).take(HEAD).read_to_end(&mut head)?;
    Ok((head, text))
}

fn skip_mark<R: BufRead + 'static>(
    path: &Path,
    (mut head, rest): (Vec<u8>, R),
) -> Result<Box<dyn BufRead>, DataError> {
    check(path, &head)?;
    if head.starts_with(BOM) {
        head.drain(..BOM.len());
    }
    Ok(Box::new(Cursor::new(head).chain(rest)))
}

fn check(path: &Path, head: &[u8]) -> Result<(), DataError> {
    let problem = if head.starts_with(LFS_POINTER) {
        FileProblem::LfsPointer
    } else if UTF_16.iter().any(|mark| head.starts_with(mark)) {
        FileProblem::Utf16
    } else if let Some((_, kind)) = ARCHIVES.iter().find(|(magic, _)| head.starts_with(magic)) {
        FileProblem::Archive { kind }
    } else if head.trim_ascii_start().starts_with(b"<") {
        FileProblem::WebPage
    } else {
        return Ok(());
    };
    Err(DataError::File { path: path.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    use super::*;

    fn read(row: &str, rows: usize) -> io::Result<u64> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl.gz");
        let mut out = GzEncoder::new(File::create(&path).unwrap(), Compression::best());
        (0..rows).for_each(|_| out.write_all(row.as_bytes()).unwrap());
        out.finish().unwrap();
        io::copy(&mut open_text(&path).unwrap(), &mut io::sink())
    }

    #[test]
    fn a_small_file_does_not_become_an_endless_text() {
        let row = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n";
        let rows = 1 + FREE as usize / row.len();
        assert!(read(row, rows).unwrap_err().to_string().contains("100 times as long"));
        assert_eq!(read(row, rows / 2).unwrap(), (rows / 2 * row.len()) as u64);
    }
}
