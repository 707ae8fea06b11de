//! Checks that the numbers of elements in the headers of a parquet file fit into it. The parquet reader skips any number of
//! booleans that an unknown list states, although a reader of the format would need a byte for each.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

/// The size of the footer's length and of the magic after it.
const TRAILER: u64 = 8;
const MAGIC: &[u8] = b"PAR1";
/// Bytes of a page that are read in search of its header: few, and more if the header is longer.
const WINDOWS: [u64; 3] = [4 << 10, 256 << 10, 16 << 20];
/// The field of a page's header that has the size of its compressed content.
const COMPRESSED_SIZE: i64 = 3;
/// Structs and lists inside of each other; the reader has the same limit.
const DEPTH: u32 = 64;

/// Checks the footer. A file that is damaged in another way passes, and the reader says how.
pub(super) fn check_footer(file: &mut File) -> Result<(), ParquetError> {
    let length = file.metadata()?.len();
    let Some(end) = length.checked_sub(TRAILER) else { return Ok(()) };
    let trailer = read_at(file, end, TRAILER)?;
    let [a, b, c, d, magic @ ..] = &trailer[..] else { return Ok(()) };
    let size = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
    match end.checked_sub(size).filter(|_| magic == MAGIC) {
        Some(start) => match Header::of(&read_at(file, start, size)?) {
            Err(Broken::TooMany) => Err(too_many()),
            _ => Ok(()),
        },
        None => Ok(()),
    }
}

/// Checks the headers of all pages.
pub(super) fn check_pages(file: &mut File, metadata: &ParquetMetaData) -> Result<(), ParquetError> {
    let length = file.metadata()?.len();
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let (start, size) = column.byte_range();
        let end = start.saturating_add(size).min(length);
        let mut page = start;
        while page < end {
            match header_at(file, page, end)? {
                Some(size) => page = page.saturating_add(size),
                None => break,
            }
        }
    }
    Ok(())
}

/// Returns the size of the page at a position, or `None` if its header is damaged in another way.
fn header_at(file: &mut File, page: u64, end: u64) -> Result<Option<u64>, ParquetError> {
    for window in WINDOWS {
        let size = window.min(end - page);
        let is_last = size < window || window == WINDOWS[WINDOWS.len() - 1];
        match Header::of(&read_at(file, page, size)?) {
            Ok(Header { size, content }) => {
                return Ok(u64::try_from(content).ok().map(|content| size as u64 + content));
            }
            Err(Broken::TooMany) if is_last => return Err(too_many()),
            Err(Broken::Other) if is_last => return Ok(None),
            Err(_) => {}
        }
    }
    Ok(None)
}

fn too_many() -> ParquetError {
    ParquetError::General("a header states more elements than it has bytes".to_owned())
}

fn read_at(file: &mut File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A struct in Thrift's compact protocol, which the reader can skip.
#[derive(Debug, PartialEq)]
struct Header {
    /// Its size in bytes.
    size: usize,
    /// The value of [`COMPRESSED_SIZE`]; 0 without it.
    content: i64,
}

/// Why bytes are no such struct.
#[derive(Debug, PartialEq)]
enum Broken {
    /// Its lists have more elements than there are bytes.
    TooMany,
    Other,
}

impl Header {
    fn of(bytes: &[u8]) -> Result<Self, Broken> {
        let mut walk = Walk { rest: bytes, elements: bytes.len() as u64 };
        let mut header = Self { size: 0, content: 0 };
        let mut field = 0_i64;
        while let Some((kind, delta)) = walk.field()? {
            field = match delta {
                0 => zigzag(walk.varint()?),
                delta => field.wrapping_add(delta.into()),
            };
            match (field, kind) {
                (COMPRESSED_SIZE, 5) => header.content = zigzag(walk.varint()?),
                _ => walk.skip(kind, DEPTH)?,
            }
        }
        header.size = bytes.len() - walk.rest.len();
        Ok(header)
    }
}

/// A position in a header.
struct Walk<'a> {
    rest: &'a [u8],
    /// The number of elements that lists may still have.
    elements: u64,
}

impl Walk<'_> {
    /// Returns kind and difference of the next field, or `None` at the end of a struct.
    fn field(&mut self) -> Result<Option<(u8, u8)>, Broken> {
        let byte = self.byte()?;
        Ok((byte & 0xf != 0).then_some((byte & 0xf, byte >> 4)))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Result<(), Broken> {
        let depth = depth.checked_sub(1).ok_or(Broken::Other)?;
        match kind {
            // A boolean field has its value in its kind; the reader takes the same for an element.
            1 | 2 => Ok(()),
            3 => self.bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.bytes(8),
            8 => {
                let length = self.varint()?;
                self.bytes(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let size = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                self.elements(size)?;
                (0..size).try_for_each(|_| self.skip(byte & 0xf, depth))
            }
            11 => match self.varint()? {
                0 => Ok(()),
                size => {
                    self.elements(size)?;
                    let kinds = self.byte()?;
                    (0..size).try_for_each(|_| {
                        self.skip(kinds >> 4, depth)?;
                        self.skip(kinds & 0xf, depth)
                    })
                }
            },
            12 => {
                while let Some((kind, delta)) = self.field()? {
                    if delta == 0 {
                        self.varint()?;
                    }
                    self.skip(kind, depth)?;
                }
                Ok(())
            }
            13 => self.bytes(16),
            _ => Err(Broken::Other),
        }
    }

    fn elements(&mut self, size: u64) -> Result<(), Broken> {
        self.elements = self.elements.checked_sub(size).ok_or(Broken::TooMany)?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        let (&first, rest) = self.rest.split_first().ok_or(Broken::Other)?;
        self.rest = rest;
        Ok(first)
    }

    fn bytes(&mut self, count: u64) -> Result<(), Broken> {
        let count = usize::try_from(count).map_err(|_| Broken::Other)?;
        self.rest = self.rest.get(count..).ok_or(Broken::Other)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken::Other)
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Format, Pair, Text, Votes, read_records, write_pairs};

    /// A field 1000 with two thousand million booleans.
    const MANY: [u8; 9] = [0x09, 0xd0, 0x0f, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07];

    #[test]
    fn a_header_ends_where_its_struct_ends() {
        // Fields 1 (i32), 3 (i32 of 70), 5 (a struct with a list of two i16), and another byte.
        let bytes = [0x15, 0x02, 0x25, 0x8c, 0x01, 0x2c, 0x19, 0x24, 0x02, 0x04, 0x00, 0x00, 0xff];
        assert_eq!(Header::of(&bytes), Ok(Header { size: 12, content: 70 }));
        assert_eq!(Header::of(&bytes[..11]), Err(Broken::Other), "cut off");
        assert_eq!(Header::of(&[&MANY[..], &[0]].concat()), Err(Broken::TooMany));
        // Lists that are small on their own.
        let lists: Vec<u8> = (0..9).flat_map(|_| [0x09, 0x02, 0xa1]).chain([0]).collect();
        assert_eq!(Header::of(&lists), Err(Broken::TooMany));
        let nested = [vec![0x1c; 100], vec![0; 101]].concat();
        assert_eq!(Header::of(&nested), Err(Broken::Other));
    }

    #[test]
    fn a_list_of_countless_booleans_is_an_error_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pairs.parquet");
        let text = |text: &str| Text::Plain(text.to_owned());
        let pair = Pair {
            id: "a".to_owned(),
            prompt: text("2 + 2 ="),
            chosen: text(" 4"),
            rejected: text(" 5"),
            domain: None,
            context: Default::default(),
            annotator: String::new(),
            votes: Votes::default(),
            flipped: false,
        };
        write_pairs(&path, &[pair]).expect("written");
        assert_eq!(read_records(&path, Format::Pairs).expect("an intact file").len(), 1);
        let mut bytes = fs::read(&path).expect("the file");
        let trailer = bytes.split_off(bytes.len() - TRAILER as usize);
        assert_eq!(bytes.pop(), Some(0), "the footer's end");
        bytes.extend([&MANY[..], &[0]].concat());
        let size = u32::from_le_bytes(trailer[..4].try_into().expect("four bytes")) + MANY.len() as u32;
        bytes.extend([&size.to_le_bytes(), MAGIC].concat());
        fs::write(&path, bytes).expect("written");
        let error = read_records(&path, Format::Pairs).expect_err("too many elements");
        assert!(error.to_string().contains("the file is damaged"), "{error}");
    }
}
